/* Which outcomes are tried again: what may be asked for, and how long it is waited. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/retry.h"
#include "dispatcher/retry_check.h"
#include "lib/store/state.h"

static Google__Protobuf__Duration initial, most;
static Muster__V1__Retry retry;

static int setup(void **state)
{
    (void)state;
    google__protobuf__duration__init(&initial);
    google__protobuf__duration__init(&most);
    muster__v1__retry__init(&retry);
    retry.failed = 1;
    retry.attempts = 3;
    return 0;
}

static void what_may_be_asked_for(void **unused)
{
    (void)unused;
    static const struct {
        bool failed, rejected, timed_out, execution;
        uint32_t attempts, factor;
        int64_t initial_s, most_s; /* 0: absent */
        const char *wrong;         /* NULL: it is good */
    } cases[] = {
        {true, false, false, false, 2, 0, 0, 0, NULL},
        {false, true, false, false, 15, 10, 1, 86400, NULL},
        {false, false, true, true, 3, 1, 86400, 0, NULL},
        {true, true, true, true, 3, 2, 60, 60, NULL},
        {false, false, false, true, 3, 0, 0, 0, "retry"},
        {false, false, true, false, 3, 0, 0, 0, "retry.timed_out"},
        {true, false, false, false, 0, 0, 0, 0, "retry.attempts"},
        {true, false, false, false, 1, 0, 0, 0, "retry.attempts"},
        {true, false, false, false, 16, 0, 0, 0, "retry.attempts"},
        {true, false, false, false, 3, 11, 0, 0, "retry.factor"},
        {true, false, false, false, 3, 0, -1, 0, "retry.initial"},
        {true, false, false, false, 3, 0, 86401, 0, "retry.initial"},
        {true, false, false, false, 3, 0, 0, 86401, "retry.max"},
        {true, false, false, false, 3, 0, 60, 59, "retry.max"},
        {true, false, false, false, 3, 0, 0, 5, "retry.max"}, /* than the usual initial wait */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct status st = {0};
        setup(NULL);
        retry.failed = cases[i].failed;
        retry.rejected = cases[i].rejected;
        retry.timed_out = cases[i].timed_out;
        retry.attempts = cases[i].attempts;
        retry.factor = cases[i].factor;
        initial.seconds = cases[i].initial_s;
        most.seconds = cases[i].most_s;
        retry.initial = cases[i].initial_s ? &initial : NULL;
        retry.max = cases[i].most_s ? &most : NULL;
        retry_check(&st, &retry, cases[i].execution);
        assert_int_equal(st.violation_count, cases[i].wrong ? 1 : 0);
        if (cases[i].wrong)
            assert_string_equal(st.violations[0].field, cases[i].wrong);
    }
}

static void what_is_absent_is_filled_in(void **unused)
{
    (void)unused;
    struct db_retry r;
    retry_read(&r, &retry);
    assert_int_equal(r.after, 1 << STATE_FAILED);
    assert_true(r.attempts == 3 && r.factor == 2 && r.initial_ms == 10000 && r.max_ms == 3600000);
    initial.seconds = 7200;
    retry.initial = &initial;
    retry.rejected = retry.timed_out = 1;
    retry.factor = 7;
    retry_read(&r, &retry);
    assert_int_equal(r.after, 1 << STATE_FAILED | 1 << STATE_REJECTED | 1 << STATE_TIMED_OUT);
    assert_true(r.factor == 7 && r.initial_ms == 7200000 && r.max_ms == 7200000);
    struct arena a = {0};
    Muster__V1__Retry *out = retry_present(&a, &r);
    assert_non_null(out);
    struct db_retry again;
    retry_read(&again, out);
    assert_memory_equal(&again, &r, sizeof r);
    r.after = 0;
    assert_null(retry_present(&a, &r));
    arena_free(&a);
}

static void waits_grow_and_differ(void **unused)
{
    (void)unused;
    const struct db_retry r = {.after = 1, .attempts = 15, .factor = 3, .initial_ms = 1000, .max_ms = 60000};
    static const int64_t about[] = {1000, 3000, 9000, 27000, 60000, 60000};
    for (unsigned attempts = 1; attempts <= 15; attempts++) {
        int64_t ms = about[attempts <= 6 ? attempts - 1 : 5], least = INT64_MAX, longest = 0, sum = 0;
        for (uint32_t seq = 0; seq < 1000; seq++) {
            int64_t wait = retry_wait_ms(&r, attempts, 17, seq);
            assert_int_equal(wait, retry_wait_ms(&r, attempts, 17, seq));
            least = wait < least ? wait : least;
            longest = wait > longest ? wait : longest;
            sum += wait;
        }
        assert_true(least >= ms * 80 / 100 && longest <= ms * 120 / 100);
        assert_true(least < ms * 81 / 100 && longest > ms * 119 / 100);
        assert_true(sum / 1000 > ms * 98 / 100 && sum / 1000 < ms * 102 / 100);
    }
    assert_true(retry_wait_ms(&r, 1, 17, 3) != retry_wait_ms(&r, 1, 18, 3));
    const struct db_retry flat = {.after = 1, .attempts = 15, .factor = 1, .initial_ms = 86400000, .max_ms = 86400000};
    assert_true(retry_wait_ms(&flat, 15, UINT64_MAX, UINT32_MAX) <= 86400000 * 6 / 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_may_be_asked_for, setup),
        cmocka_unit_test_setup(what_is_absent_is_filled_in, setup),
        cmocka_unit_test(waits_grow_and_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
