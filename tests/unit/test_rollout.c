/* Waves and thresholds: which wave may be out, and whether too much has gone wrong, at each edge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatcher/rollout.h"
#include "dispatcher/steering.h"

enum release { NONE, SUCCESS, AFTER, HAND };
struct wave {
    char size; /* '%', 'd' or 'r': the rest */
    uint32_t n;
    enum release release;
    uint32_t value; /* percent, or seconds */
};

struct made {
    Muster__V1__Steering in;
    Muster__V1__Wave wave[ROLLOUT_WAVES], *waves[ROLLOUT_WAVES];
    Google__Protobuf__Duration after[ROLLOUT_WAVES];
    Muster__V1__Threshold threshold[2], *thresholds[2];
};

static void make(struct made *m, const struct wave *waves, size_t n)
{
    muster__v1__steering__init(&m->in);
    m->in.waves = m->waves;
    m->in.thresholds = m->thresholds;
    for (size_t i = 0; i < n; i++) {
        Muster__V1__Wave *w = m->waves[m->in.n_waves++] = &m->wave[i];
        muster__v1__wave__init(w);
        w->size_case = waves[i].size == '%'   ? MUSTER__V1__WAVE__SIZE_PERCENT
                       : waves[i].size == 'd' ? MUSTER__V1__WAVE__SIZE_DEVICES
                                              : MUSTER__V1__WAVE__SIZE__NOT_SET;
        w->percent = waves[i].n; /* one union */
        google__protobuf__duration__init(&m->after[i]);
        m->after[i].seconds = waves[i].value;
        static const Muster__V1__Wave__ReleaseCase cases[] = {
            [NONE] = MUSTER__V1__WAVE__RELEASE__NOT_SET,
            [SUCCESS] = MUSTER__V1__WAVE__RELEASE_SUCCESS_PERCENT,
            [AFTER] = MUSTER__V1__WAVE__RELEASE_AFTER,
            [HAND] = MUSTER__V1__WAVE__RELEASE_BY_HAND,
        };
        w->release_case = cases[waves[i].release];
        if (waves[i].release == SUCCESS)
            w->success_percent = waves[i].value;
        else if (waves[i].release == AFTER)
            w->after = &m->after[i];
        else
            w->by_hand = true;
    }
}

static const struct rollout_acted none;

static void limits_follow_from_sizes(void **unused)
{
    (void)unused;
    static const struct {
        struct wave waves[3];
        uint32_t devices, limits[3];
        bool too_large;
    } cases[] = {
        {{{'%', 1, NONE, 0}, {'%', 10, HAND, 0}, {'r', 0, HAND, 0}}, 1000, {10, 110, 1000}, false},
        {{{'%', 1, NONE, 0}, {'%', 10, HAND, 0}, {'r', 0, HAND, 0}}, 10, {1, 2, 10}, false}, /* rounded up */
        {{{'d', 5, NONE, 0}, {'d', 5, HAND, 0}, {'d', 1, HAND, 0}},
         100,
         {5, 10, 100},
         false}, /* the last takes the rest */
        {{{'d', 5, NONE, 0}, {'d', 5, HAND, 0}, {'r', 0, HAND, 0}}, 10, {5, 10, 10}, true},
        {{{'%', 50, NONE, 0}, {'%', 50, HAND, 0}, {'r', 0, HAND, 0}}, 100, {50, 100, 100}, true},
        {{{'%', 50, NONE, 0}, {'d', 50, HAND, 0}, {'%', 10, HAND, 0}}, 101, {51, 101, 101}, true},
        {{{'d', UINT32_MAX, NONE, 0}, {'d', UINT32_MAX, HAND, 0}, {'r', 0, HAND, 0}}, 3, {3, 3, 3}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made m = {0};
        struct rollout r;
        make(&m, cases[i].waves, 3);
        rollout_read(&r, &m.in, cases[i].devices, 0);
        for (int w = 0; w < 3; w++)
            assert_int_equal(r.wave[w].limit, cases[i].limits[w]);
        assert_int_equal(rollout_too_large(&r, cases[i].devices), cases[i].too_large);
    }
}

static void a_wave_is_released_at_its_edge(void **unused)
{
    (void)unused;
    static const struct {
        enum release release;
        uint32_t value, succeeded, by_hand;
        int64_t since_ms;
        uint32_t next;
    } cases[] = {
        {SUCCESS, 90, 8, 0, 0, 0},   {SUCCESS, 90, 9, 0, 0, 1}, /* of ten devices */
        {SUCCESS, 100, 9, 0, 0, 0},  {SUCCESS, 100, 10, 0, 0, 1},    {AFTER, 60, 10, 0, 59999, 0},
        {AFTER, 60, 0, 0, 60000, 1}, {HAND, 0, 10, 0, 1ll << 50, 0}, {HAND, 0, 0, 1, 0, 1},
        {SUCCESS, 90, 0, 1, 0, 1},   {AFTER, 60, 0, 1, 0, 1}, /* by hand before it is due */
        {AFTER, 60, 0, 0, -1000, 0},                          /* its time has not begun */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made m = {0};
        struct rollout r;
        struct rollout_counts counts = {.all = {[STATE_SUCCEEDED] = cases[i].succeeded}};
        make(&m, (const struct wave[]){{'d', 10, NONE, 0}, {'r', 0, cases[i].release, cases[i].value}}, 2);
        rollout_read(&r, &m.in, 1000, 0);
        assert_int_equal(rollout_next(&r, &counts, 0, cases[i].since_ms, cases[i].by_hand), cases[i].next);
        assert_int_equal(rollout_next(&r, &counts, 1, 1ll << 50, 9), 1); /* there is no third */
    }
}

static void a_threshold_is_reached_at_its_edge(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t percent, minimum, failed, rejected, timed_out, succeeded;
        bool reached;
    } cases[] = {
        {5, 100, 4, 0, 0, 95, false}, {5, 100, 5, 0, 0, 95, true}, /* too few, just enough */
        {5, 100, 4, 0, 0, 96, false}, {5, 100, 2, 2, 1, 95, true}, /* all that goes wrong counts */
        {5, 100, 99, 0, 0, 0, false}, {1, 0, 1, 0, 0, 99, true},   {1, 0, 0, 0, 0, 0, false},
        {100, 1, 1, 0, 0, 0, true}, /* nothing yet; all */
        {100, 1, 9, 0, 0, 1, false},  {1, 1, 0, 0, 0, 100, false}, {50, 1, 1u << 31, 0, 0, 1u << 30, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made m = {0};
        struct rollout r;
        struct rollout_counts counts = {{0}, {{0}}};
        make(&m, NULL, 0);
        m.in.n_thresholds = 1;
        m.thresholds[0] = &m.threshold[0];
        muster__v1__threshold__init(&m.threshold[0]);
        m.threshold[0].percent = cases[i].percent;
        m.threshold[0].minimum = cases[i].minimum;
        m.threshold[0].action = MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_ABORT;
        uint32_t *c = counts.all;
        for (int platform = 0; platform < 2; platform++) {
            c[STATE_FAILED] = cases[i].failed;
            c[STATE_REJECTED] = cases[i].rejected;
            c[STATE_TIMED_OUT] = cases[i].timed_out;
            c[STATE_SUCCEEDED] = cases[i].succeeded;
            c[STATE_EXPIRED] = c[STATE_CANCELED] = 1000; /* no outcomes */
            m.threshold[0].per_platform = platform;
            rollout_read(&r, &m.in, 1000, 0);
            struct rollout_verdict v = rollout_judge(&r, &counts, &none, 0);
            assert_int_equal(v.abort, cases[i].reached && !platform);
            assert_int_equal(v.stop, 0);
            assert_int_equal(v.cancel, cases[i].reached && platform ? 1u << 5 : 0);
            assert_null(
                rollout_judge(&r, &counts, &(struct rollout_acted){.all = 1}, 1u << 5).threshold); /* it acts once */
            c = counts.platform[5];
            if (!platform)
                continue;
            m.threshold[0].action = MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_PAUSE;
            rollout_read(&r, &m.in, 1000, 0);
            v = rollout_judge(&r, &counts, &none, 0);
            assert_int_equal(v.stop, cases[i].reached ? 1u << 5 : 0);
            assert_int_equal(v.cancel, 0);
            assert_null(rollout_judge(&r, &counts, &(struct rollout_acted){.platform = {[5] = 1}}, 0).threshold);
            assert_null(rollout_judge(&r, &counts, &none, 1u << 5).threshold);
        }
    }
}

/* By platform: a pause at 10 %, and the second at 50. */
static void two_thresholds(struct rollout *r, Muster__V1__ThresholdAction second)
{
    struct made m = {0};
    make(&m, NULL, 0);
    m.in.n_thresholds = 2;
    for (int i = 0; i < 2; i++) {
        m.thresholds[i] = &m.threshold[i];
        muster__v1__threshold__init(&m.threshold[i]);
        m.threshold[i].percent = i ? 50 : 10;
        m.threshold[i].per_platform = true;
        m.threshold[i].action = i ? second : MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_PAUSE;
    }
    rollout_read(r, &m.in, 1000, 0);
}

static void what_is_canceled_is_not_stopped(void **unused)
{
    (void)unused;
    struct rollout r = {0};
    struct rollout_counts counts = {{0}, {{0}}};
    two_thresholds(&r, MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_ABORT);
    counts.platform[1][STATE_FAILED] = 1;
    counts.platform[1][STATE_SUCCEEDED] = 9;
    counts.platform[5][STATE_FAILED] = 5;
    counts.platform[5][STATE_SUCCEEDED] = 5;
    struct rollout_verdict v = rollout_judge(&r, &counts, &none, 0);
    assert_int_equal(v.stop, 1u << 1);
    assert_int_equal(v.cancel, 1u << 5);
    const struct rollout_acted first = {.platform = {[1] = 1, [5] = 1}};
    v = rollout_judge(&r, &counts, &first, 0); /* what is, or was, stopped can still be canceled */
    assert_int_equal(v.stop, 0);
    assert_int_equal(v.cancel, 1u << 5);
    assert_null(rollout_judge(&r, &counts, &first, 1u << 5).threshold);
}

/* Also after somebody has let it go on. */
static void the_next_threshold_stops_a_platform_again(void **unused)
{
    (void)unused;
    struct rollout r = {0};
    struct rollout_counts counts = {{0}, {{0}}};
    two_thresholds(&r, MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_PAUSE);
    counts.platform[3][STATE_FAILED] = 1;
    counts.platform[3][STATE_SUCCEEDED] = 9;
    struct rollout_verdict v = rollout_judge(&r, &counts, &none, 0);
    assert_int_equal(v.stop, 1u << 3);
    assert_int_equal(v.acted.platform[3], 1);
    assert_int_equal(v.platform, 3);
    struct rollout_acted acted = v.acted;
    assert_null(rollout_judge(&r, &counts, &acted, 0).threshold);
    counts.platform[3][STATE_FAILED] = 9;
    v = rollout_judge(&r, &counts, &acted, 0);
    assert_int_equal(v.stop, 1u << 3);
    assert_int_equal(v.acted.platform[3], 2);
    acted.platform[3] |= v.acted.platform[3];
    assert_null(rollout_judge(&r, &counts, &acted, 0).threshold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_follow_from_sizes),
        cmocka_unit_test(a_wave_is_released_at_its_edge),
        cmocka_unit_test(a_threshold_is_reached_at_its_edge),
        cmocka_unit_test(what_is_canceled_is_not_stopped),
        cmocka_unit_test(the_next_threshold_stops_a_platform_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
