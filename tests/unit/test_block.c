/* Bitmaps and state strings against the plain way of doing the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/store/block.h"

static struct bitmap random_bitmap(unsigned *seed, unsigned one_in)
{
    struct bitmap m = {{0}};
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        if ((unsigned)rand_r(seed) % one_in == 0)
            bitmap_set(&m, slot);
    return m;
}

static void walking_visits_every_set_slot_once(void **unused)
{
    (void)unused;
    unsigned seed = 1;
    for (unsigned one_in = 1; one_in < 3000; one_in = one_in * 3 + 1) {
        struct bitmap m = random_bitmap(&seed, one_in);
        unsigned n = 0, next = bitmap_next(&m, 0), last = BLOCK_SLOTS;
        for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
            if (bitmap_test(&m, slot)) {
                assert_int_equal(next, slot);
                next = bitmap_next(&m, slot + 1);
                last = slot;
                n++;
            }
        assert_int_equal(next, BLOCK_SLOTS);
        assert_int_equal(bitmap_count(&m), n);
        assert_int_equal(bitmap_last(&m), last);
    }
}

static void trimming_is_undone_by_untrimming(void **unused)
{
    (void)unused;
    unsigned seed = 7;
    for (int i = 0; i < 500; i++) {
        struct bitmap m = random_bitmap(&seed, 700), back;
        uint16_t first;
        struct slice kept = bitmap_trim(&m, &first);
        assert_int_equal(first % 8, 0);
        if (kept.len)
            assert_true(kept.data[0] && kept.data[kept.len - 1]);
        assert_true(bitmap_untrim(&back, first, kept));
        assert_memory_equal(&m, &back, sizeof m);
    }
}

static void untrimming_refuses_what_does_not_fit(void **unused)
{
    (void)unused;
    uint8_t bytes[BITMAP_BYTES + 1] = {0};
    struct bitmap m;
    assert_false(bitmap_untrim(&m, 4, (struct slice){bytes, 1}));
    assert_false(bitmap_untrim(&m, 8, (struct slice){bytes, BITMAP_BYTES}));
    assert_false(bitmap_untrim(&m, 0, (struct slice){bytes, BITMAP_BYTES + 1}));
    assert_false(bitmap_untrim(&m, 65528, (struct slice){bytes, 1}));
    assert_true(bitmap_untrim(&m, 1016, (struct slice){bytes, 1}));
}

static void set_operations_work_slot_by_slot(void **unused)
{
    (void)unused;
    unsigned seed = 3;
    struct bitmap a = random_bitmap(&seed, 2), b = random_bitmap(&seed, 3), both = a, rest = a;
    bitmap_or(&both, &b);
    bitmap_and_not(&rest, &b);
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++) {
        assert_int_equal(bitmap_test(&both, slot), bitmap_test(&a, slot) || bitmap_test(&b, slot));
        assert_int_equal(bitmap_test(&rest, slot), bitmap_test(&a, slot) && !bitmap_test(&b, slot));
    }
    bitmap_clear(&both, 5);
    assert_false(bitmap_test(&both, 5));
}

static void a_state_string_covers_the_span_and_no_more(void **unused)
{
    (void)unused;
    unsigned seed = 11;
    for (int i = 0; i < 300; i++) {
        struct bitmap m = random_bitmap(&seed, 1 + (unsigned)i * 4);
        struct buf out = {0};
        struct state_string s;
        state_string_put(&out, &m, STATE_QUEUED);
        if (bitmap_count(&m) == 0) {
            assert_int_equal(buf_len(&out), 0);
            continue;
        }
        assert_true(state_string_parse(&s, buf_slice(&out)));
        assert_int_equal(s.first, bitmap_next(&m, 0));
        assert_int_equal(s.first + s.count - 1, bitmap_last(&m));
        uint32_t counts[STATE_COUNT] = {0};
        state_count(counts, s.states, s.count);
        assert_int_equal(counts[STATE_QUEUED], bitmap_count(&m));
        for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
            assert_int_equal(state_string_get(&s, slot), bitmap_test(&m, slot) ? STATE_QUEUED : 0);
        buf_free(&out);
    }
}

static void one_device_makes_a_string_of_length_one(void **unused)
{
    (void)unused;
    struct bitmap m = {{0}};
    struct buf out = {0};
    bitmap_set(&m, 1023);
    state_string_put(&out, &m, STATE_QUEUED);
    assert_int_equal(buf_len(&out), STATE_STRING_HEADER + 1);
    buf_free(&out);
}

static void what_is_no_state_string_is_refused(void **unused)
{
    (void)unused;
    struct state_string s;
    const uint8_t empty[] = {1, 0, 0, 0}, version[] = {2, 0, 0, 0, 2}, beyond[] = {1, 0, 0xff, 0x03, 2, 2};
    const uint8_t reserved[] = {1, 1, 0, 0, 2};
    assert_false(state_string_parse(&s, (struct slice){empty, 0}));
    assert_false(state_string_parse(&s, (struct slice){empty, 4}));
    assert_false(state_string_parse(&s, (struct slice){version, 5}));
    assert_false(state_string_parse(&s, (struct slice){reserved, 5}));
    assert_false(state_string_parse(&s, (struct slice){beyond, 6}));
    assert_true(state_string_parse(&s, (struct slice){beyond, 5}));
}

static void what_was_given_is_counted(void **unused)
{
    (void)unused;
    const uint8_t given[] = {STATE_SENT | 0x10, STATE_SENT,         STATE_SUCCEEDED,     STATE_FAILED,
                             STATE_REJECTED,    STATE_TIMED_OUT,    STATE_HELD | 0x10,   STATE_QUEUED | 0xf0,
                             STATE_ROUTED | 16, STATE_EXPIRED | 16, STATE_CANCELED | 16, STATE_SUPERSEDED | 16};
    const uint8_t not_given[] = {STATE_NONE,    STATE_HELD,     STATE_QUEUED,    STATE_ROUTED,
                                 STATE_EXPIRED, STATE_CANCELED, STATE_SUPERSEDED};
    assert_int_equal(state_count_given(given, sizeof given), sizeof given);
    assert_int_equal(state_count_given(not_given, sizeof not_given), 0);
}

static void counting_ignores_what_is_no_state(void **unused)
{
    (void)unused;
    uint8_t bytes[] = {STATE_SENT, STATE_SENT | 0x30, 0xff, 0x0c, 0, STATE_FAILED, STATE_SENT | 0xf0};
    uint32_t counts[STATE_COUNT] = {0};
    state_count(counts, bytes, sizeof bytes);
    assert_int_equal(counts[STATE_SENT], 3);
    assert_int_equal(counts[STATE_FAILED], 1);
    assert_int_equal(counts[STATE_NONE], 1);
}

/* Runs of all lengths at all places, counted one by one. */
static void counting_in_runs_is_counting(void **unused)
{
    (void)unused;
    uint8_t bytes[BLOCK_SLOTS];
    uint32_t random = 1;
    for (unsigned round = 0; round < 200; round++) {
        uint32_t counts[STATE_COUNT] = {0}, want[STATE_COUNT] = {0};
        size_t n = round * 5 % (BLOCK_SLOTS + 1), left = 0;
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525 + 1013904223;
            left = left ? left - 1 : random >> 8 & 31;
            bytes[i] = left && i ? bytes[i - 1] : (uint8_t)(random >> 24);
            if ((bytes[i] & 15) < STATE_COUNT)
                want[bytes[i] & 15]++;
        }
        state_count(counts, bytes, n);
        assert_memory_equal(counts, want, sizeof want);
    }
}

static void reversing_bytes_moves_each_slot_within_its_byte(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++) {
        struct bitmap m = {{0}}, wanted = {{0}};
        bitmap_set(&m, slot);
        wanted.bytes[slot / 8] = (uint8_t)(0x80 >> slot % 8);
        bitmap_reverse_bytes(&m);
        assert_memory_equal(&m, &wanted, sizeof m);
        bitmap_reverse_bytes(&m);
        assert_true(bitmap_test(&m, slot));
        assert_int_equal(bitmap_count(&m), 1);
    }
}

static void and_keeps_what_both_have(void **state)
{
    (void)state;
    struct bitmap a = {{0}}, b = {{0}};
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++) {
        if (slot % 2)
            bitmap_set(&a, slot);
        if (slot % 3 == 0)
            bitmap_set(&b, slot);
    }
    bitmap_and(&a, &b);
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        assert_int_equal(bitmap_test(&a, slot), slot % 2 && slot % 3 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walking_visits_every_set_slot_once),
        cmocka_unit_test(trimming_is_undone_by_untrimming),
        cmocka_unit_test(untrimming_refuses_what_does_not_fit),
        cmocka_unit_test(set_operations_work_slot_by_slot),
        cmocka_unit_test(a_state_string_covers_the_span_and_no_more),
        cmocka_unit_test(one_device_makes_a_string_of_length_one),
        cmocka_unit_test(what_is_no_state_string_is_refused),
        cmocka_unit_test(what_was_given_is_counted),
        cmocka_unit_test(counting_ignores_what_is_no_state),
        cmocka_unit_test(counting_in_runs_is_counting),
        cmocka_unit_test(reversing_bytes_moves_each_slot_within_its_byte),
        cmocka_unit_test(and_keeps_what_both_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
