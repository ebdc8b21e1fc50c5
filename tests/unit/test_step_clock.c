/* The time of day that does not step: slewing is followed, steps wait for another clock's word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/step_clock.h"

#define H         3600000ll
#define BEGIN     1790000000000ll /* the time of day when the steady clock shows STEADY_US */
#define STEADY_US 5000000ll

/* A reading: both clocks since the beginning; then, if somebody is to be asked, what the other one shows. */
struct reading {
    int64_t after_ms, wall_ms; /* what has passed by the steady clock, and by the time of day */
    int64_t want_ms;           /* to go by */
    bool asks;
    int64_t other_ms; /* NOBODY: does not answer */
};
#define NOBODY INT64_MIN
#define END                                                                                                            \
    {                                                                                                                  \
        -1, 0, 0, false, 0                                                                                             \
    }

static void it_goes_by_what_was_not_a_step(void **unused)
{
    (void)unused;
    static const struct {
        const char *what;
        struct reading readings[8];
    } cases[] = {
        {"both go on", {{0, 0, 0, false, 0}, {10, 10, 10, false, 0}, {H, H, H, false, 0}, END}},
        {"slewed: followed", {{0, 0, 0, false, 0}, {1000, 1900, 1900, false, 0}, {2000, 3800, 3800, false, 0}, END}},
        {"held up between its readings",
         {{0, 0, 0, false, 0}, {1000, 200, 200, false, 0}, {2000, 2000, 2000, false, 0}, END}},
        {"an hour ahead, another says no: not believed, and asked again after a minute",
         {{0, 0, 0, false, 0},
          {1000, 1000 + H, 1000, true, 1000},
          {2000, 2000 + H, 2000, false, 0},
          {60999, 60999 + H, 60999, false, 0},
          {61000, 61000 + H, 61000, true, 61000},
          END}},
        {"an hour back",
         {{0, 0, 0, false, 0}, {1000, 1000 - H, 1000, true, 1040}, {2000, 2000 - H, 2000, false, 0}, END}},
        {"an hour back, another says yes: it was wrong before",
         {{0, 0, 0, false, 0}, {1000, 1000 - H, 1000, true, 1000 - H}, {2000, 2000 - H, 2000 - H, false, 0}, END}},
        {"nobody answers: asked each second, not believed",
         {{0, 0, 0, false, 0},
          {1000, 1000 + H, 1000, true, NOBODY},
          {1999, 1999 + H, 1999, false, 0},
          {2000, 2000 + H, 2000, true, NOBODY},
          {3000, 3000 + H, 3000, true, 3000 + H},
          {4000, 4000 + H, 4000 + H, false, 0},
          END}},
        {"it steps back by itself",
         {{0, 0, 0, false, 0},
          {1000, 1000 + H, 1000, true, NOBODY},
          {2000, 2100, 2100, false, 0},
          {3000, 3100 - H, 3100, true, 3000},
          END}},
        {"a second step, to what is right, after the first was refused",
         {{0, 5000, 5000, false, 0},
          {1000, 6000 + H, 6000, true, 1000},
          {62000, 62000, 67000, true, 62000},
          {63000, 63000, 63000, false, 0},
          END}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct step_clock c = {0};
        for (const struct reading *r = cases[i].readings; r->after_ms >= 0; r++) {
            int64_t steady_us = STEADY_US + r->after_ms * 1000;
            int64_t got = step_clock_ms(&c, BEGIN + r->wall_ms, steady_us);
            bool asks = step_clock_asks(&c, steady_us);
            if (got != BEGIN + r->want_ms || asks != r->asks)
                fail_msg("%s, after %lld ms: %lld, asks %d", cases[i].what, (long long)r->after_ms,
                         (long long)(got - BEGIN), asks);
            assert_false(step_clock_asks(&c, steady_us)); /* once */
            if (asks && r->other_ms != NOBODY)
                step_clock_judge(&c, BEGIN + r->other_ms, steady_us);
        }
    }
}

/* Whoever waits for a moment sees each once, in order: it never goes back by more than what it was slewed by. */
static void it_never_jumps_unasked(void **unused)
{
    (void)unused;
    struct step_clock c = {0};
    int64_t last = 0;
    for (int64_t ms = 0; ms < 100000; ms += 50) {
        int64_t off = ms / 1000 % 3 == 0 ? 0 : ms / 1000 % 3 == 1 ? H : -H;
        int64_t now = step_clock_ms(&c, BEGIN + ms + off, STEADY_US + ms * 1000);
        assert_true(now - last == 50 || ms == 0);
        last = now;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_by_what_was_not_a_step),
        cmocka_unit_test(it_never_jumps_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
