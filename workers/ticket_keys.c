#include "workers/ticket_keys.h"

#include <sodium.h>
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "lib/store/db_ticket_key.h"

#define REFRESH_S 60.0
#define RETRY_S   1.0
#define ROTATE_MS INT64_C(3600000)
/* A new key encrypts only when every worker has had two chances to read it. */
#define SPREAD_MS INT64_C(120000)
/* From its making: it encrypts for an hour from when it is spread, and the last ticket lives on. */
#define KEEP_MS (ROTATE_MS + 2 * SPREAD_MS + TLS_TICKET_LIFE_S * INT64_C(1000))

struct ticket_keys {
    struct ev_loop *loop;
    struct pg *pg;
    struct tls *tls;
    struct ev_timer timer;
};

/* The newest that all workers have by now; else the oldest. */
static size_t choose(const struct db_ticket_key *keys, size_t count)
{
    size_t i = 0;
    while (i + 1 < count && keys[i].age_ms < SPREAD_MS)
        i++;
    return i;
}

static void on_keys(void *arg, enum err err, const struct db_ticket_key *keys, size_t count)
{
    struct ticket_keys *t = arg;
    struct tls_ticket_key set[TLS_TICKET_KEYS_MAX];
    for (size_t i = 0; !err && i < count; i++)
        set[i] = keys[i].key;
    if (!err)
        err = tls_set_ticket_keys(t->tls, set, count, choose(keys, count));
    sodium_memzero(set, sizeof set);
    if (!err)
        log_debug("ticket_keys", "count=%zu encrypting=%zu", count, choose(keys, count));
    ev_timer_set(&t->timer, err ? RETRY_S : REFRESH_S, 0);
    ev_timer_start(t->loop, &t->timer);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct ticket_keys *t = timer->data;
    (void)revents;
    ev_timer_stop(loop, timer);
    db_ticket_keys(t->pg, ROTATE_MS, KEEP_MS, on_keys, t);
}

struct ticket_keys *ticket_keys_new(struct ev_loop *loop, struct pg *pg, struct tls *tls)
{
    struct ticket_keys *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->loop = loop;
    t->pg = pg;
    t->tls = tls;
    ev_timer_init(&t->timer, on_timer, 0, 0);
    t->timer.data = t;
    ev_timer_start(loop, &t->timer);
    return t;
}

void ticket_keys_free(struct ticket_keys **keys)
{
    struct ticket_keys *t = *keys;
    if (!t)
        return;
    ev_timer_stop(t->loop, &t->timer);
    free(t);
    *keys = NULL;
}
