#include <stdio.h>

#include "cli/chaos/chaos.h"

#define RETRY_S 0.1

/* One statement under way. */
struct call {
    struct chaos *chaos;
    chaos_rows_fn *rows;
    void *arg;
    bool over;
    enum err err;
    char message[200];
};

static void done(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                 size_t count)
{
    struct call *call = arg;

    call->over = true;
    call->err = err;
    snprintf(call->message, sizeof call->message, "%s %.150s", err_name(err),
             error && error->message ? error->message : "");
    if (err == ERR_OK && count && call->rows)
        call->rows(call->arg, results[0]);
    ev_break(call->chaos->dev.group.loop, EVBREAK_ALL);
}

static bool run(struct chaos *c, const struct pg_stmt *stmt, const int64_t *parameter, double seconds,
                chaos_rows_fn *rows, void *arg)
{
    struct call call = {.chaos = c, .rows = rows, .arg = arg};
    double until = ev_time() + seconds;

    do {
        struct pg_txn *txn = pg_txn_new(c->pg, PG_ANY_LANE);
        call.over = false;
        pg_txn_add(txn, stmt);
        if (parameter)
            pg_put_int8(txn, *parameter);
        pg_txn_submit(txn, done, &call);
        while (!call.over) /* it ends, if only with a time out: not to be left behind */
            ev_run(c->dev.group.loop, 0);
        if (call.err == ERR_OK)
            return true;
    } while (call.err != ERR_INVALID && ev_time() < until && chaos_pause(c, RETRY_S));
    if (!c->dev.group.stopping)
        fprintf(stderr, "muster chaos: %s: %s\n", stmt->name, call.message);
    return false;
}

bool chaos_sql(struct chaos *c, const struct pg_stmt *stmt, double seconds, chaos_rows_fn *rows, void *arg)
{
    return run(c, stmt, NULL, seconds, rows, arg);
}

bool chaos_sql_int8(struct chaos *c, const struct pg_stmt *stmt, int64_t parameter, double seconds, chaos_rows_fn *rows,
                    void *arg)
{
    return run(c, stmt, &parameter, seconds, rows, arg);
}

static void take_open(void *arg, const struct pg_result *rows)
{
    int64_t *out = arg;

    out[0] = pg_int(rows, 0, 0);
    out[1] = pg_int(rows, 0, 1);
}

bool chaos_open_batches(struct chaos *c, int64_t *count, int64_t *lowest)
{
    static const struct pg_stmt stmt = {"chaos_open",
                                        "SELECT count(*), coalesce(min(id), 0) FROM batch WHERE closed_ms IS NULL"};
    int64_t out[2] = {0};

    if (!chaos_sql(c, &stmt, 60, take_open, out))
        return false;
    *count = out[0];
    *lowest = out[1];
    return true;
}
