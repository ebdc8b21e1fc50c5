/* Hold, Release, ListHolds: a tenant's gate, or that of all.
 * Owns: the handlers. May call: lib/store, dispatcher/gate_keeper, view. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_HOLDS_H
#define MUSTER_DISPATCHER_HOLDS_H

#include "lib/base/grpc_server.h"

void hold_scope(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void release_scope(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_holds(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#define HOLD_WAIT_S      5.0 /* then it is answered without being confirmed */
#define HOLD_BATCHES_MAX 100 /* whose progress is told with a hold */

#endif
