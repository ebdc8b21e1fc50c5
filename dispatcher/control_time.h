/* When a steered batch may be sent, and how long its commands may take: not before, maintenance windows, timeouts.
 * Owns: struct control_time. May call: lib/store/db_window, dispatcher/schedule, leader_walk, leader_reign. Loop rule:
 * non-blocking; the time is asked once a tick.
 *
 * Of the windows' rules PostgreSQL knows everything: it says for each zone which window is open or comes next, and
 * which devices are in it, whenever one of these windows is over. */
#ifndef MUSTER_DISPATCHER_CONTROL_TIME_H
#define MUSTER_DISPATCHER_CONTROL_TIME_H

#include "dispatcher/leader_reign.h"
#include "lib/store/db_window.h"

#define TIME_OVERDUE_MS  10000   /* how often what came back unsent is looked for, once the delivery timeout is over */
#define TIME_OVERTIME_MS 1000    /* how often what takes too long is looked for */
#define TIME_READ_MS     3600000 /* zones and windows are read again at the latest after so long, */
#define TIME_FAILED_MS   1000    /* and when PostgreSQL has not answered */

struct control_time;

/* Returns owned, or NULL when nothing is limited. */
struct control_time *control_time_new(struct reign *r, struct open_batch *batch, const struct db_steer *steer);
void control_time_free(struct control_time **t);
/* Looks at the clock; true when the batch is to be released further, or less of it. */
bool control_time_tick(struct control_time *t);
/* Nothing of it may be sent; less than is released; more. */
bool control_time_holds(const struct control_time *t);
bool control_time_less(const struct control_time *t);
bool control_time_more(const struct control_time *t);
/* The slots of the block whose window is closed. */
void control_time_closed(const struct control_time *t, uint32_t block, struct bitmap *out);
/* What may be sent is being routed: there is no more and no less. */
void control_time_released(struct control_time *t);
/* Of a dynamic batch: zones of devices in blocks below `blocks` are read anew; whether they have been since. */
void control_time_renew(struct control_time *t, uint32_t blocks);
bool control_time_renewed(const struct control_time *t);
/* See control_routes: what is not to be sent now is HELD. */
void control_time_mask(const struct control_time *t, const struct open_block *b, struct buf *states);

#endif
