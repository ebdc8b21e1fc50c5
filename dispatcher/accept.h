/* Acceptance: batches made durable, many of them with one commit (DESIGN step 1).
 * Owns: struct acceptor, the queue before PostgreSQL. May call: lib/store. Loop rule: non-blocking.
 *
 * While transactions are under way, what comes in waits and goes together with the next: one commit costs one
 * write to disk, however many batches it makes. */
#ifndef MUSTER_DISPATCHER_ACCEPT_H
#define MUSTER_DISPATCHER_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/list.h"
#include "lib/store/db_batch.h"

struct acceptor;

/* Embedded in the handler's state; what `batch` points to lives until done. */
struct accept_job {
    struct list link;
    struct db_accept batch;
    /* ERR_OK: `id` is the new batch's, or with `created` false that of the batch which has the request id already.
     * Others as pg_done_fn; ERR_UNAVAILABLE may have been done: the caller repeats with the same request id. */
    void (*done)(struct accept_job *job, enum err err, const struct pg_error *error);
    bool created, alone; /* alone: a transaction of several was refused, so it is tried by itself */
    int64_t id;
};

/* Returns owned, or NULL without memory. */
struct acceptor *acceptor_new(struct pg *pg);
/* All jobs must be done. */
void acceptor_free(struct acceptor **acceptor);
void acceptor_submit(struct acceptor *acceptor, struct accept_job *job);

#endif
