/* What Redis holds of batches, or blocks of them, that are over: it goes before Redis is worked with again.
 * A Redis that comes back from its append-only file, or a replica that takes over, is from some moment ago: of a batch
 * that was closed or canceled since, it has commands as they were, and would give them to devices once more. Owns:
 * struct strangers. May call: lib/store/live, dispatcher/leader_reign. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_STRANGERS_H
#define MUSTER_DISPATCHER_STRANGERS_H

#include "dispatcher/leader_reign.h"

struct strangers;

/* Walks over all keys and deletes those of batches that are not running, and of blocks that are complete. `done` comes
 * from the loop, unless the reign has ended; the error is that of Redis, and then it is to be begun again. */
void strangers_remove(struct reign *r, void (*done)(struct reign *r, enum err err));

#endif
