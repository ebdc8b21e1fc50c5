/* The hours of a batch on a clock that the test turns: not before, windows, timeouts, in the leader, whatever the
 * machine's time of day does meanwhile. PostgreSQL and what is done to blocks stand in for themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "dispatcher/control_time.h"
#include "dispatcher/leader_walk.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/pg_internal.h"

#define S   1000ll
#define MIN (60 * S)
#define H   (60 * MIN)
/* 2026-11-25 12:00 UTC, and what the steady clock shows then. */
#define BEGIN     1795780800000ll
#define STEADY_US 7000000ll

/* --- the world ---------------------------------------------------------------------------------------------------- */

static struct world {
    int64_t passed_ms, off_ms; /* since BEGIN; by so much the machine's time of day is wrong */
    struct asked {             /* of PostgreSQL; its callback is NULL when nothing is */
        pg_done_fn *done;
        void *arg;
    } windows, time;
    int overdue, overtime; /* walks */
    struct bitmap late;    /* of the last overtime walk */
} world;

int64_t clock_wall_ms(void)
{
    return BEGIN + world.passed_ms + world.off_ms;
}

int64_t clock_mono_us(void)
{
    return STEADY_US + world.passed_ms * 1000;
}

void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg)
{
    struct asked *asked = strcmp(txn->calls[0].stmt->name, "clock_read") == 0 ? &world.time : &world.windows;
    assert_null(asked->done);
    *asked = (struct asked){done, arg};
    pg_txn_free(&txn);
}

bool reign_back(struct reign *r)
{
    r->refs--;
    return !r->over;
}

bool live_up(const struct live *live)
{
    (void)live;
    return true;
}

unsigned walk_batch(struct reign *r, struct open_batch *batch, enum command_event event, walk_done_fn *done)
{
    (void)r, (void)batch, (void)done;
    assert_int_equal(event, EVENT_OVERDUE);
    world.overdue++;
    return 0;
}

void walk_unknown(struct reign *r, struct open_batch *batch, enum command_event event)
{
    (void)r, (void)batch;
    assert_int_equal(event, EVENT_OVERDUE);
    world.overdue++;
}

void walk_block(struct reign *r, struct open_block *b, enum command_event event, const struct bitmap *only,
                walk_done_fn *done)
{
    (void)r, (void)b, (void)done;
    assert_int_equal(event, EVENT_OVERTIME);
    world.late = *only;
    world.overtime++;
}

void walker_pump(struct reign *r)
{
    (void)r;
}

/* --- what PostgreSQL says ----------------------------------------------------------------------------------------- */

static void put_cell(PGresult *r, int row, int col, const char *text, int64_t number, int bytes)
{
    uint8_t be[8];
    for (int i = 0; i < 8; i++)
        be[i] = (uint8_t)((uint64_t)number >> (56 - 8 * i));
    if (text)
        assert_true(PQsetvalue(r, row, col, (char *)(uintptr_t)text, (int)strlen(text)));
    else
        assert_true(PQsetvalue(r, row, col, (char *)be + 8 - bytes, bytes));
}

static PGresult *result(int columns)
{
    static PGresAttDesc attributes[3];
    for (int i = 0; i < 3; i++)
        attributes[i] = (PGresAttDesc){.name = (char *)"c", .format = 1};
    PGresult *r = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    assert_true(r && PQsetResultAttrs(r, columns, attributes));
    return r;
}

static void answer(struct asked *to, PGresult *first, PGresult *second)
{
    const struct pg_result *results[] = {(const void *)first, (const void *)second};
    struct asked asked = *to;
    assert_non_null(asked.done);
    to->done = NULL;
    asked.done(asked.arg, ERR_OK, NULL, results, 2);
    PQclear(first);
    PQclear(second);
}

/* The window of the default zone, by offsets from BEGIN; nobody has a zone of his own. opens < 0 and closes 0: none. */
static void say_window(int64_t opens_ms, int64_t closes_ms)
{
    PGresult *windows = result(3);
    put_cell(windows, 0, 0, "UTC", 0, 0);
    if (closes_ms) {
        put_cell(windows, 0, 1, NULL, BEGIN + opens_ms, 8);
        put_cell(windows, 0, 2, NULL, BEGIN + closes_ms, 8);
    } else {
        PQsetvalue(windows, 0, 1, NULL, -1);
        PQsetvalue(windows, 0, 2, NULL, -1);
    }
    answer(&world.windows, windows, result(3));
}

static void say_time(int64_t off_ms)
{
    PGresult *time = result(1);
    put_cell(time, 0, 0, NULL, BEGIN + world.passed_ms + off_ms, 8);
    answer(&world.time, time, result(1));
}

/* --- a batch ------------------------------------------------------------------------------------------------------ */

struct fixture {
    struct reign reign;
    struct open_batch *batch;
    struct open_set set;
    struct control_time *time;
};

static void begin(struct fixture *f, const struct db_steer *steer)
{
    static const uint8_t all = 0x0e;
    memset(&world, 0, sizeof world);
    memset(f, 0, sizeof *f);
    open_set_init(&f->set);
    f->batch = open_set_add(&f->set, 1, 1, 1);
    assert_non_null(f->batch);
    f->batch->tenant = 1;
    f->batch->created_ms = BEGIN;
    f->batch->touched = true;
    assert_true(open_batch_put(&f->set, f->batch, 0, 0, (struct slice){&all, 1}, (struct slice){0}));
    f->reign.loaded = f->reign.live_ready = true;
    f->reign.clock = db_clock_new(NULL);
    f->time = control_time_new(&f->reign, f->batch, steer);
    assert_non_null(f->time);
}

static void end(struct fixture *f)
{
    control_time_free(&f->time);
    db_clock_free(&f->reign.clock);
    open_set_free(&f->set);
}

/* A tick at a moment, the machine's time of day being off; PostgreSQL judges it, by its own that is right. */
static bool tick(struct fixture *f, int64_t passed_ms, int64_t off_ms)
{
    world.passed_ms = passed_ms;
    world.off_ms = off_ms;
    bool news = control_time_tick(f->time);
    if (world.time.done) {
        say_time(0);
        news = control_time_tick(f->time) || news;
    }
    return news;
}

/* --- not before --------------------------------------------------------------------------------------------------- */

/* Each tick: when, how wrong the clock is then, and whether the batch may be sent. */
struct look {
    int64_t passed_ms, off_ms;
    bool may;
};

static void not_before_waits_for_its_moment_alone(void **unused)
{
    (void)unused;
    static const struct {
        const char *what;
        struct look looks[7];
    } cases[] = {
        {"its moment", {{0, 0, false}, {10 * MIN - 1, 0, false}, {10 * MIN, 0, true}, {H, 0, true}, {-1, 0, false}}},
        {"an hour ahead while it waits",
         {{0, 0, false},
          {S, H, false},
          {5 * MIN, H, false},
          {10 * MIN - 1, H, false},
          {10 * MIN, H, true},
          {-1, 0, false}}},
        {"an hour back while it waits",
         {{0, 0, false}, {S, -H, false}, {10 * MIN - 1, -H, false}, {10 * MIN, -H, true}, {-1, 0, false}}},
        {"ahead, back, and right again",
         {{0, 0, false}, {S, H, false}, {2 * S, -H, false}, {3 * S, 0, false}, {10 * MIN, 0, true}, {-1, 0, false}}},
        {"an hour back when it has been sent",
         {{0, 0, false}, {10 * MIN, 0, true}, {11 * MIN, -H, true}, {-1, 0, false}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        begin(&f, &(struct db_steer){.not_before_ms = BEGIN + 10 * MIN});
        for (const struct look *l = cases[i].looks; l->passed_ms >= 0; l++) {
            tick(&f, l->passed_ms, l->off_ms);
            if (control_time_holds(f.time) == l->may)
                fail_msg("%s: after %lld ms", cases[i].what, (long long)l->passed_ms);
        }
        end(&f);
    }
}

/* The clock was wrong from the beginning, and is set right: PostgreSQL says so, and it is believed. */
static void a_clock_that_is_set_right_is_believed(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f, &(struct db_steer){.not_before_ms = BEGIN + 10 * MIN});
    db_clock_free(&f.reign.clock);
    world.off_ms = -H;
    f.reign.clock = db_clock_new(NULL);
    tick(&f, 11 * MIN, -H);
    assert_true(control_time_holds(f.time)); /* it knows no better */
    tick(&f, 12 * MIN, 0);
    assert_false(control_time_holds(f.time));
    end(&f);
}

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* 10 minutes to an hour after the beginning; it is read anew when it is over. */
static void a_window_opens_and_closes_whatever_the_clock_does(void **unused)
{
    (void)unused;
    static const struct {
        const char *what;
        struct look looks[9];
    } cases[] = {
        {"its edges",
         {{0, 0, false},
          {10 * MIN - 1, 0, false},
          {10 * MIN, 0, true},
          {H - 1, 0, true},
          {H, 0, false},
          {-1, 0, false}}},
        {"an hour ahead before",
         {{0, 0, false}, {S, H, false}, {9 * MIN, H, false}, {10 * MIN, H, true}, {-1, 0, false}}},
        {"an hour ahead inside",
         {{0, 0, false}, {20 * MIN, 0, true}, {21 * MIN, H, true}, {H, H, false}, {-1, 0, false}}},
        {"an hour back inside",
         {{0, 0, false}, {20 * MIN, 0, true}, {21 * MIN, -H, true}, {H, -H, false}, {-1, 0, false}}},
        {"an hour back after", {{0, 0, false}, {20 * MIN, 0, true}, {H, 0, false}, {H + S, -H, false}, {-1, 0, false}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        begin(&f, &(struct db_steer){.window = 1, .zone = "UTC"});
        for (const struct look *l = cases[i].looks; l->passed_ms >= 0; l++) {
            tick(&f, l->passed_ms, l->off_ms);
            if (world.windows.done) { /* at first, and when it is over */
                say_window(l->passed_ms < H ? 10 * MIN : 24 * H, l->passed_ms < H ? H : 25 * H);
                tick(&f, l->passed_ms, l->off_ms);
            }
            if (control_time_holds(f.time) == l->may)
                fail_msg("%s: after %lld ms", cases[i].what, (long long)l->passed_ms);
        }
        assert_null(world.windows.done);
        end(&f);
    }
}

/* It is held until it expires, which others see to; and it is looked once an hour whether there is one after all. */
static void a_window_that_never_opens_holds(void **unused)
{
    (void)unused;
    struct fixture f;
    int asked = 0;
    begin(&f, &(struct db_steer){.window = 1, .zone = "UTC"});
    for (int64_t ms = 0; ms < 3 * H; ms += 10 * S) {
        tick(&f, ms, 0);
        if (world.windows.done) {
            asked++;
            say_window(-1, 0);
        }
        assert_true(control_time_holds(f.time));
    }
    assert_int_equal(asked, 3);
    end(&f);
}

/* It goes while it is asked what windows there are: the answer finds nobody. */
static void one_that_ends_while_it_is_asked(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f, &(struct db_steer){.window = 1, .zone = "UTC"});
    tick(&f, 0, 0);
    assert_non_null(world.windows.done);
    control_time_free(&f.time);
    say_window(0, H);
    end(&f);
}

/* --- timeouts ----------------------------------------------------------------------------------------------------- */

/* What came back unsent is looked for from then on, again and again, and not before. */
static void what_is_overdue_is_looked_for_whatever_the_clock_does(void **unused)
{
    (void)unused;
    static const struct {
        const char *what;
        struct {
            int64_t passed_ms, off_ms;
            int walks; /* so far */
        } looks[8];
    } cases[] = {
        {"its moment",
         {{0, 0, 0}, {H - 1, 0, 0}, {H, 0, 1}, {H + S, 0, 1}, {H + 9 * S, 0, 1}, {H + 10 * S, 0, 2}, {-1, 0, 0}}},
        {"an hour ahead before: nothing ends early",
         {{0, 0, 0}, {MIN, H, 0}, {30 * MIN, H, 0}, {H, H, 1}, {H + 30 * S, 0, 2}, {H + 60 * S, -H, 3}, {-1, 0, 0}}},
        {"an hour back: nothing is left", {{0, 0, 0}, {MIN, -H, 0}, {H, -H, 1}, {H + 30 * S, -H, 2}, {-1, 0, 0}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        begin(&f, &(struct db_steer){.deliver_by_ms = BEGIN + H});
        for (size_t k = 0; cases[i].looks[k].passed_ms >= 0; k++) {
            tick(&f, cases[i].looks[k].passed_ms, cases[i].looks[k].off_ms);
            if (world.overdue != cases[i].looks[k].walks)
                fail_msg("%s: after %lld ms: %d", cases[i].what, (long long)cases[i].looks[k].passed_ms, world.overdue);
        }
        end(&f);
    }
}

/* Slot 1 was sent after a minute, slot 2 after two; both may take ten. A clock that steps neither ends one early nor
 * keeps one. */
static void what_takes_too_long_ends_in_its_minute(void **unused)
{
    (void)unused;
    static const int64_t offs[] = {0, H, -H};
    for (size_t i = 0; i < sizeof offs / sizeof *offs; i++) {
        struct fixture f;
        begin(&f, &(struct db_steer){.execution_ms = 10 * MIN});
        struct open_block *b = &f.batch->blocks[0];
        assert_true(open_block_merge(&f.set, b, 1, state_byte(STATE_SENT, 1), BEGIN + MIN));
        assert_true(open_block_merge(&f.set, b, 2, state_byte(STATE_SENT, 1), BEGIN + 2 * MIN));
        tick(&f, 3 * MIN, 0);
        tick(&f, 3 * MIN + S, offs[i]);
        tick(&f, 11 * MIN - S, offs[i]);
        assert_int_equal(world.overtime, 0);
        tick(&f, 11 * MIN, offs[i]);
        assert_int_equal(world.overtime, 1);
        assert_true(bitmap_test(&world.late, 1) && bitmap_count(&world.late) == 1);
        tick(&f, 11 * MIN + S / 2, offs[i]); /* not more often than each second */
        assert_int_equal(world.overtime, 1);
        tick(&f, 12 * MIN, offs[i]);
        assert_true(bitmap_count(&world.late) == 2);
        end(&f);
    }
}

int main(void)
{
    log_init("test_control_time", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(not_before_waits_for_its_moment_alone),
        cmocka_unit_test(a_clock_that_is_set_right_is_believed),
        cmocka_unit_test(a_window_opens_and_closes_whatever_the_clock_does),
        cmocka_unit_test(a_window_that_never_opens_holds),
        cmocka_unit_test(one_that_ends_while_it_is_asked),
        cmocka_unit_test(what_is_overdue_is_looked_for_whatever_the_clock_does),
        cmocka_unit_test(what_takes_too_long_ends_in_its_minute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
