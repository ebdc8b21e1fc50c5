#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/arena.h"

static void small_allocations_do_not_overlap(void **state)
{
    (void)state;
    struct arena a = {0};
    char *p[1000];
    for (size_t i = 0; i < 1000; i++) {
        p[i] = arena_alloc(&a, i);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        memset(p[i], (int)(i & 0xff), i);
    }
    for (size_t i = 0; i < 1000; i++)
        for (size_t k = 0; k < i; k++)
            assert_int_equal((unsigned char)p[i][k], i & 0xff);
    arena_free(&a);
}

static void large_blocks_are_given_back(void **state)
{
    (void)state;
    struct arena a = {0};
    ProtobufCAllocator *al = arena_allocator(&a);
    void *one = al->alloc(al->allocator_data, 100000), *two = al->alloc(al->allocator_data, 200000);
    void *three = al->alloc(al->allocator_data, 50000);
    void *small = al->alloc(al->allocator_data, 10);
    size_t held = a.held;
    al->free(al->allocator_data, small);
    assert_int_equal(a.held, held);
    al->free(al->allocator_data, two);
    assert_true(a.held <= held - 200000);
    al->free(al->allocator_data, three);
    al->free(al->allocator_data, one);
    al->free(al->allocator_data, NULL);
    assert_true(a.held < 10000);
    arena_free(&a);
}

static void the_limit_holds(void **state)
{
    (void)state;
    struct arena a = {.limit = 100000};
    assert_null(arena_alloc(&a, 200000));
    assert_true(a.failed);
    arena_reset(&a);
    assert_false(a.failed);
    size_t got = 0;
    while (arena_alloc(&a, 100))
        got += 100;
    assert_true(got > 20000 && got < 100000 && a.held <= 100000);
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_free(&a);
}

static void absorbed_memory_lives_on(void **state)
{
    (void)state;
    struct arena a = {0}, b = {0}, empty = {0};
    char *x = arena_copy(&a, "first", 5);
    char *y = arena_copy(&b, "second", 6);
    char *big = arena_alloc(&b, 100000);
    memset(big, 'z', 100000);
    arena_absorb(&a, &b);
    arena_absorb(&a, &empty);
    assert_int_equal(b.held, 0);
    arena_free(&b);
    assert_string_equal(x, "first");
    assert_string_equal(y, "second");
    assert_int_equal(big[99999], 'z');
    char *z = arena_copy(&a, "third", 5);
    assert_string_equal(y, "second");
    assert_string_equal(z, "third");
    ProtobufCAllocator *al = arena_allocator(&a);
    al->free(al->allocator_data, big);
    arena_absorb(&empty, &a);
    assert_string_equal(x, "first");
    arena_reset(&empty);
    assert_true(empty.held <= 4096);
    arena_free(&empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_allocations_do_not_overlap),
        cmocka_unit_test(large_blocks_are_given_back),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(absorbed_memory_lives_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
