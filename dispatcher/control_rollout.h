/* Waves, thresholds and rate of a steered batch, carried out: see dispatcher/rollout.h and pace.h for the policy.
 * Owns: struct control_rollout. May call: lib/store/db_control, db_device, dispatcher/rollout, pace, wave_order,
 * let_go, control_time, leader_fold, leader_reign. Loop rule: non-blocking.
 *
 * A wave is written down before it is released, and so is who has his turn; a threshold's verdict is written as if
 * somebody had asked for it: so the next leader goes on from there. How long a wave is out is measured without the
 * clock on the wall, which may be set. */
#ifndef MUSTER_DISPATCHER_CONTROL_ROLLOUT_H
#define MUSTER_DISPATCHER_CONTROL_ROLLOUT_H

#include "dispatcher/control_time.h"
#include "dispatcher/leader_reign.h"

#define ROLLOUT_LOOK_MS 200 /* how often outcomes are counted, and turns are given */

struct control_rollout;

/* Begins to read how far it is. Returns owned. */
struct control_rollout *control_rollout_new(struct reign *r, struct open_batch *batch);
void control_rollout_free(struct control_rollout **o);
/* Something was asked for that may concern it: reads anew. */
void control_rollout_asked(struct control_rollout *o, int32_t request);
/* Whether it is read as of this request, or later. */
bool control_rollout_known(const struct control_rollout *o, int32_t request);
/* Counts, when it is time; true when the batch is to be released further, or less of it, or what was asked is read.
 * `held`: nothing is sent now, so no further wave is released, and nobody has a turn; so while all windows of `time`
 * are closed, which knows whose are. NULL: there are none. */
bool control_rollout_tick(struct control_rollout *o, bool held, const struct control_time *time);
/* Somebody is let go and not routed yet: his block says `again`. */
bool control_rollout_fresh(const struct control_rollout *o);
/* See control_renew, _renewed, _may_join, _joined. */
void control_rollout_renew(struct control_rollout *o);
bool control_rollout_renewed(const struct control_rollout *o);
void control_rollout_may_join(const struct control_rollout *o, uint32_t block, struct bitmap *slots);
void control_rollout_joined(struct control_rollout *o, uint32_t block, const struct bitmap *slots);
/* See control_routes. */
bool control_rollout_routes(struct control_rollout *o, const struct open_block *b, struct bitmap *only);
bool control_rollout_less(const struct control_rollout *o);
bool control_rollout_more(const struct control_rollout *o);
void control_rollout_released(struct control_rollout *o);
/* See control_routes: what is not to be sent now is HELD. */
void control_rollout_mask(const struct control_rollout *o, const struct open_block *b, struct buf *states);

#endif
