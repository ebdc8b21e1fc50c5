#include "dispatcher/upkeep.h"

#include <stdlib.h>

#include "dispatcher/devices.h"
#include "dispatcher/guard.h"
#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/store/db_guard.h"
#include "lib/store/db_label.h"
#include "lib/store/pg.h"

/* How long what a device said takes to be found by filters, and a batch may be held longer than it must, at most. */
#define INTERVAL_S 1.0
/* Rows, each a worker's flush, of one transaction: it holds the tenants' rows. */
#define NEWS_ROWS 64
/* Batches let go in one transaction. */
#define RELEASES 100
#define HOUR_MS  (3600 * 1000ll)

struct upkeep {
    struct dispatcher *d;
    struct ev_timer timer;
    int64_t hour; /* when hours were last made days */
    bool busy;
};

static void look(struct upkeep *u);

/* Results: how many rows were taken, batches let go[, of making days]. */
static void on_done(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct upkeep *u = arg;
    (void)count;
    u->busy = false;
    if (err != ERR_OK) {
        u->hour = 0;
        if (err != ERR_CLOSED && err != ERR_UNAVAILABLE)
            log_warn("upkeep_failed", "error=%s message=%s", err_name(err), log_quote(error ? error->message : ""));
    } else {
        if (pg_int(results[0], 0, 0))
            devices_changed(u->d, 0);
        if (pg_rows(results[1]))
            guard_tell_leader(u->d, pg_int(results[1], 0, 0));
        if (pg_int(results[0], 0, 0) == NEWS_ROWS || pg_rows(results[1]) == RELEASES)
            look(u);
    }
}

static void look(struct upkeep *u)
{
    int64_t hour = clock_wall_ms() / HOUR_MS;
    if (u->busy || !pg_up(u->d->pg))
        return;
    struct pg_txn *txn = pg_txn_new(u->d->pg, PG_ANY_LANE);
    if (!txn)
        return;
    db_label_take_news(txn, NEWS_ROWS);
    db_guard_release_due(txn, RELEASES);
    if (hour != u->hour)
        db_seen_forget(txn, (int32_t)hour);
    u->hour = hour;
    u->busy = true;
    pg_txn_submit(txn, on_done, u);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)loop, (void)events;
    look(container_of(t, struct upkeep, timer));
}

struct upkeep *upkeep_new(struct dispatcher *d)
{
    struct upkeep *u = calloc(1, sizeof *u);
    if (!u)
        return NULL;
    u->d = d;
    ev_timer_init(&u->timer, on_timer, INTERVAL_S, INTERVAL_S);
    ev_timer_start(d->loop, &u->timer);
    return u;
}

void upkeep_free(struct upkeep **upkeep)
{
    if (*upkeep)
        ev_timer_stop((*upkeep)->d->loop, &(*upkeep)->timer);
    free(*upkeep);
    *upkeep = NULL;
}
