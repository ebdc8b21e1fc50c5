/* gRPC client on the same HTTP/2 sessions as the server: used by the command line, benchmarks and tests.
 * Owns: struct grpc_client, its one connection (made at the first call, again after a loss) and calls.
 * May call: lib/base, proto/grpc framing, proto/status. Loop rule: non-blocking. */
#ifndef MUSTER_BASE_GRPC_CLIENT_H
#define MUSTER_BASE_GRPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>

#include "lib/base/stream.h"
#include "proto/status.h"

struct grpc_client;
struct grpc_client_call;

/* `target` is "host:port" or "unix:/path". Borrows tls (NULL: plain HTTP/2 with prior knowledge). Returns owned. */
struct grpc_client *grpc_client_new(struct stream_hub *hub, const char *target, struct tls *tls);
void grpc_client_free(struct grpc_client **client);
/* Metadata sent with every call, such as "authorization". Copies. */
void grpc_client_metadata(struct grpc_client *client, const char *key, const char *value);

struct grpc_client_handler {
    /* `response` is borrowed. */
    void (*on_message)(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response);
    /* Exactly once, last; the call is freed after it. `status` is borrowed. Connection failures are UNAVAILABLE. */
    void (*on_status)(struct grpc_client_call *call, void *arg, const struct status *status);
    /* grpc_client_pending fell to zero: the next part of a long stream may be sent. May be NULL. */
    void (*on_drain)(struct grpc_client_call *call, void *arg);
};
/* Starts a call. `timeout_ms` 0: none. Returns owned by the client until on_status. NULL only without memory. */
struct grpc_client_call *grpc_client_start(struct grpc_client *client, const char *path,
                                           const ProtobufCMessageDescriptor *response, int64_t timeout_ms,
                                           const struct grpc_client_handler *handler, void *arg);
/* Sends a request message; copies. */
void grpc_client_send(struct grpc_client_call *call, const ProtobufCMessage *request);
/* No more request messages. */
void grpc_client_end(struct grpc_client_call *call);
/* Bytes of requests not yet taken by the peer. */
size_t grpc_client_pending(const struct grpc_client_call *call);
/* RST_STREAM CANCEL; on_status comes with CANCELLED. */
void grpc_client_cancel(struct grpc_client_call *call);

/* Runs the hub's loop until the unary call has ended. Returns owned: the response (free with
 * protobuf_c_message_free_unpacked), or NULL with *status filled. For command-line tools only. */
ProtobufCMessage *grpc_client_unary(struct grpc_client *client, const char *path, const ProtobufCMessage *request,
                                    const ProtobufCMessageDescriptor *response, int64_t timeout_ms,
                                    struct status *status);

#endif
