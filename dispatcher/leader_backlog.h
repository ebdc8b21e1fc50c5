/* What the leader is behind with, told to those who accept.
 * Owns: the form of "backlog" on muster:events. May call: dispatcher/leader_queue, lib/store/live. Loop rule:
 * non-blocking. */
#ifndef MUSTER_DISPATCHER_LEADER_BACKLOG_H
#define MUSTER_DISPATCHER_LEADER_BACKLOG_H

#include "dispatcher/leader_reign.h"

/* To be called at every tick: tells who has most waiting, while there is too much. */
void backlog_tick(struct reign *r);
/* Reads such a text; how many there are, LEADER_HEAVY_MAX at most. */
size_t backlog_read(struct slice text, struct queue_heavy *out);

#endif
