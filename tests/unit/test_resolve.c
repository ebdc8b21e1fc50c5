/* Sets of devices: from numbers, from blocks, joined and compared; and lists of ids with repetitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/sorted_ids.h"
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
    assert_non_null(text);
    assert_non_null(ids);
    assert_non_null(kept);
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

static void test_sorted(void **state)
{
    (void)state;
    const char *const ids[] = {"device-12", "device-1",         "device-",         "device-9",
                               "device-1",  "device-12345678x", "device-12345678", "device-12"};
    const char *const want[] = {"device-", "device-1", "device-12", "device-12345678", "device-12345678x", "device-9"};
    struct sorted_ids list = {0};
    assert_true(sorted_ids_fill(&list, ids, 8));
    assert_int_equal(list.count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(list.ids[i], want[i]);
        assert_ptr_equal(list.ids[i], ids[list.entries[i].place]);
    }
    assert_int_equal(list.entries[1].place, 1); /* of those repeated the first */
    sorted_ids_free(&list);
    assert_true(sorted_ids_fill(&list, ids, 0));
    assert_int_equal(list.count, 0);
    sorted_ids_free(&list);
    assert_true(sorted_ids_fill(&list, &ids[2], 1));
    assert_int_equal(list.count, 1);
    sorted_ids_free(&list);
}

/* Enough of them to be sorted by their keys, with ends beyond these, and each twice. */
static void test_sorted_many(void **state)
{
    (void)state;
    enum { N = 6000 };
    static char text[N][24];
    static const char *ids[N];
    for (unsigned i = 0; i < N; i++) {
        unsigned v = i % (N / 2) * 7919 % (N / 2);
        snprintf(text[i], sizeof text[i], v % 3 ? "p%u" : "p%08u-%u", v % 3 ? v : v / 30, v);
        ids[i] = text[i];
    }
    struct sorted_ids list = {0};
    assert_true(sorted_ids_fill(&list, ids, N));
    assert_int_equal(list.count, N / 2);
    for (size_t i = 0; i < list.count; i++) {
        assert_true(i == 0 || strcmp(list.ids[i - 1], list.ids[i]) < 0);
        assert_true(list.entries[i].place < N / 2);
        assert_ptr_equal(list.ids[i], ids[list.entries[i].place]);
    }
    sorted_ids_free(&list);
}

/* The first by their place in the request, not by their bytes. */
static void test_missing(void **state)
{
    (void)state;
    enum { N = 1000 };
    static char text[N][16];
    static const char *ids[N];
    static int64_t seqs[N];
    for (unsigned i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "d%03u", i * 7919 % N); /* a permutation */
        ids[i] = text[i];
    }
    struct sorted_ids list = {0};
    const char *missing[SORTED_IDS_MISSING_KEPT] = {0};
    assert_true(sorted_ids_fill(&list, ids, N));
    assert_int_equal(list.count, N);
    for (unsigned i = 0; i < N; i++)
        seqs[i] = list.entries[i].place % 3 == 1 ? -1 : (int64_t)i;
    assert_int_equal(sorted_ids_missing(&list, seqs, missing), N / 3);
    for (unsigned i = 0; i < SORTED_IDS_MISSING_KEPT; i++)
        assert_ptr_equal(missing[i], ids[3 * i + 1]);
    for (unsigned i = 0; i < N; i++)
        seqs[i] = list.entries[i].place == 500 || list.entries[i].place == 4 ? -1 : (int64_t)i;
    assert_int_equal(sorted_ids_missing(&list, seqs, missing), 2);
    assert_ptr_equal(missing[0], ids[4]);
    assert_ptr_equal(missing[1], ids[500]);
    sorted_ids_free(&list);
}

static void test_subtract(void **state)
{
    (void)state;
    const int64_t have[] = {1, 2, 1030, 2050, 2051}, less[] = {2, 5, 1030, 2050, 9000};
    struct target_set set = {0}, out = {0};
    target_set_fill(&set, have, 5);
    target_set_fill(&out, less, 5);
    target_set_subtract(&set, &out);
    assert_int_equal(target_set_count(&set), 2);
    assert_int_equal(set.count, 2); /* a block that became empty is gone */
    assert_int_equal(set.blocks[0].block, 0);
    assert_int_equal(set.blocks[1].block, 2);
    assert_true(bitmap_test(&set.blocks[1].slots, 3));
    target_set_subtract(&set, &set);
    assert_int_equal(set.count, 0);
    target_set_free(&set);
    target_set_free(&out);
}

/* The digest is a promise to callers: it must not change with the program. */
static void test_digest(void **state)
{
    (void)state;
    const int64_t seqs[] = {5000, 0, 7, 1024}, other[] = {5000, 0, 7, 1025};
    char a[TARGET_DIGEST_TEXT], b[TARGET_DIGEST_TEXT];
    struct target_set set = {0}, second = {0};
    target_set_digest(&set, 1, a);
    assert_string_equal(a, "47ca4bc599c96fe0ef325fcd127c5e299081b50aee27a3dd838b9bee20bddb33");
    target_set_fill(&set, seqs, 4);
    target_set_digest(&set, 1, a);
    assert_string_equal(a, "c3a800b6e539d01aba415529fb58b5b0f689d3517f51e5777004acced1d3d366");
    target_set_digest(&set, 2, b);
    assert_string_not_equal(a, b);
    target_set_fill(&second, other, 4);
    target_set_digest(&second, 1, b);
    assert_string_not_equal(a, b);
    target_set_free(&set);
    target_set_free(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),      cmocka_unit_test(test_fill_nothing),
        cmocka_unit_test(test_unique),    cmocka_unit_test(test_many_blocks_backwards),
        cmocka_unit_test(test_add_joins), cmocka_unit_test(test_unique_many),
        cmocka_unit_test(test_sorted),    cmocka_unit_test(test_sorted_many),
        cmocka_unit_test(test_missing),   cmocka_unit_test(test_subtract),
        cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
