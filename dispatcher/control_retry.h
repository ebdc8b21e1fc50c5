/* Commands that are tried again: those that wait, until their time has come.
 * Owns: struct control_retry. May call: dispatcher/retry, leader_walk, open_batch, leader_reign. Loop rule:
 * non-blocking.
 *
 * A worker records such an outcome as EVENT_RETRY: the command is HELD, in Redis and, before the device hears that its
 * acknowledgement is durable, in the log. Here its time is found from when that was, the number of deliveries and the
 * device alone, so that whoever leads comes to the same. What is due is routed again, block by block; how often it was
 * sent its worker learns by attaching the device anew (INBOX_AGAIN). Waiting costs a look at each block that has some,
 * a few times a second. */
#ifndef MUSTER_DISPATCHER_CONTROL_RETRY_H
#define MUSTER_DISPATCHER_CONTROL_RETRY_H

#include "dispatcher/leader_reign.h"

#define RETRY_LOOK_MS 200

struct control_retry;

/* Returns owned; NULL when nothing of the batch is tried again. Its commands that have no outcome in time are the
 * caller's to give to control_retry_overtime. */
struct control_retry *control_retry_new(struct reign *r, struct open_batch *batch, const struct db_steer *steer);
void control_retry_free(struct control_retry **retry);
/* Lets go what is due; then its blocks say `again`. `held`: nothing is sent now. */
void control_retry_tick(struct control_retry *o, bool held);
/* Of a dynamic batch: they are to be routed with those that are tried again. */
void control_retry_joined(struct control_retry *o, const struct open_block *b, const struct bitmap *slots);
/* Somebody is let go and not routed yet. */
bool control_retry_fresh(const struct control_retry *o);
/* See control_routes. */
bool control_retry_routes(struct control_retry *o, const struct open_block *b, struct bitmap *only);
/* See control_routes: what waits stays HELD. */
void control_retry_mask(const struct open_block *b, struct buf *states);
/* Others than `only` are not spoken of: of what was on its way Redis may have heard that it is to wait. */
void control_retry_leave(const struct bitmap *only, struct buf *states);
/* The batch expires: what waits has failed. */
void control_retry_end(struct control_retry *o);

#endif
