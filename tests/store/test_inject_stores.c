/* Connections to a real Redis and a real PostgreSQL with the nth call of hiredis or libpq failing, the nth allocation,
 * or the nth recv or send of ours falling short: each request is answered exactly once, with what it asked for or with
 * an error, what was refused is answered when asked again, and nothing is left of a connection that is freed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/store/pg.h"
#include "lib/store/redis.h"
#include "tests/store/servers.h"
#include "tests/unit/inject.h"

#define REQUESTS  4
#define TRIES_MAX 20
#define LIMIT_S   20.

struct fixture {
    struct servers servers;
    struct ev_loop *loop;
};

/* One request: asked until it is answered well. */
struct request {
    unsigned number, tries, under_way;
    bool good;
    int64_t value;
};

struct scene {
    struct ev_loop *loop;
    struct redis *redis;
    struct pg *pg;
    struct request requests[REQUESTS];
    bool late;
};

static void on_limit(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)revents;
    ((struct scene *)w->data)->late = true;
}

static bool over(const struct scene *s)
{
    bool good = true;
    for (unsigned i = 0; i < REQUESTS; i++)
        good = good && s->requests[i].good && !s->requests[i].under_way;
    return good;
}

/* Turns the loop until all are answered well; those refused are asked again by `ask`. */
static void run(struct scene *s, void (*ask)(struct scene *s, struct request *r))
{
    ev_timer limit;
    ev_timer_init(&limit, on_limit, LIMIT_S, 0.);
    limit.data = s;
    ev_timer_start(s->loop, &limit);
    while (!over(s) && !s->late) {
        for (unsigned i = 0; i < REQUESTS; i++) {
            struct request *r = &s->requests[i];
            if (!r->good && !r->under_way) {
                r->under_way++;
                ask(s, r);
            }
        }
        ev_run(s->loop, EVRUN_ONCE);
    }
    ev_timer_stop(s->loop, &limit);
    inject_hold();
    assert_false(s->late);
}

static void begin(struct scene *s, struct ev_loop *loop)
{
    *s = (struct scene){.loop = loop};
    for (unsigned i = 0; i < REQUESTS; i++)
        s->requests[i].number = i;
}

/* --- Redis -------------------------------------------------------------------------------------------------------- */

static void redis_answered(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    inject_hold();
    assert_int_equal(r->under_way, 1);
    assert_false(r->good);
    r->under_way = 0;
    assert_true((err != ERR_OK) == (reply == NULL));
    r->good = !err;
    if (reply && r->number != 2) {
        assert_int_equal(reply->type, REDIS_REPLY_STRING);
        assert_string_equal(reply->str, r->number == 1 ? "said" : "hello");
    }
    inject_go_on();
}

static void ask_redis(struct scene *s, struct request *r)
{
    static const struct slice echo[] = {{(const uint8_t *)"ECHO", 4}, {(const uint8_t *)"hello", 5}},
                              said[] = {{(const uint8_t *)"ECHO", 4}, {(const uint8_t *)"said", 4}},
                              number[] = {{(const uint8_t *)"worker:7", 8}, {(const uint8_t *)"0", 1}};
    if (r->number == 2)
        redis_script(s->redis, "worker_dead", 1, 2, number, redis_answered, r);
    else
        redis_command(s->redis, 2, r->number == 1 ? said : echo, redis_answered, r);
}

static void speak_to_redis(void *arg, enum injection what)
{
    struct fixture *f = arg;
    struct scene s;
    (void)what;
    inject_hold();
    size_t descriptors = inject_descriptors();
    begin(&s, f->loop);
    inject_go_on();
    s.redis = redis_new(f->loop, f->servers.redis_url);
    if (s.redis) {
        run(&s, ask_redis);
        redis_free(&s.redis);
        inject_go_on();
    } else {
        assert_true(inject_happened());
    }
    inject_hold();
    assert_int_equal(inject_descriptors(), descriptors);
    inject_go_on();
}

static void redis_calls_fail(void **state)
{
    assert_true(inject_each(INJECT_CALL, false, 1, speak_to_redis, *state) > 8);
}

static void redis_input_and_output_fail(void **state)
{
    static const enum injection kinds[] = {INJECT_SHORT, INJECT_EINTR, INJECT_EAGAIN, INJECT_RESET, INJECT_PIPE};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        assert_true(inject_each(kinds[i], false, 1, speak_to_redis, *state) > 3);
    assert_true(inject_each(INJECT_SHORT, true, 1, speak_to_redis, *state) > 3);
}

static void redis_has_no_memory(void **state)
{
    assert_true(inject_each(INJECT_MEMORY, false, 1, speak_to_redis, *state) > 8);
}

/* --- PostgreSQL --------------------------------------------------------------------------------------------------- */

static const struct pg_stmt stmt_one = {"one", "SELECT $1::bigint + 1"};
static const struct pg_stmt stmt_two = {"two", "SELECT $1::bigint + 2"};

static void pg_answered(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct request *r = arg;
    (void)error;
    inject_hold();
    assert_int_equal(r->under_way, 1);
    assert_false(r->good);
    r->under_way = 0;
    r->good = !err;
    assert_true(err == ERR_OK || err == ERR_UNAVAILABLE || err == ERR_NOMEM);
    if (!err) {
        assert_int_equal(count, 2);
        assert_int_equal(pg_int(results[0], 0, 0), r->number + 1);
        assert_int_equal(pg_int(results[1], 0, 0), r->number + 2);
    }
    inject_go_on();
}

static void ask_pg(struct scene *s, struct request *r)
{
    struct pg_txn *txn = pg_txn_new(s->pg, (int)r->number % 2 ? (int)r->number : PG_ANY_LANE);
    if (txn) {
        pg_txn_add(txn, &stmt_one);
        pg_put_int8(txn, r->number);
        pg_txn_add(txn, &stmt_two);
        pg_put_int8(txn, r->number);
    }
    pg_txn_submit(txn, pg_answered, r);
}

static void speak_to_pg(void *arg, enum injection what)
{
    struct fixture *f = arg;
    struct scene s;
    (void)what;
    inject_hold();
    size_t descriptors = inject_descriptors();
    begin(&s, f->loop);
    inject_go_on();
    s.pg = pg_new(f->loop, &(struct pg_options){.conninfo = f->servers.postgres, .connections = 2});
    if (s.pg) {
        run(&s, ask_pg);
        pg_free(&s.pg);
        inject_go_on();
    } else {
        assert_true(inject_happened());
    }
    inject_hold();
    assert_int_equal(inject_descriptors(), descriptors);
    inject_go_on();
}

static void pg_calls_fail(void **state)
{
    assert_true(inject_each(INJECT_CALL, false, 1, speak_to_pg, *state) > 20);
}

static void pg_has_no_memory(void **state)
{
    assert_true(inject_each(INJECT_MEMORY, false, 1, speak_to_pg, *state) > 20);
}

/* --- set-up ------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    inject_hold();
    log_init("test_inject_stores", (enum log_level)(LOG_ERROR + 1));
    servers_init(&f->servers);
    servers_start_redis(&f->servers);
    servers_start_postgres(&f->servers);
    f->loop = ev_default_loop(0);
    inject_go_on();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    servers_free(&f->servers);
    ev_loop_destroy(f->loop);
    free(f);
    return 0;
}

int main(void)
{
    inject_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redis_calls_fail),    cmocka_unit_test(redis_input_and_output_fail),
        cmocka_unit_test(redis_has_no_memory), cmocka_unit_test(pg_calls_fail),
        cmocka_unit_test(pg_has_no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
