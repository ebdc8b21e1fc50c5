/* CancelBatch for some devices of a batch.
 * Owns: the handler. May call: lib/store, dispatcher/batches, resolve, target_set. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_CANCEL_SOME_H
#define MUSTER_DISPATCHER_CANCEL_SOME_H

#include "lib/base/grpc_server.h"
#include "muster/v1/command_service.pb-c.h"

void cancel_some(struct grpc_call *call, void *service, const Muster__V1__CancelBatchRequest *in);

#endif
