/* Writes batch:<id>, what workers must know of a batch.
 * Owns: nothing that outlives a call. May call: lib/store/db_open, live, dispatcher/leader_reign. Loop rule:
 * non-blocking. */
#ifndef MUSTER_DISPATCHER_LEADER_SPEC_H
#define MUSTER_DISPATCHER_LEADER_SPEC_H

#include "dispatcher/leader_reign.h"

/* What is told to workers together with what is routed to them, so that they need not look it up: of batches to few
 * devices, which would each wait for that; of those in so many blocks and with so many bytes at most. */
#define SPEC_TOLD_BLOCKS 4
#define SPEC_TOLD_BYTES  1024

/* Reads the commands of these batches and writes their specs. `sent` comes when all are on their way to Redis, in front
 * of whatever is sent to it from then on (`err`: PostgreSQL did not answer; nothing was written). `written`, if any,
 * comes for each batch with what Redis said. The batches are busy until then. */
typedef void spec_sent_fn(struct reign *r, struct open_batch *const *batches, size_t n, enum err err);
typedef void spec_written_fn(struct reign *r, struct open_batch *batch, enum err err);
void spec_put(struct reign *r, struct open_batch *const *batches, size_t n, spec_sent_fn *sent,
              spec_written_fn *written);
/* Writes that of a batch which is to be routed for the first time and has no values, and whose command is known;
 * `written` as above. Nothing sent to Redis from then on comes before it. It is kept in batch->told, if it is small and
 * nothing can be changed in it but by what the workers are told of; whatever is written later is not. */
void spec_write(struct reign *r, struct open_batch *batch, struct slice command, spec_written_fn *written);
/* Workers are to look it up from now on. */
void spec_untell(struct open_batch *batch);

#endif
