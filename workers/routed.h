/* Commands on their way from the inbox to the sessions: the batch is looked up, then they wait for their turn, urgent
 * ones first, while enough that was sent a moment ago is unanswered. Owns: struct routed. May call: batch_cache,
 * session, acks, lib/store/live, proto/inbox. Loop rule: non-blocking; gives to 64 devices a turn. */
#ifndef MUSTER_WORKERS_ROUTED_H
#define MUSTER_WORKERS_ROUTED_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/live.h"
#include "proto/inbox.h"

struct batch;
struct routed;
struct worker;

/* Returns owned, or NULL without memory. */
struct routed *routed_new(struct worker *worker);
void routed_free(struct routed **routed);
/* A ROUTE, RELEASE or AGAIN item that was taken from the inbox of `class`, in the take of that number. */
void routed_add(struct routed *routed, const struct inbox_item *item, enum live_class class, uint32_t take);
/* Hands back all that waits of a canceled batch. */
void routed_cancel(struct routed *routed, const struct batch *batch);
/* Forgets what waits of a batch that is held, or was since it was routed. */
void routed_forget(struct routed *routed, const struct batch *batch);
/* Forgets what waits of tenants whose gate is closed. */
void routed_forget_closed(struct routed *routed);
/* Forgets what waits: it is handed back with the devices it is for. */
void routed_clear(struct routed *routed);
/* A device has answered: there may be room for more. */
void routed_continue(struct routed *routed);
/* Commands that wait for their turn. */
uint64_t routed_waiting(const struct routed *routed);

#endif
