#include "dispatcher/leader_ledger.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_audit.h"

/* What is noted is where it belongs within so long, when the leader is well. */
#define LOOK_US 100000
/* Rows of one step. The largest are those of a group of accepted batches, 128 entries. */
#define ROWS_MAX 64

struct ledger {
    bool busy;
    int64_t last_us; /* when the last step began */
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
    (void)count;
    if (!reign_back(r))
        return;
    r->ledger->busy = false;
    if (err && db_lease_fenced(err, error))
        reign_fail(r, "fenced", err);
    else if (err)
        log_warn("ledger_failed", "err=%s sqlstate=%s message=%s", err_name(err), error ? error->sqlstate : "",
                 log_quote(error ? error->message : ""));
    else if (pg_int(results[1], 0, 0) == ROWS_MAX)
        step(r);
}

/* Not in the lane of the leader's other writes: they need not wait for it, nor it for them. */
static void step(struct reign *r)
{
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    r->ledger->busy = true;
    r->ledger->last_us = clock_mono_us();
    if (txn) {
        db_lease_fence(txn, &r->fence);
        db_ledger_settle(txn, ROWS_MAX);
    }
    pg_txn_submit(txn, settled, reign_hold(r));
}

void ledger_tick(struct reign *r)
{
    if (!r->ledger->busy && !r->failed && clock_mono_us() - r->ledger->last_us >= LOOK_US)
        step(r);
}
