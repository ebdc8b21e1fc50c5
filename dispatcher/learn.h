/* Who holds the devices: read from Redis when a leader begins, so that its first batches are routed as fast as later
 * ones. A matter of speed only: the route script checks what is believed.
 * Owns: struct learner. May call: lib/store/live, db_open, dispatcher/leader_reign. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_LEARN_H
#define MUSTER_DISPATCHER_LEARN_H

#include "dispatcher/leader_reign.h"

#define LEARN_MOVES  64    /* blocks being asked for: as MOVES_MAX */
#define LEARN_BLOCKS 16384 /* at most so many: 16 million devices, 34 MB; the others are learned by routing */

struct learner *learner_new(struct reign *r);
void learner_free(struct learner **l);
/* Redis is there and holds what it should. Once a reign. */
void learn_begin(struct reign *r);

#endif
