/* Dynamic batches: looks who has come to be meant by their targets, and lets them join.
 * Owns: struct joiner; when a batch stops growing. May call: lib/store/db_dynamic, db_quota, dispatcher/resolve,
 * control, route, leader_reign. Loop rule: non-blocking.
 *
 * A target is resolved anew soon after a hint that devices of the tenant have changed, and now and then without one:
 * one target at a time, and of one tenant no more than a quarter of the time. Who joins is written down, then stands in
 * the picture, and is routed like all others. Who is meant no longer stays. As with targets of a submit, who has as
 * many open commands as he may, and more than the tenant's rate allows, does not join: he does at a later look.
 *
 * Of a batch with a key, older ones end for those who are to join first, and no worker can send these any more when the
 * newer one is routed to them (control_older.h); whom a newer one has addressed does not join. From then on they do
 * join: sealed or not, whoever leads, or they would be left with neither. */
#ifndef MUSTER_DISPATCHER_JOINER_H
#define MUSTER_DISPATCHER_JOINER_H

#include "dispatcher/leader_reign.h"

#define JOIN_PACE_MS     100   /* between looks for one tenant, */
#define JOIN_PACE_TIMES  3     /* or so many times as long as one took */
#define JOIN_INTERVAL_MS 30000 /* between looks at one batch that nothing hints at */
#define JOIN_AGAIN_MS    2000  /* before the next where some were meant and could not join */
#define JOIN_BLOCKS      256   /* in one write: 100 KB */

struct joiner *joiner_new(struct reign *r);
void joiner_free(struct joiner **j);
/* Devices are being written down that join the batch: whether they are in the picture is open. */
bool joiner_submits(const struct reign *r, const struct open_batch *batch);
/* A growing batch has come into the picture; it leaves. */
void joiner_add(struct reign *r, struct open_batch *batch);
void joiner_gone(struct reign *r, const struct open_batch *batch);
/* Devices of the tenant (0: of any) have changed. */
void joiner_hint(struct reign *r, uint32_t tenant);
/* Nobody joins the batch any more: it is sealed, canceled or expires. When a write is under way, whoever is in it still
 * does, to the same end; and of a sealed one for whom it has its key. */
void joiner_end(struct reign *r, struct open_batch *batch);
void joiner_tick(struct reign *r);

#endif
