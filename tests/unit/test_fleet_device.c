/* The pure parts of a simulated device: its memory of commands, its timers, its decisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/fleet/behaviour.h"
#include "bench/fleet/commands.h"
#include "bench/fleet/timers.h"

static void make_id(uint8_t id[UUID_BYTES], uint64_t n)
{
    store_u64le(id, n + 1);
    store_u64le(id + 8, behaviour_mix(n));
}

static void test_memory_remembers(void **state)
{
    (void)state;
    struct commands m = {0};
    uint8_t id[UUID_BYTES];

    for (unsigned i = 0; i < 5000; i++) {
        make_id(id, i);
        assert_null(commands_find(&m, id));
        struct command *c = commands_add(&m, id);
        assert_non_null(c);
        c->received = (uint16_t)(i + 1);
    }
    for (unsigned i = 0; i < 5000; i++) {
        make_id(id, i);
        assert_int_equal(commands_find(&m, id)->received, i + 1);
        assert_ptr_equal(commands_add(&m, id), commands_find(&m, id));
    }
    assert_int_equal(m.count, 5000);
    memset(id, 0, sizeof id);
    assert_null(commands_add(&m, id));
    commands_clear(&m);
    assert_int_equal(m.count, 0);
}

/* Against the plainest model: an array of times. */
static void test_timers_in_order(void **state)
{
    (void)state;
    enum { ITEMS = 200 };
    struct timers *t = timers_new(ITEMS);
    int64_t due[ITEMS];
    uint64_t random = 1;

    for (int i = 0; i < ITEMS; i++)
        due[i] = INT64_MAX;
    for (int step = 0; step < 20000; step++) {
        uint32_t item = (uint32_t)(behaviour_mix(random++) % ITEMS);
        int64_t at = (int64_t)(behaviour_mix(random++) % 1000);
        switch (behaviour_mix(random++) % 4) {
        case 0:
            timers_clear(t, item);
            due[item] = INT64_MAX;
            break;
        case 1:
            timers_sooner(t, item, at);
            due[item] = at < due[item] ? at : due[item];
            break;
        default:
            timers_set(t, item, at);
            due[item] = at;
        }
        int64_t first = INT64_MAX;
        for (int i = 0; i < ITEMS; i++)
            first = due[i] < first ? due[i] : first;
        assert_int_equal(timers_first(t), first);
    }
    int64_t last = 0;
    for (uint32_t item; timers_take(t, 1000, &item);) {
        assert_true(due[item] >= last && due[item] != INT64_MAX);
        last = due[item];
        due[item] = INT64_MAX;
    }
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(due[i], INT64_MAX);
    timers_free(&t);
    assert_null(t);
}

static void test_shares(void **state)
{
    (void)state;
    const struct behaviour b = {.seed = 7,
                                .failed = 0.1,
                                .rejected = 0.05,
                                .crash = 0.2,
                                .duplicate = 0.3,
                                .think_min_us = 10,
                                .think_max_us = 20};
    uint64_t device = behaviour_device(&b, "phone-1");
    int outcomes[5] = {0}, crashes = 0, duplicates = 0;
    uint8_t id[UUID_BYTES];

    for (unsigned i = 0; i < 20000; i++) {
        make_id(id, i);
        enum outcome o = behaviour_outcome(&b, device, id, 1);
        assert_int_equal(o, behaviour_outcome(&b, device, id, 2));
        outcomes[o]++;
        crashes += behaviour_crash(&b, device, id, 1) != CRASH_NONE;
        duplicates += behaviour_duplicates(&b, device, id);
        int64_t think = behaviour_think_us(&b, device, id);
        assert_true(think >= 10 && think < 20);
    }
    assert_in_range(outcomes[OUTCOME_FAILED], 1800, 2200);
    assert_in_range(outcomes[OUTCOME_REJECTED], 850, 1150);
    assert_int_equal(outcomes[OUTCOME_NOT_NOW], 0);
    assert_in_range(crashes, 3700, 4300);
    assert_in_range(duplicates, 5700, 6300);
}

static void test_seeds_differ(void **state)
{
    (void)state;
    const struct behaviour one = {.seed = 1}, two = {.seed = 2};

    assert_true(behaviour_device(&one, "phone-1") != behaviour_device(&two, "phone-1"));
    assert_true(behaviour_device(&one, "phone-1") == behaviour_device(&one, "phone-1"));
    assert_false(behaviour_is_silent(&one, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_remembers),
        cmocka_unit_test(test_timers_in_order),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_seeds_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
