/* GetBatch, ListBatches, CancelBatch.
 * Owns: the handlers. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_BATCHES_H
#define MUSTER_DISPATCHER_BATCHES_H

#include "dispatcher/view.h"
#include "lib/base/grpc_server.h"
#include "lib/store/db_batch.h"

void get_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_batches(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void cancel_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);

/* Bytes of commands, results and such in one page: with the rest it stays below the 4 MiB that clients take by default.
 */
#define PAGE_BYTES (2 * 1024 * 1024)

/* What view.h wants to know of a row. */
struct view_batch batches_view(int32_t tenant, const struct db_batch *row);

#endif
