/* From what a device says of a command to the event that is recorded of it: its end, or that it is tried again.
 * Owns: struct answers: those whose batch is being looked up. May call: batch_cache, acks, lib/store/live,
 * proto/delivery. Loop rule: non-blocking.
 *
 * A batch that Redis does not have is over, unless Redis has just lost it: so that what is to be tried again is not
 * given up, an answer waits until Redis holds what it was filled with, and its batch is looked up once more. */
#ifndef MUSTER_WORKERS_ANSWER_H
#define MUSTER_WORKERS_ANSWER_H

#include <stdbool.h>

#include "proto/delivery.h"
#include "workers/acks.h"

struct answers;
struct batch;
struct worker;

/* Returns owned; NULL without memory. */
struct answers *answers_new(struct worker *w);
/* When Redis's connections are closed: what waits is forgotten, its device has no PUBACK. */
void answers_free(struct answers **answers);

/* Records it. `ack` has all but the event; its `attempts` are 0 when the session does not hold the command. `batch`:
 * NULL when it is not at hand; then it is looked up, since it says what is tried again. False without memory: nothing
 * is recorded. */
MUST_CHECK bool answer_take(struct worker *w, struct batch *batch, const struct ack *ack,
                            const struct acknowledgement *said);

#endif
