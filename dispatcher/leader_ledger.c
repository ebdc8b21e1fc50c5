#include "dispatcher/leader_ledger.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_audit.h"
#include "lib/store/db_event.h"

/* What is noted is where it belongs within so long, when the leader is well. */
#define LOOK_US 100000
/* Rows of one step. The largest are those of a group of accepted batches, 128 entries. */
#define ROWS_MAX 64
/* Events that are too old go so often, so many rows at a time. */
#define FORGET_US   5000000
#define FORGET_ROWS 1000

struct ledger {
    bool busy;
    int64_t last_us;   /* when the last step began */
    int64_t forgot_us; /* when old events were last looked for */
};

struct ledger *ledger_new(struct reign *r)
{
    (void)r;
    return calloc(1, sizeof(struct ledger));
}

void ledger_free(struct ledger **ledger)
{
    free(*ledger);
    *ledger = NULL;
}

static void step(struct reign *r);

static void settled(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    struct ledger *l = r->ledger;
    l->busy = false;
    if (err && db_lease_fenced(err, error))
        reign_fail(r, "fenced", err);
    else if (err && err != ERR_UNAVAILABLE && err != ERR_CLOSED)
        log_warn("ledger_failed", "err=%s sqlstate=%s message=%s", err_name(err), error ? error->sqlstate : "",
                 log_quote(error ? error->message : ""));
    if (err)
        return;
    if (pg_int(results[1], 0, 1) > 0)
        live_publish(r->live, "events 0");
    if (count > 2 && pg_int(results[2], 0, 0) == FORGET_ROWS)
        l->forgot_us = 0;
    if (pg_int(results[1], 0, 0) == ROWS_MAX)
        step(r);
}

/* Not in the lane of the leader's other writes: they need not wait for it, nor it for them. */
static void step(struct reign *r)
{
    struct ledger *l = r->ledger;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    int64_t now_ms = clock_wall_ms();
    l->busy = true;
    l->last_us = clock_mono_us();
    if (txn) {
        db_lease_fence(txn, &r->fence);
        db_ledger_settle(txn, ROWS_MAX, now_ms);
    }
    if (txn && l->last_us - l->forgot_us >= FORGET_US) {
        l->forgot_us = l->last_us;
        db_event_forget(txn, now_ms - r->events_ms, FORGET_ROWS);
    }
    pg_txn_submit(txn, settled, reign_hold(r));
}

void ledger_tick(struct reign *r)
{
    if (!r->ledger->busy && !r->failed && clock_mono_us() - r->ledger->last_us >= LOOK_US)
        step(r);
}
