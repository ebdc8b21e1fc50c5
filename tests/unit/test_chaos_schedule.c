/* The schedule: the same for the same seed, all that was asked for, and no volley that hits one thing twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/chaos/schedule.h"

static void ask(unsigned count[FAULT_KINDS])
{
    for (int i = 0; i < FAULT_KINDS; i++)
        count[i] = i <= FAULT_KILL_POSTGRES ? 10 : 3;
}

static void test_the_same_seed_makes_the_same(void **state)
{
    unsigned count[FAULT_KINDS];
    struct schedule a, b, other;

    (void)state;
    ask(count);
    chaos_schedule_make(&a, 7, count);
    chaos_schedule_make(&b, 7, count);
    chaos_schedule_make(&other, 8, count);
    assert_int_equal(a.count, 40 + 3 * (FAULT_KINDS - 4));
    assert_memory_equal(a.faults, b.faults, a.count * sizeof *a.faults);
    assert_memory_not_equal(a.faults, other.faults, a.count * sizeof *a.faults);
    chaos_schedule_free(&a);
    chaos_schedule_free(&b);
    chaos_schedule_free(&other);
}

static void test_as_many_of_each_as_asked(void **state)
{
    unsigned count[FAULT_KINDS], found[FAULT_KINDS] = {0};
    struct schedule s;

    (void)state;
    ask(count);
    chaos_schedule_make(&s, 1, count);
    for (size_t i = 0; i < s.count; i++)
        found[s.faults[i].kind]++;
    assert_memory_equal(found, count, sizeof count);
    chaos_schedule_free(&s);
}

static void test_volleys_hit_nothing_twice(void **state)
{
    unsigned count[FAULT_KINDS];

    (void)state;
    ask(count);
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct schedule s;
        unsigned touched = 0, together = 0;
        chaos_schedule_make(&s, seed, count);
        for (size_t i = 0; i < s.count; i++) {
            const struct fault *f = &s.faults[i];
            const struct fault_kind_info *info = fault_kind_info(f->kind);
            assert_in_range(f->hold_ms, info->hold_min_ms, info->hold_max_ms);
            assert_false(i == 0 && f->together);
            assert_false(f->together && (touched & info->touches));
            touched = f->together ? touched | info->touches : info->touches;
            together += f->together;
        }
        assert_true(together > s.count / 10);
        chaos_schedule_free(&s);
    }
}

static void test_names(void **state)
{
    enum fault_kind kind;

    (void)state;
    for (int i = 0; i < FAULT_KINDS; i++) {
        assert_true(fault_kind_find(fault_kind_info((enum fault_kind)i)->name, &kind));
        assert_int_equal(kind, i);
    }
    assert_false(fault_kind_find("kill-nobody", &kind));
}

static void test_nothing_asked_for(void **state)
{
    const unsigned count[FAULT_KINDS] = {0};
    struct schedule s;

    (void)state;
    chaos_schedule_make(&s, 1, count);
    assert_int_equal(s.count, 0);
    chaos_schedule_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_seed_makes_the_same),
        cmocka_unit_test(test_as_many_of_each_as_asked),
        cmocka_unit_test(test_volleys_hit_nothing_twice),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_nothing_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
