#include "lib/store/db_lease.h"

#include <stdlib.h>
#include <string.h>

static const struct pg_stmt acquire = {"lease_acquire", "SELECT lease_acquire($1::text, $2::text, $3::bigint)"};
static const struct pg_stmt renew = {"lease_renew",
                                     "SELECT lease_renew($1::text, $2::text, $3::bigint, $4::bigint)::int::bigint"};
static const struct pg_stmt release = {"lease_release",
                                       "SELECT 1::bigint FROM lease_release($1::text, $2::text, $3::bigint)"};
static const struct pg_stmt fence_stmt = {"lease_fence",
                                          "SELECT 1::bigint FROM lease_fence($1::text, $2::text, $3::bigint)"};

static const struct pg_stmt worker_number = {"worker_number", "SELECT nextval('worker_number')"};
static const struct pg_stmt worker_lease = {"worker_lease",
                                            "INSERT INTO worker_lease VALUES ($1::bigint) ON CONFLICT DO NOTHING"};
static const struct pg_stmt longest_lease = {"worker_longest_lease",
                                             "SELECT coalesce(max(lease_ms), 0) FROM worker_lease"};

struct call {
    db_lease_fn *done;
    void *arg;
};

static void answered(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    (void)error, (void)count;
    struct call call = *(struct call *)arg;
    free(arg);
    int64_t value = err == ERR_OK && pg_rows(results[0]) == 1 ? pg_int(results[0], 0, 0) : 0;
    call.done(call.arg, err, value);
}

/* Without memory the transaction is given up before it is sent; pg answers that from the loop like any failure. */
static void submit(struct pg_txn *txn, db_lease_fn *done, void *arg)
{
    struct call *call = malloc(sizeof *call);
    if (!call)
        abort();
    *call = (struct call){done, arg};
    pg_txn_submit(txn, answered, call);
}

static void put_fence(struct pg_txn *txn, const struct pg_stmt *stmt, const struct lease_fence *fence)
{
    pg_txn_add(txn, stmt);
    pg_put_text(txn, fence->name);
    pg_put_text(txn, fence->holder);
    pg_put_int8(txn, fence->epoch);
}

void db_lease_acquire(struct pg *pg, int lane, const char *name, const char *holder, int64_t ttl_ms, db_lease_fn *done,
                      void *arg)
{
    struct pg_txn *txn = pg_txn_new(pg, lane);
    if (txn) {
        pg_txn_add(txn, &acquire);
        pg_put_text(txn, name);
        pg_put_text(txn, holder);
        pg_put_int8(txn, ttl_ms);
    }
    submit(txn, done, arg);
}

void db_lease_renew(struct pg *pg, const struct lease_fence *fence, int64_t ttl_ms, db_lease_fn *done, void *arg)
{
    struct pg_txn *txn = pg_txn_new(pg, PG_ANY_LANE);
    if (txn) {
        put_fence(txn, &renew, fence);
        pg_put_int8(txn, ttl_ms);
    }
    submit(txn, done, arg);
}

void db_lease_release(struct pg *pg, int lane, const struct lease_fence *fence, db_lease_fn *done, void *arg)
{
    struct pg_txn *txn = pg_txn_new(pg, lane);
    if (txn)
        put_fence(txn, &release, fence);
    submit(txn, done, arg);
}

void db_lease_fence(struct pg_txn *txn, const struct lease_fence *fence)
{
    put_fence(txn, &fence_stmt, fence);
}

bool db_lease_fenced(enum err err, const struct pg_error *error)
{
    return err == ERR_INVALID && error && strcmp(error->sqlstate, "MU001") == 0;
}

void db_worker_number(struct pg *pg, int64_t lease_ms, db_lease_fn *done, void *arg)
{
    struct pg_txn *txn = pg_txn_new(pg, PG_ANY_LANE);
    if (txn) {
        pg_txn_add(txn, &worker_number);
        pg_txn_add(txn, &worker_lease);
        pg_put_int8(txn, lease_ms);
    }
    submit(txn, done, arg);
}

void db_worker_longest_lease(struct pg *pg, db_lease_fn *done, void *arg)
{
    struct pg_txn *txn = pg_txn_new(pg, PG_ANY_LANE);
    if (txn)
        pg_txn_add(txn, &longest_lease);
    submit(txn, done, arg);
}
