/* gRPC server reflection, v1 and v1alpha (grpc/grpc doc/server-reflection.md), from an encoded FileDescriptorSet.
 * Owns: struct grpc_reflection. May call: lib/base/grpc_server, generated descriptor messages. Loop rule: never blocks.
 */
#ifndef MUSTER_BASE_GRPC_REFLECTION_H
#define MUSTER_BASE_GRPC_REFLECTION_H

#include "lib/base/buf.h"
#include "lib/base/grpc_server.h"

struct grpc_reflection;

/* The descriptors of all services this build knows, linked into the program. Borrowed, for ever. */
struct slice grpc_reflection_builtin(void);

/* Adds both reflection services to `server`, which lists the services added to it, then and later. `set` is an encoded
 * google.protobuf.FileDescriptorSet with all imports, borrowed. Returns owned, or NULL when it can't be decoded; must
 * outlive the server. */
struct grpc_reflection *grpc_reflection_new(struct grpc_server *server, struct slice set);
void grpc_reflection_free(struct grpc_reflection **reflection);

#endif
