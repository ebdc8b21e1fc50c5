/* How long a worker keeps what it has read of batches' values: while it is asked for, not of what is canceled. */
#include <ev.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/store/live.h"
#include "proto/fill.h"
#include "workers/batch_cache.h"
#include "workers/values.h"

static unsigned look_ups;
static struct {
    live_bytes_fn *done;
    void *arg;
} asked; /* the last look-up */

void live_get_values(struct live *live, struct live_place place, live_bytes_fn *done, void *arg)
{
    (void)live, (void)place;
    look_ups++;
    asked.done = done;
    asked.arg = arg;
}

static struct fill one_variable = {.variables = 1};
static struct batch first = {.id = 1, .tenant = 7, .fill = &one_variable},
                    second = {.id = 2, .tenant = 7, .fill = &one_variable};
static struct value_cache *cache;
static unsigned told, told_nothing;

static int setup(void **state)
{
    (void)state;
    look_ups = told = told_nothing = 0;
    cache = value_cache_new(NULL, ev_default_loop(0));
    return cache ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    value_cache_free(&cache);
    return 0;
}

/* Slot 3 has "8207". */
static void answer(void)
{
    struct buf out = {0};
    struct bitmap slots = {{0}};
    bitmap_set(&slots, 3);
    value_block_begin(&out, 1, &slots);
    fill_pack(&out, &(struct slice){(const uint8_t *)"8207", 4}, 1);
    assert_false(out.failed);
    asked.done(asked.arg, ERR_OK, buf_slice(&out));
    buf_free(&out);
}

static void got(void *arg, const struct value_block *values, uint64_t a)
{
    (void)arg, (void)a;
    told++;
    told_nothing += !values;
    if (!values)
        return;
    struct bitmap slots = {{0}};
    bitmap_set(&slots, 3);
    struct value_part *part = value_part_new(values, &slots);
    struct slice packed = value_part_get(part, 3), value;
    assert_true(fill_unpack(packed, &value, 1));
    assert_memory_equal(value.data, "8207", 4);
    value_part_free(&part);
    assert_null(part);
    value_part_free(&part);
}

static void get(const struct batch *batch, uint32_t block)
{
    value_cache_get(cache, batch, block, got, NULL, 0);
}

static void load(const struct batch *batch, uint32_t block)
{
    unsigned before = look_ups;
    get(batch, block);
    assert_int_equal(look_ups, before + 1);
    answer();
}

static void is_kept(const struct batch *batch, uint32_t block)
{
    unsigned before = look_ups, heard = told;
    get(batch, block);
    assert_int_equal(look_ups, before);
    assert_int_equal(told, heard + 1);
}

static void it_is_kept_while_it_is_asked_for(void **state)
{
    (void)state;
    value_cache_tick(cache, 1000);
    load(&first, 0);
    load(&first, 1);
    value_cache_tick(cache, 999 + VALUES_KEPT_US);
    is_kept(&first, 0);
    value_cache_tick(cache, 1000 + VALUES_KEPT_US);
    is_kept(&first, 0);
    load(&first, 1);
    value_cache_tick(cache, 1000 + 3 * (int64_t)VALUES_KEPT_US);
    load(&first, 0);
    load(&first, 1);
    assert_int_equal(told_nothing, 0);
}

static void a_cancel_drops_that_batch_alone(void **state)
{
    (void)state;
    load(&first, 0);
    load(&first, 1);
    load(&second, 0);
    value_cache_drop(cache, first.id);
    is_kept(&second, 0);
    load(&first, 0); /* somebody needs it yet */
    is_kept(&first, 0);
    load(&first, 1);
}

static void what_is_canceled_while_it_is_read_is_told_and_not_kept(void **state)
{
    (void)state;
    get(&first, 0);
    value_cache_drop(cache, first.id);
    get(&first, 0);
    assert_int_equal(look_ups, 1);
    answer();
    assert_int_equal(told, 2);
    assert_int_equal(told_nothing, 0);
    load(&first, 0);
    is_kept(&first, 0);
}

static void what_cannot_be_read_is_not_kept(void **state)
{
    (void)state;
    get(&first, 0);
    asked.done(asked.arg, ERR_OK, (struct slice){(const uint8_t *)"no block", 8});
    get(&first, 0);
    value_cache_drop(cache, first.id);
    asked.done(asked.arg, ERR_NOT_FOUND, (struct slice){0});
    assert_int_equal(told, 2);
    assert_int_equal(told_nothing, 2);
    load(&first, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_kept_while_it_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancel_drops_that_batch_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_canceled_while_it_is_read_is_told_and_not_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_is_not_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
