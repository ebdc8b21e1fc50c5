#include "lib/store/db_clock.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/step_clock.h"

struct db_clock {
    struct pg *pg;
    struct step_clock steps;
    bool asking, over; /* over: freed, but for the answer that is still to come */
};

struct db_clock *db_clock_new(struct pg *pg)
{
    struct db_clock *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->pg = pg;
    (void)db_clock_ms(c); /* believed: nothing is known that it could have stepped from */
    return c;
}

void db_clock_free(struct db_clock **clock)
{
    struct db_clock *c = *clock;
    *clock = NULL;
    if (c && c->asking)
        c->over = true;
    else
        free(c);
}

/* It was said within the time that the question took: what that is off by is no step. */
static void on_time(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct db_clock *c = arg;
    (void)error, (void)count;
    c->asking = false;
    if (c->over) {
        free(c);
        return;
    }
    if (err)
        return;
    int64_t by_ms = c->steps.seen_ms - c->steps.offset_ms;
    step_clock_judge(&c->steps, pg_int(results[0], 0, 0), clock_mono_us());
    log_warn("clock_stepped", "by_ms=%lld believed=%s", (long long)by_ms, c->steps.doubts ? "false" : "true");
}

static void ask(struct db_clock *c)
{
    static const struct pg_stmt stmt = {"clock_read", "SELECT server_ms()"};
    struct pg_txn *txn = pg_txn_new(c->pg, PG_ANY_LANE);
    if (txn)
        pg_txn_add(txn, &stmt);
    c->asking = true;
    pg_txn_submit(txn, on_time, c);
}

int64_t db_clock_ms(struct db_clock *c)
{
    if (!c)
        return clock_wall_ms();
    int64_t steady_us = clock_mono_us(), ms = step_clock_ms(&c->steps, clock_wall_ms(), steady_us);
    if (!c->asking && step_clock_asks(&c->steps, steady_us))
        ask(c);
    return ms;
}
