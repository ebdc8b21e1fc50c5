/* Pools of small objects: zeroed, apart, used again; larger ones than the pool's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/pool.h"

#define COUNT 5000 /* several chunks */
#define SIZE  50

static void test_objects_do_not_overlap(void **state)
{
    (void)state;
    static uint8_t *objects[COUNT];
    static const uint8_t zeros[SIZE];
    struct pool pool;
    pool_init(&pool, SIZE);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            objects[i] = pool_take(&pool, SIZE);
            assert_non_null(objects[i]);
            assert_int_equal((uintptr_t)objects[i] % sizeof(void *), 0);
            assert_memory_equal(objects[i], zeros, SIZE);
            memset(objects[i], (int)(i % 255 + 1), SIZE);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            for (unsigned b = 0; b < SIZE; b++)
                assert_int_equal(objects[i][b], i % 255 + 1);
            pool_give(&pool, objects[i], SIZE);
        }
    }
    pool_free(&pool);
    assert_null(pool.chunks);
    assert_null(pool.spare);
}

static void test_sizes(void **state)
{
    (void)state;
    struct pool pool;
    pool_init(&pool, SIZE);
    uint8_t *small = pool_take(&pool, 1), *large = pool_take(&pool, 100000);
    assert_non_null(small);
    assert_non_null(large);
    memset(large, 1, 100000);
    assert_int_equal(*small, 0);
    pool_give(&pool, large, 100000);
    pool_give(&pool, small, 1);
    pool_give(&pool, NULL, SIZE);
    pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_objects_do_not_overlap), cmocka_unit_test(test_sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
