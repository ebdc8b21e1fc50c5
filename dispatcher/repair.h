/* What the leader does about a difference that somebody has found: what it would do anyway, only now.
 * Owns: nothing. May call: lib/store/live, live_look; dispatcher/leader_walk, rebuild, leader_reign. Loop rule:
 * non-blocking. Hints like all of muster:events, and harmless where there is nothing to repair:
 *   repair batch <batch>                  takes what has ended in Redis into the picture, then routes the batch again
 *   repair redo <batch>                   the same, and throws away in between what stands in Redis
 *   repair left <batch> <tenant> <block>  deletes what a closed batch has left in a block
 *   repair spec <batch>                   and elsewhere
 *   repair worker <worker>                lists the worker, for the sweep to see whether it is dead
 *   repair all                            fills Redis again */
#ifndef MUSTER_DISPATCHER_REPAIR_H
#define MUSTER_DISPATCHER_REPAIR_H

#include "dispatcher/leader_reign.h"

void repair_told(struct reign *r, struct slice text);

#endif
