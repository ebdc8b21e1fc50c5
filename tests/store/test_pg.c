/* lib/store/pg against a real PostgreSQL: order, isolation of failures, types, loss and return of the server. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/store/pg.h"
#include "tests/store/servers.h"

struct fixture {
    struct servers servers;
    struct ev_loop *loop;
    struct pg *pg;
};

/* What one transaction came to. */
struct outcome {
    bool done;
    enum err err;
    char sqlstate[6];
    int64_t value;
    int rows;
    size_t results;
};

static void note(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                 size_t count)
{
    struct outcome *o = arg;
    assert_false(o->done);
    o->done = true;
    o->err = err;
    o->results = count;
    snprintf(o->sqlstate, sizeof o->sqlstate, "%s", error->sqlstate);
    if (count && results) {
        o->rows = pg_rows(results[count - 1]);
        if (o->rows)
            o->value = pg_int(results[count - 1], 0, 0);
    }
}

static void on_limit(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    *(bool *)w->data = true;
}

/* Turns the loop until *flag, at most 20 s. */
static void wait_for(struct fixture *f, const bool *flag)
{
    bool late = false;
    ev_timer limit;
    ev_timer_init(&limit, on_limit, 20., 0.);
    limit.data = &late;
    ev_timer_start(f->loop, &limit);
    while (!*flag && !late)
        ev_run(f->loop, EVRUN_ONCE);
    ev_timer_stop(f->loop, &limit);
    assert_true(*flag);
}

static void on_up(void *arg, bool up)
{
    *(bool *)arg = up;
}

static void connect_pool(struct fixture *f, int connections)
{
    bool up = false;
    f->pg = pg_new(f->loop, &(struct pg_options){.conninfo = f->servers.postgres,
                                                 .connections = connections,
                                                 .statement_timeout_ms = 2000,
                                                 .queue_max = 20000});
    assert_non_null(f->pg);
    pg_on_change(f->pg, on_up, &up);
    if (!pg_up(f->pg))
        wait_for(f, &up);
    pg_on_change(f->pg, NULL, NULL);
}

static const struct pg_stmt stmt_one = {"one", "SELECT $1::bigint + 1"};
static const struct pg_stmt stmt_make = {"make",
                                         "CREATE TABLE IF NOT EXISTS line (lane int, n int, PRIMARY KEY (lane, n))"};
static const struct pg_stmt stmt_empty = {"empty", "TRUNCATE line"};
static const struct pg_stmt stmt_add = {"add", "INSERT INTO line VALUES ($1::int, $2::int)"};
static const struct pg_stmt stmt_count = {"count", "SELECT count(*) FROM line"};
static const struct pg_stmt stmt_bad = {"bad", "SELECT 1 / $1::int"};
static const struct pg_stmt stmt_nonsense = {"nonsense", "SELECT nothing FROM nowhere"};
static const struct pg_stmt stmt_server = {"server", "SELECT pg_backend_pid()::bigint"};
static const struct pg_stmt stmt_sleep = {"sleep", "SELECT pg_sleep($1::int)"};
static const struct pg_stmt stmt_unlimited = {"unlimited", "SELECT set_config('statement_timeout', '0', true)"};

static void add_one(struct pg_txn *txn, int64_t v)
{
    pg_txn_add(txn, &stmt_one);
    pg_put_int8(txn, v);
}

static struct outcome ask(struct fixture *f, struct pg_txn *txn)
{
    struct outcome o = {0};
    pg_txn_submit(txn, note, &o);
    assert_false(o.done);
    wait_for(f, &o.done);
    return o;
}

static struct outcome ask_one(struct fixture *f)
{
    struct pg_txn *txn = pg_txn_new(f->pg, PG_ANY_LANE);
    add_one(txn, 41);
    return ask(f, txn);
}

static struct outcome ask_plain(struct fixture *f, const struct pg_stmt *stmt)
{
    struct pg_txn *txn = pg_txn_new(f->pg, PG_ANY_LANE);
    pg_txn_add(txn, stmt);
    return ask(f, txn);
}

static void answers(void **state)
{
    struct fixture *f = *state;
    struct outcome o = ask_one(f);
    assert_int_equal(o.err, ERR_OK);
    assert_int_equal(o.value, 42);
    struct pg_txn *txn = pg_txn_new(f->pg, 0);
    for (int i = 0; i < 5; i++)
        add_one(txn, i);
    o = ask(f, txn);
    assert_int_equal(o.results, 5);
    assert_int_equal(o.value, 5);
}

static const struct pg_stmt stmt_types = {
    "types",
    "SELECT $1::smallint, $2::int, $3::bigint, $4::bool, $5::text, $6::bytea, $7::int[], $8::bigint[], $9::text[],"
    " $10::bytea[], $11::smallint[], $12::text, $13::int[]"};

static void gather(void *arg, struct slice element)
{
    struct buf *b = arg;
    buf_put(b, element.data, element.len);
    buf_put_u8(b, '|');
}

static void check_types(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    int64_t v[4];
    struct buf b = {0};
    assert_string_equal(error->message, "");
    assert_int_equal(err, ERR_OK);
    assert_int_equal(count, 1);
    const struct pg_result *r = results[0];
    assert_int_equal(pg_int(r, 0, 0), -2);
    assert_int_equal(pg_int(r, 0, 1), -70000);
    assert_int_equal(pg_int(r, 0, 2), INT64_MIN);
    assert_true(pg_bool(r, 0, 3));
    assert_string_equal(pg_text(r, 0, 4), "h\xc3\xa9");
    assert_memory_equal(pg_bytes(r, 0, 5).data, "\0\1\xff", 3);
    assert_int_equal(pg_int_array(r, 0, 6, v, 4), 3);
    assert_int_equal(v[2], -3);
    assert_int_equal(pg_int_array(r, 0, 7, v, 1), 2);
    assert_int_equal(v[0], INT64_MAX);
    pg_bytes_array(r, 0, 8, gather, &b);
    pg_bytes_array(r, 0, 9, gather, &b);
    buf_put_u8(&b, 0);
    assert_string_equal((const char *)buf_head(&b), "a||ccc|xy|");
    assert_int_equal(pg_int_array(r, 0, 10, v, 4), 1);
    assert_int_equal(v[0], -7);
    assert_true(pg_null(r, 0, 11));
    assert_int_equal(pg_int(r, 0, 11), 0);
    assert_int_equal(pg_int_array(r, 0, 12, v, 4), 0);
    buf_free(&b);
    *(bool *)arg = true;
}

static void types_survive(void **state)
{
    struct fixture *f = *state;
    bool done = false;
    struct pg_txn *txn = pg_txn_new(f->pg, PG_ANY_LANE);
    pg_txn_add(txn, &stmt_types);
    pg_put_int2(txn, -2);
    pg_put_int4(txn, -70000);
    pg_put_int8(txn, INT64_MIN);
    pg_put_bool(txn, true);
    pg_put_text(txn, "h\xc3\xa9");
    pg_put_bytea(txn, "\0\1\xff", 3);
    pg_put_int4_array(txn, (int32_t[]){1, 2, -3}, 3);
    pg_put_int8_array(txn, (int64_t[]){INT64_MAX, 0}, 2);
    pg_put_text_array(txn, (const char *[]){"a", "", "ccc"}, 3);
    pg_put_bytea_array(txn, (struct slice[]){{(const uint8_t *)"xy", 2}}, 1);
    pg_put_int2_array(txn, (int16_t[]){-7}, 1);
    pg_put_null(txn);
    pg_put_int4_array(txn, NULL, 0);
    pg_txn_submit(txn, check_types, &done);
    wait_for(f, &done);
}

#define LANES  8
#define A_LANE 1250

enum { POOL = 4 };

/* Whether as many as there are connections, at once, go over one each: when all are up. */
static bool each_has_its_own(struct fixture *f)
{
    struct outcome o[POOL] = {{0}};
    bool all = true;
    for (int i = 0; i < POOL; i++) {
        struct pg_txn *txn = pg_txn_new(f->pg, PG_ANY_LANE);
        pg_txn_add(txn, &stmt_server);
        pg_txn_submit(txn, note, &o[i]);
    }
    for (int i = 0; i < POOL; i++) {
        if (!o[i].done)
            wait_for(f, &o[i].done);
        for (int k = 0; k < i; k++)
            all = all && o[i].value != o[k].value;
    }
    return all;
}

/* Transactions that come one by one share a server process, whose caches are warm; those at once do not wait for each
 * other. */
static void one_by_one_they_share_a_connection(void **state)
{
    struct fixture *f = *state;
    for (int tries = 0; !each_has_its_own(f); tries++)
        assert_in_range(tries, 0, 1000);
    int64_t first = ask_plain(f, &stmt_server).value;
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask_plain(f, &stmt_server).value, first);
    struct pg_txn *txn = pg_txn_new(f->pg, 0);
    pg_txn_add(txn, &stmt_server);
    assert_int_not_equal(ask(f, txn).value, first);
}

struct lane_note {
    int *next; /* of its lane */
    int n;
    int *left;
    bool *all;
};

static void note_lane(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct lane_note *l = arg;
    (void)results;
    (void)error;
    assert_int_equal(err, ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(*l->next, l->n);
    ++*l->next;
    if (--*l->left == 0)
        *l->all = true;
}

static void many_lanes_keep_their_order(void **state)
{
    struct fixture *f = *state;
    int next[LANES] = {0}, left = LANES * A_LANE;
    bool all = false;
    struct lane_note *notes = calloc(LANES * A_LANE, sizeof *notes);
    assert_non_null(notes);
    assert_int_equal(ask_plain(f, &stmt_make).err, ERR_OK);
    assert_int_equal(ask_plain(f, &stmt_empty).err, ERR_OK);
    for (int i = 0; i < LANES * A_LANE; i++) {
        int lane = i % LANES;
        struct pg_txn *txn = pg_txn_new(f->pg, lane);
        notes[i] = (struct lane_note){&next[lane], i / LANES, &left, &all};
        pg_txn_add(txn, &stmt_add);
        pg_put_int4(txn, lane);
        pg_put_int4(txn, i / LANES);
        pg_txn_submit(txn, note_lane, &notes[i]);
    }
    wait_for(f, &all);
    assert_int_equal(ask_plain(f, &stmt_count).value, LANES * A_LANE);
    free(notes);
}

/* A failure takes back its own transaction whole, and no other of the same pipeline. */
static void a_failure_is_alone(void **state)
{
    struct fixture *f = *state;
    struct outcome o[30] = {{0}};
    ask_plain(f, &stmt_make);
    ask_plain(f, &stmt_empty);
    for (int i = 0; i < 30; i++) {
        struct pg_txn *txn = pg_txn_new(f->pg, 3);
        pg_txn_add(txn, &stmt_add);
        pg_put_int4(txn, 0);
        pg_put_int4(txn, i);
        pg_txn_add(txn, &stmt_bad);
        pg_put_int4(txn, i % 3);
        add_one(txn, 1);
        pg_txn_submit(txn, note, &o[i]);
    }
    wait_for(f, &o[29].done);
    for (int i = 0; i < 30; i++) {
        assert_true(o[i].done);
        assert_int_equal(o[i].err, i % 3 ? ERR_OK : ERR_INVALID);
        assert_string_equal(o[i].sqlstate, i % 3 ? "" : "22012");
    }
    assert_int_equal(ask_plain(f, &stmt_count).value, 20);
}

/* Statements first used in a transaction that fails before them are prepared all the same for those behind. */
static void a_failure_skips_no_preparation(void **state)
{
    struct fixture *f = *state;
    static const struct pg_stmt late = {"late", "SELECT $1::int * 2"};
    struct outcome o[2] = {{0}};
    for (int i = 0; i < 2; i++) {
        struct pg_txn *txn = pg_txn_new(f->pg, 1);
        pg_txn_add(txn, &stmt_bad);
        pg_put_int4(txn, i);
        pg_txn_add(txn, &late);
        pg_put_int4(txn, 4);
        pg_txn_submit(txn, note, &o[i]);
    }
    wait_for(f, &o[1].done);
    assert_int_equal(o[0].err, ERR_INVALID);
    assert_int_equal(o[1].err, ERR_OK);
    assert_int_equal(o[1].value, 8);
}

static void a_refused_statement_is_refused_again(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        struct pg_txn *txn = pg_txn_new(f->pg, 0);
        pg_txn_add(txn, &stmt_nonsense);
        assert_int_equal(ask(f, txn).err, ERR_INVALID);
    }
    assert_int_equal(ask_one(f).err, ERR_OK);
    assert_true(pg_up(f->pg));
}

static void slow_statements_time_out(void **state)
{
    struct fixture *f = *state;
    struct pg_txn *txn = pg_txn_new(f->pg, 0);
    pg_txn_add(txn, &stmt_sleep);
    pg_put_int4(txn, 10);
    assert_int_equal(ask(f, txn).err, ERR_TIMEOUT);
    assert_int_equal(ask_one(f).err, ERR_OK);
}

static void a_big_value_passes(void **state)
{
    struct fixture *f = *state;
    static const struct pg_stmt length = {"length", "SELECT length($1::bytea)::bigint"};
    size_t n = 20 << 20;
    uint8_t *big = calloc(1, n);
    struct pg_txn *txn = pg_txn_new(f->pg, 0);
    pg_txn_add(txn, &length);
    pg_put_bytea(txn, big, n);
    free(big);
    assert_int_equal(ask(f, txn).value, (int64_t)n);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* What is under way when the server goes is answered at once, what is submitted then within about a second, and when
 * the server is back everything goes on. */
static void the_server_goes_and_returns(void **state)
{
    struct fixture *f = *state;
    struct outcome sleeping = {0};
    bool down = true;
    struct pg_txn *txn = pg_txn_new(f->pg, 0);
    pg_txn_add(txn, &stmt_unlimited);
    pg_txn_add(txn, &stmt_sleep);
    pg_put_int4(txn, 60); /* longer than it takes to stop the server */
    pg_txn_submit(txn, note, &sleeping);
    assert_int_equal(ask_one(f).err, ERR_OK);
    pg_on_change(f->pg, on_up, &down);
    servers_stop_postgres(&f->servers);
    wait_for(f, &sleeping.done);
    assert_int_equal(sleeping.err, ERR_UNAVAILABLE);
    while (pg_up(f->pg))
        ev_run(f->loop, EVRUN_ONCE);
    assert_false(down);
    double start = seconds();
    assert_int_equal(ask_one(f).err, ERR_UNAVAILABLE);
    assert_true(seconds() - start < 5);
    start = seconds();
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask_one(f).err, ERR_UNAVAILABLE);
    assert_true(seconds() - start < 5);
    servers_start_postgres(&f->servers);
    wait_for(f, &down);
    assert_true(pg_up(f->pg));
    pg_on_change(f->pg, NULL, NULL);
    assert_int_equal(ask_one(f).value, 42);
}

static void the_queue_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct pg *small = pg_new(f->loop, &(struct pg_options){.conninfo = f->servers.postgres, .queue_max = 10});
    struct outcome o[11] = {{0}};
    for (int i = 0; i < 11; i++) {
        struct pg_txn *txn = pg_txn_new(small, PG_ANY_LANE);
        add_one(txn, i);
        pg_txn_submit(txn, note, &o[i]);
    }
    for (int i = 0; i < 11; i++) {
        wait_for(f, &o[i].done);
        assert_int_equal(o[i].err, i < 10 ? ERR_OK : ERR_LIMIT);
    }
    pg_free(&small);
}

static void free_in_callback(void *arg, enum err err, const struct pg_error *error,
                             const struct pg_result *const *results, size_t count)
{
    (void)error;
    (void)results;
    (void)count;
    assert_int_equal(err, ERR_OK);
    pg_free(arg);
}

static void freed_with_work_under_way(void **state)
{
    struct fixture *f = *state;
    struct pg *pg = pg_new(f->loop, &(struct pg_options){.conninfo = f->servers.postgres, .connections = 1});
    struct outcome o[3] = {{0}};
    struct pg_txn *first = pg_txn_new(pg, 0);
    add_one(first, 1);
    pg_txn_submit(first, free_in_callback, &pg);
    for (int i = 0; i < 3; i++) {
        struct pg_txn *txn = pg_txn_new(pg, 0);
        add_one(txn, i);
        pg_txn_submit(txn, note, &o[i]);
    }
    wait_for(f, &o[2].done);
    assert_null(pg);
    for (int i = 0; i < 3; i++)
        assert_int_equal(o[i].err, ERR_CLOSED);
}

static void migrations_apply_once(void **state)
{
    struct fixture *f = *state;
    char error[256];
    int applied = 0;
    enum err err = pg_migrate(f->servers.postgres, error, sizeof error, &applied);
    assert_string_equal(error, "");
    assert_int_equal(err, ERR_OK);
    assert_true(applied > 0);
    assert_int_equal(pg_migrate(f->servers.postgres, error, sizeof error, &applied), ERR_OK);
    assert_int_equal(applied, 0);
    static const struct pg_stmt newer = {"newer", "INSERT INTO schema_migration VALUES (9999, 'x', 'x', 0)"};
    static const struct pg_stmt mend = {"mend", "DELETE FROM schema_migration WHERE version = 9999"};
    assert_int_equal(ask_plain(f, &newer).err, ERR_OK);
    assert_int_equal(pg_migrate(f->servers.postgres, error, sizeof error, &applied), ERR_INVALID);
    assert_non_null(strstr(error, "newer"));
    assert_int_equal(ask_plain(f, &mend).err, ERR_OK);
    assert_int_equal(pg_migrate("host=/nowhere", error, sizeof error, &applied), ERR_UNAVAILABLE);
}

/* A host that takes connections and says nothing, as one that has gone dark behind a network, and one that ends them.
 */
static pid_t be_no_server(const char *folder, bool dark)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%.80s/.s.PGSQL.5432", folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 100), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        for (;;) {
            int taken = accept(fd, NULL, NULL);
            if (!dark)
                close(taken);
        }
    close(fd);
    return pid;
}

static void first_host_is_no_server(struct fixture *f, bool dark)
{
    char folder[128], conninfo[512], error[256], file[160];
    struct outcome o = {0};
    snprintf(folder, sizeof folder, "%s/%s", f->servers.folder, dark ? "dark" : "ends");
    assert_int_equal(mkdir(folder, 0700), 0);
    pid_t pid = be_no_server(folder, dark);
    /* The real one is behind it: "host=<folder> …". */
    snprintf(conninfo, sizeof conninfo, "host=%s,%s", folder, strstr(f->servers.postgres, "host=") + 5);
    struct pg *pg = pg_new(f->loop, &(struct pg_options){.conninfo = conninfo, .connections = 1});
    while (!pg_up(pg))
        ev_run(f->loop, EVRUN_ONCE);
    struct pg_txn *txn = pg_txn_new(pg, 0);
    add_one(txn, 1);
    pg_txn_submit(txn, note, &o);
    wait_for(f, &o.done);
    assert_int_equal(o.err, ERR_OK);
    pg_free(&pg);
    if (!dark)
        assert_int_equal(pg_migrate(conninfo, error, sizeof error, NULL), ERR_OK);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    snprintf(file, sizeof file, "%s/.s.PGSQL.5432", folder);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void a_dark_host_is_passed_over(void **state)
{
    first_host_is_no_server(*state, true);
}

static void a_host_that_hangs_up_is_passed_over(void **state)
{
    first_host_is_no_server(*state, false);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    log_init("test_pg", LOG_ERROR);
    servers_init(&f->servers);
    servers_start_postgres(&f->servers);
    f->loop = ev_default_loop(0);
    connect_pool(f, POOL);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pg_free(&f->pg);
    servers_free(&f->servers);
    free(f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),
        cmocka_unit_test(types_survive),
        cmocka_unit_test(one_by_one_they_share_a_connection),
        cmocka_unit_test(many_lanes_keep_their_order),
        cmocka_unit_test(a_failure_is_alone),
        cmocka_unit_test(a_failure_skips_no_preparation),
        cmocka_unit_test(a_refused_statement_is_refused_again),
        cmocka_unit_test(slow_statements_time_out),
        cmocka_unit_test(a_big_value_passes),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(freed_with_work_under_way),
        cmocka_unit_test(migrations_apply_once),
        cmocka_unit_test(the_server_goes_and_returns),
        cmocka_unit_test(a_dark_host_is_passed_over),
        cmocka_unit_test(a_host_that_hangs_up_is_passed_over),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
