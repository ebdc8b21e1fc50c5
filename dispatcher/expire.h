/* Expiry: when a batch's time is over, what is not terminal ends: unsent commands as EXPIRED, those a worker has as
 * TIMED_OUT. Owns: nothing. May call: dispatcher/leader_walk, route, leader_reign. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_EXPIRE_H
#define MUSTER_DISPATCHER_EXPIRE_H

#include "dispatcher/leader_reign.h"

void expire_tick(struct reign *r);

#endif
