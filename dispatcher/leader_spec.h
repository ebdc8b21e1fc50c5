/* Writes batch:<id>, what workers must know of a batch.
 * Owns: nothing that outlives a call. May call: lib/store/db_open, live, dispatcher/leader_reign. Loop rule:
 * non-blocking. */
#ifndef MUSTER_DISPATCHER_LEADER_SPEC_H
#define MUSTER_DISPATCHER_LEADER_SPEC_H

#include "dispatcher/leader_reign.h"

/* Reads the commands of these batches and writes their specs. `sent` comes when all are on their way to Redis, in front
 * of whatever is sent to it from then on (`err`: PostgreSQL did not answer; nothing was written). `written`, if any,
 * comes for each batch with what Redis said. The batches are busy until then. */
typedef void spec_sent_fn(struct reign *r, struct open_batch *const *batches, size_t n, enum err err);
typedef void spec_written_fn(struct reign *r, struct open_batch *batch, enum err err);
void spec_put(struct reign *r, struct open_batch *const *batches, size_t n, spec_sent_fn *sent,
              spec_written_fn *written);
/* Writes one that has no values, and whose command is known; `written` as above. Nothing sent to Redis from then on
 * comes before it. */
void spec_write(struct reign *r, struct open_batch *batch, struct slice command, spec_written_fn *written);

#endif
