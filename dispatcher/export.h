/* ExportCommands: the commands of a batch as a stream, fetched ahead of a reader who keeps up, and no further than that
 * of one who does not.
 * Owns: the handlers. May call: found, view, lib/store. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_EXPORT_H
#define MUSTER_DISPATCHER_EXPORT_H

#include "lib/base/grpc_server.h"

void export_commands(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void export_cancelled(struct grpc_call *call, void *service);

#endif
