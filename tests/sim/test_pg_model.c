/* The model of PostgreSQL against a real one: random transactions of lib/store, their answers compared, and now and
 * then all tables. Each transaction goes through the function of lib/store that makes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/store/db_ack_log.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_control.h"
#include "lib/store/db_credential.h"
#include "lib/store/db_device.h"
#include "lib/store/db_dynamic.h"
#include "lib/store/db_gate.h"
#include "lib/store/db_lease.h"
#include "lib/store/db_open.h"
#include "lib/store/db_quota.h"
#include "lib/store/db_retry.h"
#include "lib/store/db_supersede.h"
#include "tests/sim/mutation.h"
#include "tests/sim/pg_model.h"
#include "tests/store/servers.h"

#define STEPS      1500
#define DEVICES    40
#define CREATED_MS 1700000000000ll

static struct check {
    struct servers servers;
    PGconn *db;
    struct pg_model *model;
    uint64_t random;
    int requests;
    struct lease_fence fence;
    char holder[16];
    int64_t stream, row;
    int step;
    bool wrong, noticed; /* wrong: the model is, and that is to be noticed */
} check;

static unsigned below(unsigned n)
{
    check.random = check.random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((check.random >> 33) % n);
}

/* --- both sides ----------------------------------------------------------------------------------------------------
 */

static PGresult *ask(const struct pg_txn *txn, const struct pg_call *call)
{
    const char *values[32];
    int lens[32], formats[32];
    for (int i = 0; i < call->count; i++) {
        const struct pg_param *p = &txn->params[call->first + i];
        values[i] = p->len < 0 ? NULL : (const char *)buf_head(&txn->data) + p->offset;
        lens[i] = p->len < 0 ? 0 : p->len;
        formats[i] = 1;
    }
    return PQexecParams(check.db, call->stmt->sql, call->count, NULL, values, lens, formats, 1);
}

static void say(const char *sql)
{
    PGresult *r = PQexec(check.db, sql);
    assert_true(PQresultStatus(r) == PGRES_COMMAND_OK || PQresultStatus(r) == PGRES_TUPLES_OK);
    PQclear(r);
}

/* A row as bytes, to be sorted: not every statement says in which order its rows come. */
static void put_row(struct buf *out, const PGresult *r, int row)
{
    for (int col = 0; col < PQnfields(r); col++) {
        int len = PQgetisnull(r, row, col) ? -1 : PQgetlength(r, row, col);
        buf_put_u32be(out, (uint32_t)len);
        if (len > 0)
            buf_put(out, PQgetvalue(r, row, col), (size_t)len);
    }
}

static int by_bytes(const void *a, const void *b)
{
    struct slice x = buf_slice(a), y = buf_slice(b);
    int c = memcmp(x.data, y.data, x.len < y.len ? x.len : y.len);
    return c ? c : x.len < y.len ? -1 : x.len > y.len;
}

static bool same(const PGresult *a, const PGresult *b, bool ordered)
{
    int n = PQntuples(a);
    struct buf *x = calloc((size_t)n + 1, sizeof *x), *y = calloc((size_t)n + 1, sizeof *y);
    bool equal = x && y && n == PQntuples(b) && (n == 0 || PQnfields(a) == PQnfields(b));
    for (int i = 0; equal && i < n; i++) {
        put_row(&x[i], a, i);
        put_row(&y[i], b, i);
    }
    if (equal && !ordered && n) {
        qsort(x, (size_t)n, sizeof *x, by_bytes);
        qsort(y, (size_t)n, sizeof *y, by_bytes);
    }
    for (int i = 0; equal && i < n; i++)
        equal = by_bytes(&x[i], &y[i]) == 0;
    for (int i = 0; x && y && i < n; i++) {
        buf_free(&x[i]);
        buf_free(&y[i]);
    }
    free(x);
    free(y);
    return equal;
}

static int64_t server_ms(void)
{
    PGresult *r = PQexec(check.db, "SELECT server_ms()");
    int64_t ms = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
    PQclear(r);
    return ms;
}

/* An epoch is the clock's: the model takes it over. */
static bool same_epoch(const PGresult *theirs, PGresult *ours)
{
    bool equal = PQgetisnull(theirs, 0, 0) == PQgetisnull(ours, 0, 0);
    if (equal && !PQgetisnull(theirs, 0, 0))
        check.model->lease.epoch =
            int_of_slice((struct slice){(const uint8_t *)PQgetvalue(theirs, 0, 0), (size_t)PQgetlength(theirs, 0, 0)});
    return equal;
}

/* In place of lib/store/pg.c: carried out here and there at once. */
void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg)
{
    const void *results[32];
    PGresult *theirs[32];
    struct pg_error error = {"", ""};
    int n = 0;
    assert_true(txn->call_count <= 32);
    check.model->now_ms = server_ms();
    say("BEGIN");
    for (; n < txn->call_count && !*error.sqlstate; n++) {
        const struct pg_call *call = &txn->calls[n];
        const char *sqlstate = "", *theirs_state;
        PGresult *ours = pg_model_execute(check.model, txn, n, 0, &sqlstate);
        results[n] = theirs[n] = ask(txn, call);
        theirs_state = PQresultErrorField(theirs[n], PG_DIAG_SQLSTATE);
        bool equal = strcmp(theirs_state ? theirs_state : "", sqlstate) == 0;
        if (equal && ours && strcmp(call->stmt->name, "lease_acquire") == 0)
            equal = same_epoch(theirs[n], ours);
        else if (equal && ours)
            equal = same(theirs[n], ours, strstr(call->stmt->sql, "ORDER BY") != NULL);
        check.noticed = check.noticed || !equal;
        if (!equal && !check.wrong)
            print_error("step %d: %s is answered with another: %s\n", check.step, call->stmt->name,
                        PQresultErrorMessage(theirs[n]));
        assert_true(equal || check.wrong);
        snprintf(error.sqlstate, sizeof error.sqlstate, "%s", sqlstate);
        PQclear(ours);
    }
    say(*error.sqlstate ? "ROLLBACK" : "COMMIT");
    done(arg, *error.sqlstate ? ERR_INVALID : ERR_OK, &error, *error.sqlstate ? NULL : (const void *)results,
         (size_t)n);
    while (n > 0)
        PQclear(theirs[--n]);
    pg_txn_free(&txn);
}

/* --- moves
 * ------------------------------------------------------------------------------------------------------------- */

static void ignore(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                   size_t count)
{
    (void)arg, (void)err, (void)error, (void)results, (void)count;
}

static int64_t some_batch(void)
{
    return 1 + (int64_t)below((unsigned)check.model->next_batch);
}

static const uint8_t bits[] = {0xff, 0x0f, 0x81};
static const uint8_t whole[3][128] = {{1, 2, 3}, {6}, {9, 255, 7}};

/* A batch of one or two blocks, and what it points to. */
struct accepted {
    struct db_accept batch;
    char request[16];
    int32_t blocks[2];
    int16_t firsts[2];
    struct slice targets[2];
};

static void some_batch_of_blocks(struct accepted *a)
{
    *a = (struct accepted){
        .blocks = {0, 1}, .firsts = {(int16_t)(8 * below(2)), 0}, .targets = {{bits, 1 + below(2)}, {bits + 1, 1}}};
    snprintf(a->request, sizeof a->request, "r%d",
             below(4) ? ++check.requests : (int)below((unsigned)check.requests + 1));
    a->batch = (struct db_accept){.tenant = 1 + (int32_t)below(2),
                                  .request_id = a->request,
                                  .description = "",
                                  .supersede_key = "",
                                  .command = {bits, 2},
                                  .priority = (int16_t)(1 + below(3)),
                                  .device_count = 12,
                                  .created_ms = CREATED_MS + check.step,
                                  .expires_ms = CREATED_MS + 60000,
                                  .blocks = a->blocks,
                                  .firsts = a->firsts,
                                  .targets = a->targets,
                                  .block_count = 1 + below(2)};
}

static void accept_blocks(void)
{
    struct accepted a;
    some_batch_of_blocks(&a);
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    db_batch_hold_tenants(txn, &a.batch.tenant, 1);
    db_batch_accept(txn, &a.batch);
    const struct slice vals[] = {{bits, 3}, {bits + 1, below(3)}};
    const struct db_values values = {.described = {bits, 1}, .defaults = {bits, below(2)}, .blocks = vals};
    if (below(2)) /* for some other request now and then */
        db_values_accepted(txn, a.batch.tenant, below(9) ? a.request : "r1", &values, a.blocks, a.batch.block_count);
    pg_txn_submit(txn, ignore, NULL);
}

static void accept_devices(void)
{
    static const uint8_t command[] = {1};
    char requests[3][16], devices[3][16];
    struct db_accept b[3];
    const struct db_accept *all[3];
    const char *ids[3];
    const int32_t tenant = 1;
    size_t n = 1 + below(3);
    for (size_t i = 0; i < n; i++) {
        /* In order and different: three digits, a repeated one first. */
        snprintf(requests[i], sizeof requests[i], "s%04d", i == 0 && below(3) == 0 ? check.requests : ++check.requests);
        snprintf(devices[i], sizeof devices[i], "d%u", below(DEVICES + 3));
        b[i] = (struct db_accept){.tenant = tenant,
                                  .request_id = requests[i],
                                  .description = "",
                                  .command = {command, 1},
                                  .priority = 2,
                                  .device_count = 1,
                                  .created_ms = CREATED_MS,
                                  .expires_ms = CREATED_MS + 60000};
        all[i] = &b[i];
        ids[i] = devices[i];
    }
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    assert_true(db_batch_accept_devices(txn, all, ids, n));
    pg_txn_submit(txn, ignore, NULL);
}

/* With what steers it, a key, what is tried again of it, or some of these. */
static void accept_steered(void)
{
    static const uint8_t steering[] = {8, 1};
    char key[8];
    struct accepted a;
    some_batch_of_blocks(&a);
    struct db_accept *b = &a.batch;
    snprintf(key, sizeof key, "k%u", below(3));
    b->supersede_key = below(2) ? key : "";
    if (below(3))
        b->steering = (struct slice){steering, sizeof steering};
    b->steer = (struct db_steer){.not_before_ms = below(3) * 1000,
                                 .deliver_by_ms = below(3) * 2000,
                                 .execution_ms = below(3) * 3000,
                                 .window = (int32_t)below(3),
                                 .rollout = below(2),
                                 .waves = (int32_t)below(4)};
    snprintf(b->steer.zone, sizeof b->steer.zone, "%s", below(2) ? "Europe/Berlin" : "");
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    if (*b->supersede_key)
        db_supersede_hold(txn, &b->tenant, &b->supersede_key, 1);
    db_batch_hold_tenants(txn, &b->tenant, 1);
    db_batch_accept(txn, b);
    if (*b->supersede_key)
        db_supersede_accept(txn, b);
    if (below(2)) {
        b->steer.retry = (struct db_retry){1 << (int)below(9), (int16_t)(2 + below(14)), (int16_t)(1 + below(10)),
                                           1000 + below(9), 1000000 + below(9)};
        db_retry_accept(txn, b);
    }
    const struct slice canaries[] = {{whole[0], sizeof whole[0]}, {whole[below(3)], sizeof whole[0]}};
    b->canary_blocks = a.blocks;
    b->canary_slots = canaries;
    b->canary_count = below(3);
    db_batch_accept_canary(txn, b);
    pg_txn_submit(txn, ignore, NULL);
}

/* Dynamic, with a key or without, or what some other one was: half of the time with nobody yet. */
static void accept_dynamic(void)
{
    char key[8];
    struct accepted a;
    some_batch_of_blocks(&a);
    struct db_accept *b = &a.batch;
    for (int i = 0; i < 2; i++) {
        a.firsts[i] = 0;
        a.targets[i] = (struct slice){whole[below(3)], sizeof whole[0]};
    }
    if (below(2))
        b->block_count = 0;
    snprintf(key, sizeof key, "k%u", below(3));
    b->supersede_key = below(3) ? key : "";
    b->dynamic = (struct slice){bits, 1 + below(3)};
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    db_batch_hold_tenants(txn, &b->tenant, 1);
    db_batch_accept(txn, b);
    if (*b->supersede_key)
        db_supersede_accept(txn, b);
    db_dynamic_accept(txn, b);
    pg_txn_submit(txn, ignore, NULL);
}

/* The first of each block, where blocks whose outcomes are stored have some. */
static void join(void)
{
    static const uint8_t new[3][128] = {{1}, {6}, {15}};
    const int32_t blocks[] = {0, 1};
    const struct slice targets = {whole[below(3)], sizeof whole[0]}, joined = {whole[below(3)], sizeof whole[0]},
                       some = {new[below(3)], sizeof new[0]};
    const struct row_batch *b = pg_model_batch(check.model, some_batch());
    if (!b)
        return;
    const struct db_join join = {.tenant = b->tenant,
                                 .batch = (uint64_t)b->id,
                                 .devices = below(9),
                                 .blocks = blocks + below(2),
                                 .targets = &targets,
                                 .joined = &joined,
                                 .new = &some,
                                 .count = 1,
                                 .since_ms = CREATED_MS + check.step};
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    db_quota_grant(txn, join.tenant, join.devices);
    if (*b->control.key)
        db_dynamic_key(txn, &join);
    if (below(3))
        db_dynamic_join(txn, &join);
    pg_txn_submit(txn, ignore, NULL);
}

static void steer(void)
{
    const uint8_t slots[128] = {(uint8_t)below(256), 2, [127] = (uint8_t)below(256)};
    const int32_t blocks[] = {0, 1};
    const struct slice all[] = {{slots, sizeof slots}, {slots, sizeof slots}};
    int32_t tenant = 1 + (int32_t)below(2);
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    switch (below(5)) {
    case 2:
        db_dynamic_seal(txn, tenant, some_batch(), CREATED_MS, 1);
        break;
    case 0:
        db_control_cancel_some(txn, tenant, some_batch(), blocks, all, 1 + below(2), CREATED_MS, 1);
        break;
    case 1:
        db_control_release_wave(txn, tenant, some_batch(), (uint32_t)below(4), CREATED_MS, 1);
        break;
    default:
        db_control_pause(txn, tenant, some_batch(), below(2), "", CREATED_MS, 1);
        break;
    }
    pg_txn_submit(txn, ignore, NULL);
}

static void hold_or_release(void)
{
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    if (below(3))
        db_gate_set(txn, (int32_t)below(3), NULL, below(2), "", CREATED_MS + check.step, 1);
    else
        db_gate_confirm(txn, (int64_t)below(50), CREATED_MS + check.step);
    pg_txn_submit(txn, ignore, NULL);
}

/* What the leader writes of all that. */
static void carry_out(void)
{
    static const uint8_t slots[128] = {7};
    const int64_t ids[] = {some_batch(), some_batch()}, numbers[] = {below(50)};
    const int32_t requests[] = {(int32_t)below(4), (int32_t)below(4)}, tenants[] = {(int32_t)below(3)}, blocks[] = {1};
    const struct slice all[] = {{slots, sizeof slots}};
    const struct db_stop stop = {.platforms = below(8),
                                 .acted = below(4),
                                 .platform_acted = {0, (uint8_t)below(3)},
                                 .pause = below(2),
                                 .abort = below(8) == 0,
                                 .reason = "",
                                 .outcome = "",
                                 .note = "",
                                 .devices = -1};
    const struct db_pace pace = {below(3), below(9), below(9), 0};
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    db_control_handled(txn, ids, requests, 2, CREATED_MS);
    if (below(3) == 0)
        db_gate_settle(txn, tenants, numbers, 1);
    if (below(3) == 0)
        db_control_stop(txn, (uint64_t)ids[0], &stop, CREATED_MS);
    if (below(4) == 0)
        db_supersede_closed(txn, ids, 1);
    if (below(8) == 0)
        db_control_closed(txn, ids, 2);
    if (below(3) == 0)
        db_control_let_go(txn, (uint64_t)ids[0], &pace, blocks, all, 1);
    if (below(6) == 0)
        db_control_forget(txn, ids, 2);
    pg_txn_submit(txn, ignore, NULL);
}

static void read_control(void)
{
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    db_control_asked(txn, 1 + (int)below(50));
    db_control_cancels(txn, (uint64_t)some_batch());
    db_control_parts(txn, (uint64_t)some_batch());
    db_supersede_older(txn, (uint64_t)some_batch());
    db_dynamic_target(txn, (uint64_t)some_batch());
    db_dynamic_taken(txn, (uint64_t)some_batch());
    db_gate_closed(txn);
    db_gate_list(txn, (int32_t)below(3));
    db_device_blocks(txn, 1, (int)below(2));
    pg_txn_submit(txn, ignore, NULL);
}

static void cancel_or_delete(void)
{
    char device[16];
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    if (below(5)) {
        db_batch_cancel(txn, 1 + (int32_t)below(2), some_batch(), CREATED_MS + check.step, 1);
    } else {
        snprintf(device, sizeof device, "d%u", below(DEVICES));
        db_device_delete(txn, 1, device, CREATED_MS + check.step, 1);
    }
    pg_txn_submit(txn, ignore, NULL);
}

static void opened(void *arg, enum err err, int64_t stream)
{
    (void)arg, (void)err;
    check.stream = stream;
    check.row = 0;
}

static void flushed(void *arg, enum err err)
{
    (void)arg, (void)err;
}

static void acknowledge(void)
{
    static const uint8_t entries[] = {1, 2, 3, 4, 5};
    const struct db_result results[] = {
        {(uint64_t)some_batch(), 1, below(16), (uint8_t)below(3), {entries, below(5)}, {NULL, 0}},
        {(uint64_t)some_batch(), 2, 1024 + below(8), (uint8_t)below(3), {entries + 1, 2}, {NULL, 0}},
    };
    if (!check.stream || below(20) == 0)
        db_ack_stream_open(NULL, "w", CREATED_MS + check.step, opened, NULL);
    /* Now and then the same row again, and out of order. */
    int64_t n = below(6) ? ++check.row : 1 + (int64_t)below((unsigned)check.row + 1);
    db_ack_flush(NULL, check.stream, n, CREATED_MS + check.step, (struct slice){entries, 1 + below(5)}, results,
                 below(3), flushed, NULL);
}

static void leased(void *arg, enum err err, int64_t value)
{
    bool acquired = arg != NULL;
    (void)err;
    if (acquired && value)
        check.fence = (struct lease_fence){"leader", check.holder, value};
}

static void lease(void)
{
    static const int64_t ttls[] = {1000000000, 1000000000, -1};
    struct lease_fence fence = check.fence;
    fence.epoch += below(4) == 0;
    switch (below(3)) {
    case 0:
        snprintf(check.holder, sizeof check.holder, "h%u", below(3));
        db_lease_acquire(NULL, 0, "leader", check.holder, ttls[below(3)], leased, &check);
        break;
    case 1:
        db_lease_renew(NULL, &fence, ttls[below(3)], leased, NULL);
        break;
    default:
        db_lease_release(NULL, 0, &fence, leased, NULL);
        break;
    }
}

static void write_fenced(void)
{
    const int64_t ids[] = {some_batch(), some_batch()}, streams[] = {check.stream}, ns[] = {1 + below(10)};
    const int32_t blocks[] = {0, 1}, tenants[] = {1}, seqs[] = {(int32_t)below(DEVICES)};
    int32_t counts[2 * STATE_COUNT];
    static const uint8_t bytes[] = {5, 0, 5, 0, 5, 0, 5, 0};
    const struct slice states[] = {{bytes, 8}, {bytes, 4}};
    struct lease_fence fence = check.fence;
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    fence.epoch += below(8) == 0;
    for (size_t i = 0; i < 2 * STATE_COUNT; i++)
        counts[i] = (int32_t)below(9);
    db_lease_fence(txn, &fence);
    if (below(2))
        db_open_fold(txn, ids, blocks, states, states, 2);
    if (below(3) == 0)
        db_open_forget_log(txn, streams, ns, 1);
    if (below(3) == 0)
        db_open_routed(txn, ids, 1, CREATED_MS + check.step);
    if (below(4) == 0)
        db_open_canceled(txn, ids, 1, CREATED_MS + check.step);
    if (below(6) == 0 && ids[0] != ids[1])
        db_open_closed(txn, ids, counts, 2, CREATED_MS + check.step);
    if (below(3) == 0)
        db_open_forget_deleted(txn, tenants, seqs, 1);
    if (below(6) == 0)
        db_open_forget_streams(txn, CREATED_MS + (int64_t)below(STEPS));
    pg_txn_submit(txn, ignore, NULL);
}

static void read_open(void)
{
    const int64_t ids[] = {some_batch(), some_batch()}, streams[] = {check.stream}, ns[] = {below(5)};
    const int32_t blocks[] = {0, 1};
    struct pg_txn *txn = pg_txn_new(NULL, 0);
    db_open_log(txn, streams, ns, below(2), 1 + (int)below(6));
    db_open_unrouted(txn, below(20), 50);
    db_open_canceling(txn, 50);
    db_open_page(txn, below(20), 1 + (int)below(50));
    db_open_some(txn, ids, 2);
    db_closed_some(txn, ids, 2);
    db_open_blocks(txn, ids, 2);
    if (ids[0] != ids[1]) {
        db_open_times(txn, ids, blocks, 2);
        db_open_commands(txn, ids, 2);
    }
    db_open_deleted(txn, below(2), below(DEVICES), 1 + (int)below(9));
    db_open_tenants(txn);
    db_values_page(txn, ids[0], (int32_t)below(3) - 1, 1 + (int64_t)below(8));
    pg_txn_submit(txn, ignore, NULL);
}

static void make_moves(int steps)
{
    static void (*const moves[])(void) = {accept_blocks, accept_devices,  cancel_or_delete, acknowledge,    acknowledge,
                                          lease,         write_fenced,    write_fenced,     accept_steered, steer,
                                          steer,         hold_or_release, carry_out,        accept_dynamic, join,
                                          join};
    for (check.step = 0; check.step < steps && !check.noticed; check.step++) {
        moves[below(sizeof moves / sizeof *moves)]();
        if (check.step % 3 == 0)
            read_open();
        if (check.step % 5 == 0)
            read_control();
    }
}

static void the_model_does_what_postgres_does(void **state)
{
    (void)state;
    check.random = 20261126;
    check.fence = (struct lease_fence){"leader", "nobody", 0};
    make_moves(STEPS);
}

/* Behind the former, whose tables it goes on with. */
static void a_wrong_model_is_noticed(void **state)
{
    (void)state;
    check.wrong = true;
    check.model->mutation = MUTATION_LOG_SKIPS;
    make_moves(STEPS);
    assert_true(check.noticed);
}

/* --- life
 * -------------------------------------------------------------------------------------------------------------- */

static void add_device(int32_t tenant, int32_t seq)
{
    char sql[400];
    struct row_device *row = table_add(&check.model->devices);
    row->tenant = tenant;
    row->seq = seq;
    row->platform = 1;
    snprintf(row->id, sizeof row->id, "d%d", seq);
    snprintf(sql, sizeof sql,
             "INSERT INTO device (tenant_id, seq, id, platform, created_ms) VALUES (%d, %d, 'd%d', 1, 1)", tenant, seq,
             seq);
    say(sql);
    snprintf(sql, sizeof sql,
             "INSERT INTO device_block VALUES (%d, %d, 1, set_byte(decode(repeat('00', 128), 'hex'), %d, %d))"
             " ON CONFLICT (tenant_id, block, platform) DO UPDATE SET slots = set_byte(device_block.slots, %d,"
             " get_byte(device_block.slots, %d) | %d)",
             tenant, seq / 1024, seq % 1024 / 8, 1 << seq % 8, seq % 1024 / 8, seq % 1024 / 8, 1 << seq % 8);
    say(sql);
}

static int set_up(void **state)
{
    char error[256];
    int applied;
    (void)state;
    servers_init(&check.servers);
    servers_start_postgres(&check.servers);
    if (pg_migrate(check.servers.postgres, error, sizeof error, &applied) != ERR_OK)
        return -1;
    check.db = PQconnectdb(check.servers.postgres);
    check.model = pg_model_new();
    say("SET client_min_messages = error");
    say("SET synchronous_commit = off");
    for (int32_t t = 1; t <= 2; t++) {
        char sql[160];
        snprintf(
            sql, sizeof sql,
            "INSERT INTO tenant (id, name, next_seq, created_ms) OVERRIDING SYSTEM VALUE VALUES (%d, 't%d', %d, 1)", t,
            t, t == 1 ? DEVICES : 1100);
        say(sql);
        *table_add(&check.model->tenants) = (struct row_tenant){t, t == 1 ? DEVICES : 1100};
    }
    for (int32_t seq = 0; seq < DEVICES; seq++)
        add_device(1, seq);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    PQfinish(check.db);
    pg_model_free(&check.model);
    servers_free(&check.servers);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_model_does_what_postgres_does),
                                       cmocka_unit_test(a_wrong_model_is_noticed)};
    return cmocka_run_group_tests_name("pg_model", tests, set_up, tear_down);
}
