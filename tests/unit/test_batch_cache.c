/* What a worker believes of what it is told of a batch, and when: only of one that it has never heard of, and only what
 * was put into its inbox since it last doubted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/store/live.h"
#include "muster/internal/v1/batch.pb-c.h"
#include "workers/batch_cache.h"
#include "workers/drained.h"

enum { URGENT, NORMAL, BULK, CLASSES };
#define MOST 16

static unsigned look_ups;
static struct {
    live_bytes_fn *done;
    void *arg;
} asked; /* the last look-up; nobody answers those before */

void live_get_spec(struct live *live, uint64_t batch, live_bytes_fn *done, void *arg)
{
    (void)live, (void)batch;
    free(asked.arg);
    asked.done = done;
    asked.arg = arg;
    look_ups++;
}

static void answer(enum err err, struct slice spec)
{
    void *arg = asked.arg;
    asked.arg = NULL;
    asked.done(arg, err, spec);
}

/* What is said of a batch. */
static struct slice spec_of(uint64_t id, uint8_t bytes[64])
{
    Muster__Internal__V1__BatchSpec spec = MUSTER__INTERNAL__V1__BATCH_SPEC__INIT;
    spec.batch_id = (int64_t)id;
    spec.tenant = 7;
    spec.expires_ms = INT64_MAX;
    return (struct slice){bytes, muster__internal__v1__batch_spec__pack(&spec, bytes)};
}

static void tell(struct batch_cache *cache, uint64_t id)
{
    uint8_t bytes[64];
    batch_cache_told(cache, id, spec_of(id, bytes));
}

static void got(void *arg, struct batch *batch, uint64_t a, uint64_t b)
{
    (void)a, (void)b;
    *(struct batch **)arg = batch;
}

/* Without a reference; NULL: it is being looked up. */
static struct batch *get(struct batch_cache *cache, uint64_t id)
{
    struct batch *batch = NULL;
    batch_cache_get(cache, id, got, &batch, 0, 0);
    if (batch)
        batch_unref(cache, batch);
    return batch;
}

static int set_up(void **state)
{
    look_ups = 0;
    asked.arg = NULL;
    *state = batch_cache_new(NULL);
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    free(asked.arg);
    batch_cache_free((struct batch_cache **)state);
    return 0;
}

static void what_it_is_told_is_not_looked_up(void **state)
{
    struct batch_cache *cache = *state;
    tell(cache, 5);
    const struct batch *batch = get(cache, 5);
    assert_true(batch && batch->tenant == 7 && batch->load == BATCH_READY && !batch->canceled);
    assert_int_equal(look_ups, 0);
    assert_null(get(cache, 6));
    assert_int_equal(look_ups, 1);
}

static void what_it_has_heard_of_is_looked_up(void **state)
{
    struct batch_cache *cache = *state;
    assert_true(batch_cache_cancel(cache, 5)->canceled);
    tell(cache, 5);
    assert_null(get(cache, 5));
    batch_cache_hold(cache, 6, 1);
    tell(cache, 6);
    assert_null(get(cache, 6));
    tell(cache, 7);
    batch_cache_doubt(cache);
    tell(cache, 7);
    assert_null(get(cache, 7));
    assert_int_equal(look_ups, 3);
}

/* It may be of one of these. */
static void what_it_may_have_forgotten_is_looked_up(void **state)
{
    struct batch_cache *cache = *state;
    for (uint64_t id = 1; id <= BATCH_IDLE_MAX + 3; id++)
        batch_cache_cancel(cache, id);
    assert_null(batch_cache_find(cache, 3));
    for (uint64_t id = 1; id <= 3; id++) {
        tell(cache, id);
        assert_null(get(cache, id));
    }
    assert_int_equal(look_ups, 3);
    tell(cache, BATCH_IDLE_MAX + 4);
    assert_non_null(get(cache, BATCH_IDLE_MAX + 4));
}

static void what_cannot_be_read_is_looked_up(void **state)
{
    struct batch_cache *cache = *state;
    batch_cache_told(cache, 5, (struct slice){(const uint8_t *)"\x0f", 1});
    assert_null(get(cache, 5));
    assert_int_equal(look_ups, 1);
}

static void waits(void *arg, struct batch *batch, uint64_t a, uint64_t b)
{
    (void)a, (void)b;
    *(int *)arg = batch ? 1 : -1;
}

/* Redis was emptied and filled again between a look-up and the next hint, which finds it under way. */
static void what_joins_a_look_up_is_not_told_of_what_was_before(void **state)
{
    struct batch_cache *cache = *state;
    uint8_t bytes[64];
    int first = 0, second = 0, third = 0;
    batch_cache_get(cache, 5, waits, &first, 0, 0);
    batch_cache_get(cache, 5, waits, &second, 0, 0);
    answer(ERR_NOT_FOUND, (struct slice){NULL, 0});
    assert_true(look_ups == 2 && !first && !second);
    answer(ERR_OK, spec_of(5, bytes));
    assert_true(look_ups == 2 && first == 1 && second == 1);
    batch_unref(cache, batch_cache_find(cache, 5));
    batch_unref(cache, batch_cache_find(cache, 5));
    batch_cache_get(cache, 6, waits, &third, 0, 0);
    answer(ERR_NOT_FOUND, (struct slice){NULL, 0});
    assert_true(look_ups == 3 && third == -1);
}

static void an_inbox_counts_once_it_was_empty(void **state)
{
    struct drained d = {0};
    (void)state;
    drained_ask(&d, 1, CLASSES);
    assert_false(drained_before(&d, 1, URGENT));
    drained_took(&d, 1, NORMAL, MOST, MOST); /* there may be more of these, but none that are urgent */
    assert_true(drained_before(&d, 1, URGENT));
    assert_false(drained_before(&d, 1, NORMAL));
    drained_ask(&d, 1, CLASSES);
    drained_took(&d, 1, NORMAL, MOST - 1, MOST);
    assert_true(drained_before(&d, 1, NORMAL));
    assert_false(drained_before(&d, 1, BULK));
    drained_ask(&d, 1, 1);
    drained_took(&d, 1, URGENT, 0, MOST); /* nobody has looked into the others */
    assert_false(drained_before(&d, 1, BULK));
    drained_ask(&d, 1, CLASSES);
    drained_took(&d, 1, URGENT, 0, MOST);
    assert_true(drained_before(&d, 1, BULK));
}

static void with_each_doubt_it_begins_anew(void **state)
{
    struct drained d = {0};
    (void)state;
    drained_ask(&d, 1, CLASSES);
    drained_took(&d, 1, URGENT, 0, MOST);
    assert_false(drained_before(&d, 2, URGENT));
    drained_ask(&d, 2, CLASSES);
    assert_false(drained_before(&d, 2, URGENT));
    drained_took(&d, 3, URGENT, 0,
                 MOST); /* it was doubted since the take was asked for: it may have been empty before */
    drained_ask(&d, 3, CLASSES);
    assert_false(drained_before(&d, 3, URGENT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_it_is_told_is_not_looked_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_it_has_heard_of_is_looked_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_it_may_have_forgotten_is_looked_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_is_looked_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_joins_a_look_up_is_not_told_of_what_was_before, set_up, tear_down),
        cmocka_unit_test(an_inbox_counts_once_it_was_empty),
        cmocka_unit_test(with_each_doubt_it_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
