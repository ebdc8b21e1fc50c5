/* The window of commands sent a moment ago: what is answered leaves it, and what is not is forgotten; and who is given
 * some while many are unanswered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/share.h"
#include "workers/window.h"

#define SPAN ((int64_t)1 << WINDOW_SPAN_US_LOG2)
/* Some time after the clock's zero, at the beginning of a span. */
#define BEGIN (1000 * SPAN)

static void what_is_answered_leaves(void **state)
{
    struct window w = {0};
    (void)state;
    for (int i = 0; i < 3; i++)
        window_sent(&w, BEGIN + i);
    assert_int_equal(window_count(&w, BEGIN + 10), 3);
    window_answered(&w, BEGIN + 10, 10);
    assert_int_equal(window_count(&w, BEGIN + 10), 2);
    /* In the next span too. */
    window_answered(&w, BEGIN + SPAN, (uint32_t)SPAN);
    assert_int_equal(window_count(&w, BEGIN + SPAN), 1);
}

static void what_is_unanswered_is_forgotten(void **state)
{
    (void)state;
    for (int64_t at = 0; at < SPAN; at += SPAN / 7) {
        struct window w = {0};
        window_sent(&w, BEGIN + at);
        assert_int_equal(window_count(&w, BEGIN + at + SPAN), 1);
        assert_int_equal(window_count(&w, BEGIN + 2 * SPAN), 0);
    }
}

static void a_long_pause_empties_it(void **state)
{
    (void)state;
    for (int spans = 2; spans < 6; spans++) {
        struct window w = {0};
        window_sent(&w, BEGIN);
        window_sent(&w, BEGIN + SPAN);
        assert_int_equal(window_count(&w, BEGIN + (1 + spans) * SPAN), 0);
    }
}

static void a_late_answer_takes_nothing_from_others(void **state)
{
    struct window w = {0};
    (void)state;
    window_sent(&w, BEGIN);
    window_sent(&w, BEGIN + 2 * SPAN); /* where the first one stood */
    window_answered(&w, BEGIN + 2 * SPAN, (uint32_t)(2 * SPAN));
    assert_int_equal(window_count(&w, BEGIN + 2 * SPAN), 1);
    window_answered(&w, BEGIN + 2 * SPAN, 0);
    window_answered(&w, BEGIN + 2 * SPAN, 0); /* nothing that was sent through it */
    assert_int_equal(window_count(&w, BEGIN + 2 * SPAN), 0);
}

/* Whoever has sent much waits first; what is urgent last. */
static void who_is_given_what(void **state)
{
    static const struct {
        uint32_t unanswered;
        unsigned given;
        enum share urgent, others;
    } expected[] = {
        {0, 0, SHARE_ANYBODY, SHARE_ANYBODY},
        {SHARE_OTHERS, 0, SHARE_ANYBODY, SHARE_LITTLE_ONLY},
        {SHARE_LITTLE, 0, SHARE_ANYBODY, SHARE_NOBODY},
        {SHARE_URGENT, 0, SHARE_NOBODY, SHARE_NOBODY},
        {0, SHARE_PER_TURN, SHARE_LITTLE_ONLY, SHARE_LITTLE_ONLY},
        {SHARE_LITTLE, SHARE_PER_TURN, SHARE_LITTLE_ONLY, SHARE_NOBODY},
        {0, SHARE_PER_TURN + SHARE_HURRIED_PER_TURN, SHARE_NOBODY, SHARE_NOBODY},
    };
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(share_now(true, expected[i].unanswered, expected[i].given), expected[i].urgent);
        assert_int_equal(share_now(false, expected[i].unanswered, expected[i].given), expected[i].others);
    }
    assert_int_equal(share_most(SHARE_PER_TURN - 1), 1);
    assert_int_equal(share_most(SHARE_PER_TURN), SHARE_HURRIED_PER_TURN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_answered_leaves), cmocka_unit_test(what_is_unanswered_is_forgotten),
        cmocka_unit_test(a_long_pause_empties_it), cmocka_unit_test(a_late_answer_takes_nothing_from_others),
        cmocka_unit_test(who_is_given_what),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
