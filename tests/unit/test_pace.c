/* Turns by the clock: how many are due when, what pauses, clocks and other leaders do to them, and when the rate grows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatcher/let_go.h"
#include "dispatcher/pace.h"

#define S 1000000ll

struct made {
    Muster__V1__Rate rate;
    Google__Protobuf__Duration per;
    Muster__V1__RateGrowth growth;
    struct pace pace;
};

static struct pace *make(struct made *m, uint32_t devices, int64_t per_s, uint32_t percent, uint32_t step,
                         uint32_t success, uint32_t maximum)
{
    muster__v1__rate__init(&m->rate);
    google__protobuf__duration__init(&m->per);
    muster__v1__rate_growth__init(&m->growth);
    m->rate.devices = devices;
    m->per.seconds = per_s;
    m->rate.per = per_s > 1 ? &m->per : NULL;
    m->growth.percent = percent;
    m->growth.devices = step;
    m->growth.success_percent = success;
    m->growth.maximum = maximum;
    m->rate.growth = percent ? &m->growth : NULL;
    pace_read(&m->pace, &m->rate);
    return &m->pace;
}

static uint32_t take(struct pace *p, int64_t now_us, bool runs)
{
    uint32_t n = pace_due(p, now_us, runs);
    pace_taken(p, n, false);
    return n;
}

/* What happens one after another, and how many turns have been taken then. */
enum { LOOKS = 8 };
struct look {
    int64_t at_ms; /* 0: no more */
    bool pause;    /* nothing may be sent since the look before */
    uint32_t all;
};

static void turns_follow_the_clock(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t devices;
        int64_t per_s;
        struct look looks[LOOKS];
    } cases[] = {
        /* evenly, the first at once */
        {10, 1, {{1000, 0, 1}, {1050, 0, 1}, {1100, 0, 2}, {1200, 0, 3}, {2000, 0, 11}}},
        {3, 60, {{1000, 0, 1}, {20900, 0, 1}, {21100, 0, 2}, {41100, 0, 3}}},
        {1, 3600, {{1000, 0, 1}, {1000000, 0, 1}, {3602000, 0, 2}}},
        {1000000, 1, {{1000, 0, 1}, {1001, 0, 1001}, {1200, 0, 200001}}},
        /* a leader that was busy makes up for a second, not for more */
        {10, 1, {{1000, 0, 1}, {11000, 0, 11}, {11100, 0, 12}}},
        {1, 60, {{1000, 0, 1}, {601000, 0, 2}, {630000, 0, 2}, {661000, 0, 3}}},
        /* a pause brings no turns, and what was left of one before it is kept */
        {10, 1, {{1000, 0, 1}, {1050, 0, 1}, {90000, 1, 1}, {90060, 0, 2}, {90150, 0, 3}}},
        {1, 60, {{1000, 0, 1}, {31000, 0, 1}, {999000, 1, 1}, {1020000, 0, 1}, {1029500, 0, 2}}},
        /* a clock that stands still or goes back (this one never should) brings none, and takes none */
        {10, 1, {{5000, 0, 1}, {5000, 0, 1}, {4000, 0, 1}, {4100, 0, 2}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made m = {0};
        struct pace *p = make(&m, cases[i].devices, cases[i].per_s, 0, 0, 0, 0);
        uint32_t all = 0;
        for (int k = 0; k < LOOKS && cases[i].looks[k].at_ms; k++) {
            const struct look *look = &cases[i].looks[k];
            all += take(p, look->at_ms * 1000, !look->pause);
            if (all != look->all)
                fail_msg("case %zu, look %d: %u turns", i, k, all);
        }
    }
}

/* Another leader goes on: at once with at most one device, however long ago the last turn was, or was not. */
static void another_leader_goes_on(void **unused)
{
    (void)unused;
    static const struct {
        int64_t since_ms;
        uint32_t now, second;
    } cases[] = {
        {0, 0, 10}, {50, 0, 10}, {100, 1, 11}, {1000, 1, 11}, {1ll << 50, 1, 11}, {-3600000, 0, 10},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made m = {0};
        struct pace *p = make(&m, 10, 1, 0, 0, 0, 0);
        pace_resume(p, cases[i].since_ms, 5 * S);
        assert_int_equal(take(p, 5 * S, true), cases[i].now);
        uint32_t n = cases[i].now;
        for (int k = 1; k <= 10; k++)
            n += take(p, 5 * S + k * S / 10, true);
        assert_int_equal(n, cases[i].second);
    }
}

static void nobody_there_saves_nothing_up(void **unused)
{
    (void)unused;
    struct made m = {0};
    struct pace *p = make(&m, 100, 1, 0, 0, 0, 0);
    take(p, 1 * S, true);
    assert_int_equal(pace_due(p, 2 * S, true), 100);
    pace_taken(p, 3, true); /* all others are behind a closed window */
    assert_int_equal(pace_due(p, 2 * S, true), 1);
}

static void the_rate_grows_with_success(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t succeeded, failed, expired, steps; /* outcomes so far; steps taken then */
        uint32_t rate;                              /* in a second */
    } looks[] = {
        {0, 0, 0, 0, 10},     {99, 0, 500, 0, 10}, {100, 0, 500, 1, 20}, /* what expired has no outcome */
        {100, 0, 500, 1, 20}, {190, 0, 0, 1, 20},  {190, 10, 0, 1, 20},  /* 90 of 100: it stays */
        {270, 10, 0, 1, 20},  {290, 10, 0, 2, 40},                       /* until 95 of 100 are good */
        {390, 10, 0, 3, 50},  {900, 10, 0, 3, 50},                       /* that is all */
    };
    struct made m = {0};
    struct pace *p = make(&m, 10, 1, 200, 100, 95, 50);
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        const uint32_t counts[STATE_COUNT] = {[STATE_SUCCEEDED] = looks[i].succeeded,
                                              [STATE_FAILED] = looks[i].failed,
                                              [STATE_EXPIRED] = looks[i].expired};
        if (pace_may_step(p, counts))
            pace_step(p, counts);
        assert_int_equal(p->steps, looks[i].steps);
        assert_int_equal(pace_rate(p) * 1000 + 0.5, looks[i].rate);
    }
}

/* Outcomes that the leader before has counted, and that Redis has lost since, come once more. */
static void what_was_lost_is_no_step(void **unused)
{
    (void)unused;
    struct made m = {0};
    struct pace *p = make(&m, 10, 1, 200, 100, 95, 50);
    const uint32_t before[STATE_COUNT] = {[STATE_SUCCEEDED] = 200}, lost[STATE_COUNT] = {[STATE_SUCCEEDED] = 190},
                   some[STATE_COUNT] = {[STATE_SUCCEEDED] = 195, [STATE_FAILED] = 110};
    assert_true(pace_may_step(p, before));
    pace_step(p, before);
    assert_false(pace_may_step(p, lost));
    assert_false(pace_may_step(p, some));
}

static void the_least_time_is_told(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t devices, per_s, percent, step, maximum, batch, seconds;
    } cases[] = {
        {10, 1, 0, 0, 0, 1, 0},
        {10, 1, 0, 0, 0, 101, 10},
        {1, 3600, 0, 0, 0, 11, 36000},
        {10, 1, 200, 100, 0, 101, 10},
        {10, 1, 200, 100, 0, 301, 17},         /* 100 in 10, 100 in 5, 100 in 2.5 */
        {10, 1, 200, 100, 20, 301, 20},        /* 100 in 10, 200 at most */
        {1, 3600, 101, 1, 0, 1000000, 366000}, /* it ends, too */
        {0, 1, 0, 0, 0, 1000, 0},              /* no rate */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made m = {0};
        struct pace *p =
            make(&m, cases[i].devices, cases[i].per_s, cases[i].percent, cases[i].step, 1, cases[i].maximum);
        double s = pace_least_ms(p, cases[i].batch) / 1000;
        if (s < cases[i].seconds * 0.98 || s > cases[i].seconds * 1.02 + 0.5)
            fail_msg("case %zu: %f s", i, s);
    }
}

/* --- who has them ------------------------------------------------------------------------------------------------- */

struct fleet {
    struct bitmap may[4];
};

static void may(void *arg, uint32_t at, struct bitmap *slots)
{
    *slots = ((struct fleet *)arg)->may[at];
}

static void fill(struct bitmap *b, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        bitmap_set(b, i);
}

static void each_has_one_turn(void **unused)
{
    (void)unused;
    struct fleet f = {0};
    struct bitmap got;
    struct let_go *l = let_go_new(4);
    assert_non_null(l);
    fill(&f.may[0], 0, 10);
    fill(&f.may[2], 500, 510);
    fill(&f.may[3], 1014, 1024);
    assert_int_equal(let_go_choose(l, 4, may, &f), 4);
    assert_int_equal(l->chosen_count, 1);
    assert_false(let_go_take(l, 0, &got)); /* not written yet */
    let_go_written(l);
    assert_true(let_go_take(l, 0, &got));
    assert_int_equal(bitmap_count(&got), 4);
    assert_int_equal(bitmap_last(&got), 3);
    assert_false(let_go_take(l, 0, &got));
    assert_int_equal(let_go_choose(l, 20, may, &f), 20);
    assert_int_equal(l->chosen_count, 3);
    assert_int_equal(l->chosen[2].at, 3);
    let_go_written(l);
    assert_int_equal(l->fresh_count, 3);
    assert_int_equal(let_go_choose(l, 20, may, &f), 6); /* all that are left */
    let_go_written(l);
    assert_int_equal(let_go_choose(l, 20, may, &f), 0);
    fill(&f.may[1], 7, 8); /* a window has opened */
    assert_int_equal(let_go_choose(l, 20, may, &f), 0);
    let_go_again(l);
    assert_int_equal(let_go_choose(l, 20, may, &f), 1);
    let_go_free(&l);
}

/* What was chosen and not written comes again: nobody is forgotten, whatever became of the write. */
static void a_write_that_failed_is_repeated(void **unused)
{
    (void)unused;
    struct fleet f = {0};
    struct let_go *l = let_go_new(4);
    assert_non_null(l);
    for (int i = 0; i < 4; i++)
        fill(&f.may[i], 0, 1024);
    assert_int_equal(let_go_choose(l, 1500, may, &f), 1500);
    let_go_put(l, 0, &f.may[0]); /* as it is read again: the first block had been written */
    let_go_again(l);
    assert_int_equal(let_go_choose(l, 1500, may, &f), 1500);
    assert_int_equal(l->chosen[0].at, 1);
    let_go_written(l);
    assert_true(let_go_extend(l, 9)); /* devices have joined */
    assert_int_equal(l->fresh_count, 2);
    assert_int_equal(let_go_choose(l, 5000, may, &(struct fleet[3]){f}), 3 * 1024 - 1500);
    let_go_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_follow_the_clock),
        cmocka_unit_test(another_leader_goes_on),
        cmocka_unit_test(nobody_there_saves_nothing_up),
        cmocka_unit_test(the_rate_grows_with_success),
        cmocka_unit_test(what_was_lost_is_no_step),
        cmocka_unit_test(the_least_time_is_told),
        cmocka_unit_test(each_has_one_turn),
        cmocka_unit_test(a_write_that_failed_is_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
