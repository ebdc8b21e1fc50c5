/* ImportDevices: client streaming, a transaction per message.
 * Owns: the handlers. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking.
 *
 * While a message is being written the stream is paused: flow control then stops the peer, so one stream holds one
 * message, whatever the peer sends. */
#ifndef MUSTER_DISPATCHER_IMPORT_H
#define MUSTER_DISPATCHER_IMPORT_H

#include "lib/base/grpc_server.h"

void import_message(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void import_end(struct grpc_call *call, void *service);
void import_cancelled(struct grpc_call *call, void *service);

#endif
