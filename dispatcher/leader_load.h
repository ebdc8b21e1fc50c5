/* Brings open batches with their blocks into the leader's picture.
 * Owns: struct loader. May call: lib/store/db_open, dispatcher/leader_reign. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_LEADER_LOAD_H
#define MUSTER_DISPATCHER_LEADER_LOAD_H

#include "dispatcher/leader_reign.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_open.h"

struct loader *loader_new(struct reign *r);
void loader_free(struct loader **l);

/* `done` comes from the loop when they are in the picture; on a failure the reign fails or PostgreSQL is asked again.
 * One load at a time. */
typedef void load_done_fn(struct reign *r);
/* Every batch that is not closed. */
void loader_all(struct reign *r, load_done_fn *done);
/* Those of the given numbers that are open; those that are closed are noted as such. */
void loader_some(struct reign *r, const int64_t *ids, size_t n, load_done_fn *done);
/* These, whose rows are known; known batches are passed over. */
void loader_take(struct reign *r, const struct db_open *rows, size_t n, load_done_fn *done);
/* A batch that this process has just committed. False when the picture is not there to take it, or others may have
 * accepted some before it that are not in there yet: it is then found like theirs, in order. */
bool loader_accepted(struct reign *r, uint64_t id, const struct db_accept *accepted);

#endif
