/* What a session has around it where nothing is in its way: the lease holds, gates are open, batches are there. For one
 * source file of a program: it defines batch_ref, lease_holds_at, ….
 * Owns: nothing. May call: nothing. Loop rule: none. */
#ifndef MUSTER_TESTS_UNIT_SESSION_WORLD_H
#define MUSTER_TESTS_UNIT_SESSION_WORLD_H

#include "workers/batch_cache.h"
#include "workers/gates.h"
#include "workers/lease.h"
#include "workers/routed.h"
#include "workers/session.h"
#include "workers/worker.h"

bool gates_known(const struct gates *gates)
{
    (void)gates;
    return true;
}

bool gates_closed(const struct gates *gates, uint32_t tenant)
{
    (void)gates, (void)tenant;
    return false;
}

void batch_ref(struct batch *batch)
{
    batch->refs++;
}

void batch_unref(struct batch_cache *cache, struct batch *batch)
{
    (void)cache;
    batch->refs--;
}

/* Only of commands that the session does not hold: nobody knows their batch any more. */
void batch_cache_get(struct batch_cache *cache, uint64_t id, batch_fn *fn, void *arg, uint64_t a, uint64_t b)
{
    (void)cache, (void)id;
    fn(arg, NULL, a, b);
}

bool lease_holds_at(const struct lease *lease, int64_t now_us)
{
    (void)lease, (void)now_us;
    return true;
}

void routed_continue(struct routed *routed)
{
    (void)routed;
}

void worker_watch_sent(struct worker *w, const struct session *s, uint64_t batch, uint32_t now_ms)
{
    (void)w, (void)s, (void)batch, (void)now_ms;
}

void worker_retry_later(struct worker *w, const struct session *s)
{
    (void)w, (void)s;
}

#endif
