/* Steered batches: paused, resumed, canceled for some of their devices, sent at their time (control_time.h).
 * Owns: struct controller, struct control: what is asked for of a batch and the steps towards it. May call:
 * lib/store/live, db_control, dispatcher/tell, leader_walk, leader_spec, route, leader_write, leader_reign. Loop rule:
 * non-blocking.
 *
 * All of it is made of two moves. A batch is taken back:
 *   drain    routing stops, what is under way ends
 *   spec     batch:<id> says that it is held, under a number that is higher than all before and odd
 *   tell     HOLD with that number goes to every worker alive: it forgets what it has not sent, records what it has,
 *            and confirms. From then on no worker can send a command of the batch
 *   hold     EVENT_HOLD: what is QUEUED or ROUTED in Redis is HELD
 * Nobody has it now, so that any of its commands may be ended: EVENT_DROP for devices it is canceled for,
 * EVENT_SUPERSEDE for those of a newer batch with its key. And it is released: batch:<id> and the workers are told the
 * next, even, number, and it is routed again, each hint with that number: a hint from before, still in some inbox, is
 * passed over by the number.
 *
 * Numbers begin anew above the epoch of the reign, and a leader that finds steered batches takes them back or releases
 * them once more, whatever its predecessor has done. Each step may be repeated; after a loss of Redis all are. */
#ifndef MUSTER_DISPATCHER_CONTROL_H
#define MUSTER_DISPATCHER_CONTROL_H

#include "dispatcher/leader_reign.h"
#include "lib/store/db_control.h"
#include "lib/store/db_window.h"

#define CONTROLS_AT_ONCE 64 /* taken back or released at a time; the others wait */

struct controller *controller_new(struct reign *r);
void controller_free(struct controller **x);
/* Something is asked for of a batch. */
void control_asked(struct reign *r, const struct db_control *asked);
/* A steered batch has been loaded: its control goes on. */
void control_load(struct reign *r, struct open_batch *batch, bool paused, int32_t request,
                  const struct db_steer *steer);
/* What the batch's control decides at its coming into the picture, instead of routing. */
void control_begin(struct reign *r, struct open_batch *batch);
/* All that was asked for of the batch is carried out: nothing can be sent of it to whom it is canceled or superseded
 * for. */
bool control_settled(const struct open_batch *batch);
/* The same, of all up to this request, of which the leader need not have heard yet. */
bool control_settled_to(const struct open_batch *batch, int32_t request);
/* The block is about to be routed: what is not to be sent now is HELD in its state string. */
enum control_way {
    CONTROL_ALL,
    CONTROL_SOME,  /* workers are told of those only who are let go since it was routed last: `only` */
    CONTROL_ALONE, /* and the state string has nobody else: live_route_some */
};
enum control_way control_routes(struct control *c, const struct open_block *b, struct buf *states, struct bitmap *only);
/* Of a dynamic batch, before devices of blocks below `blocks` join: what is known of devices is read anew; whether it
 * has been since; takes out who must not join; they have joined, and are to be routed. */
void control_renew(struct control *c, uint32_t blocks);
bool control_renewed(const struct control *c);
void control_may_join(const struct control *c, uint32_t block, struct bitmap *slots);
void control_joined(struct control *c, struct open_block *b, const struct bitmap *slots);
/* The batch expires; what has had an outcome ends by it. */
void control_ends(struct open_batch *batch);
/* The batch leaves the picture. */
void control_gone(struct reign *r, struct open_batch *batch);
/* Redis was filled again: what was told there is gone. */
void control_restart(struct reign *r);
void control_tick(struct reign *r);

#endif
