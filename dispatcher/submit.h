/* SubmitBatch (DESIGN step 1): validate, resolve, accept, answer.
 * Owns: the handler. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_SUBMIT_H
#define MUSTER_DISPATCHER_SUBMIT_H

#include "lib/base/grpc_server.h"

void submit_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
/* For acceptor_new; `arg` is the dispatcher. */
void submit_committed(void *arg);

#endif
