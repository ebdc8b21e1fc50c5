/* Sets of devices: from numbers, from blocks, joined and compared; and lists of ids with repetitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dispatcher/target_set.h"

static void test_fill(void **state)
{
    (void)state;
    const int64_t seqs[] = {5000, -1, 0, 1023, 1024, 5000, 7, -1, 4096};
    struct target_set set = {0};
    target_set_fill(&set, seqs, sizeof seqs / sizeof *seqs);
    assert_false(set.failed);
    assert_int_equal(set.count, 3);
    assert_int_equal(set.blocks[0].block, 0);
    assert_int_equal(set.blocks[1].block, 1);
    assert_int_equal(set.blocks[2].block, 4);
    assert_int_equal(target_set_count(&set), 6);
    assert_true(bitmap_test(&set.blocks[2].slots, 5000 - 4096));
    assert_true(bitmap_test(&set.blocks[2].slots, 0));
    assert_null(target_set_find(&set, 2));
    target_set_free(&set);
}

static void test_fill_nothing(void **state)
{
    (void)state;
    const int64_t seqs[] = {-1, -1};
    struct target_set set = {0};
    target_set_fill(&set, seqs, 2);
    target_set_fill(&set, seqs, 0);
    assert_int_equal(set.count, 0);
    assert_int_equal(target_set_count(&set), 0);
    target_set_free(&set);
}

static void test_add_joins(void **state)
{
    (void)state;
    struct target_set set = {0};
    struct bitmap m = {0}, empty = {0};
    bitmap_set(&m, 3);
    target_set_add(&set, 9, &m);
    target_set_add(&set, 2, &m);
    bitmap_set(&m, 4);
    target_set_add(&set, 9, &m);
    target_set_add(&set, 5, &m);
    target_set_add(&set, 6, &empty);
    assert_int_equal(set.count, 3);
    assert_int_equal(set.blocks[0].block, 2);
    assert_int_equal(set.blocks[1].block, 5);
    assert_int_equal(set.blocks[2].block, 9);
    assert_int_equal(target_set_count(&set), 5);
    assert_int_equal(target_set_common(&set, 9, &m), 2);
    assert_int_equal(target_set_common(&set, 2, &m), 1);
    assert_int_equal(target_set_common(&set, 7, &m), 0);
    target_set_free(&set);
}

static void test_many_blocks_backwards(void **state)
{
    (void)state;
    struct target_set set = {0};
    struct bitmap m = {0};
    bitmap_set(&m, 1023);
    for (uint32_t b = 1000; b-- > 0;)
        target_set_add(&set, b, &m);
    assert_int_equal(set.count, 1000);
    for (uint32_t b = 0; b < 1000; b++)
        assert_int_equal(set.blocks[b].block, b);
    target_set_free(&set);
}

static void test_unique(void **state)
{
    (void)state;
    const char *const ids[] = {"a", "b", "a", "c", "b", "a"};
    uint32_t kept[6];
    assert_int_equal(id_set_unique(ids, 6, false, kept), 3);
    assert_int_equal(kept[0], 0);
    assert_int_equal(kept[1], 1);
    assert_int_equal(kept[2], 3);
    assert_int_equal(id_set_unique(ids, 6, true, kept), 3);
    assert_int_equal(kept[0], 3);
    assert_int_equal(kept[1], 4);
    assert_int_equal(kept[2], 5);
    assert_int_equal(id_set_unique(ids, 0, false, kept), 0);
}

static void test_unique_many(void **state)
{
    (void)state;
    enum { N = 20000 };
    char(*text)[16] = calloc(N, sizeof *text);
    const char **ids = calloc(N, sizeof *ids);
    uint32_t *kept = calloc(N, sizeof *kept);
    for (unsigned i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "d%u", i % (N / 2));
        ids[i] = text[i];
    }
    assert_int_equal(id_set_unique(ids, N, false, kept), N / 2);
    for (unsigned i = 0; i < N / 2; i++)
        assert_int_equal(kept[i], i);
    free(text);
    free(ids);
    free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),      cmocka_unit_test(test_fill_nothing),
        cmocka_unit_test(test_unique),    cmocka_unit_test(test_many_blocks_backwards),
        cmocka_unit_test(test_add_joins), cmocka_unit_test(test_unique_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
