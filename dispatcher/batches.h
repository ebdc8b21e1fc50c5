/* GetBatch, ListBatches, CancelBatch, PauseBatch, ResumeBatch, ReleaseWave, SealBatch.
 * Owns: the handlers. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_BATCHES_H
#define MUSTER_DISPATCHER_BATCHES_H

#include "dispatcher/request.h"
#include "dispatcher/view.h"
#include "lib/base/grpc_server.h"
#include "lib/store/db_batch.h"
#include "muster/v1/command_service.pb-c.h"

void get_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_batches(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void cancel_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void pause_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void resume_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void release_wave(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void seal_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);

/* All that are about one batch differ only in what is asked for first, and in the type of the answer. */
struct one_batch {
    struct request r;
    int64_t id;
    enum one_batch_kind {
        BATCH_GET,
        BATCH_CANCEL,
        BATCH_CANCEL_SOME,
        BATCH_PAUSE,
        BATCH_RESUME,
        BATCH_WAVE,
        BATCH_SEAL
    } kind;
    uint32_t devices; /* BATCH_CANCEL_SOME: of the answer */
    uint32_t wave;    /* BATCH_WAVE: the one asked for; 0: the next one */
    unsigned wishes;  /* BATCH_GET: enum breakdown_wish */
    struct db_batch row;
    Muster__V1__Batch *batch; /* presented, still without progress */
};
/* Takes `txn`, which holds what is asked for (nothing for BATCH_GET), and answers with the batch. */
void one_batch_run(struct one_batch *o, struct pg_txn *txn);

/* Bytes of commands, results and such in one page: with the rest it stays below the 4 MiB that clients take by default.
 */
#define PAGE_BYTES (2 * 1024 * 1024)

/* What view.h wants to know of a row. */
struct view_batch batches_view(int32_t tenant, const struct db_batch *row);

#endif
