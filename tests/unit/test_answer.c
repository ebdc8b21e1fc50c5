/* Answers of commands whose batch is not there: it is over, or Redis, which was lost, is not filled yet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ev.h>

#include "lib/store/live.h"
#include "lib/store/state.h"
#include "proto/delivery.h"
#include "workers/acks.h"
#include "workers/answer.h"
#include "workers/batch_cache.h"
#include "workers/worker.h"

static struct scene {
    struct worker worker;
    batch_fn *batch; /* asked for, and not answered yet; NULL: not */
    live_int_fn *filled;
    live_bytes_fn *spec; /* Redis is asked for the batch */
    void *batch_arg, *redis_arg;
    unsigned before, after; /* questions whether Redis is filled: before that for the batch, and behind it */
    unsigned recorded;
    struct ack ack; /* recorded last */
} * scene;

/* --- around it ---------------------------------------------------------------------------------------------------- */

void batch_cache_get(struct batch_cache *cache, uint64_t id, batch_fn *fn, void *arg, uint64_t a, uint64_t b)
{
    (void)cache, (void)id, (void)a, (void)b;
    scene->batch = fn;
    scene->batch_arg = arg;
}

void batch_unref(struct batch_cache *cache, struct batch *batch)
{
    (void)cache, (void)batch;
}

void live_generation_get(struct live *live, live_int_fn *done, void *arg)
{
    (void)live;
    scene->filled = done;
    scene->redis_arg = arg;
    if (scene->spec)
        scene->after++;
    else
        scene->before++;
}

void live_get_spec(struct live *live, uint64_t batch, live_bytes_fn *done, void *arg)
{
    (void)live, (void)batch;
    scene->spec = done;
    scene->redis_arg = arg;
}

void acks_add(struct acks *acks, const struct ack *ack)
{
    (void)acks;
    scene->recorded++;
    scene->ack = *ack;
}

void acks_add_result(struct acks *acks, const struct ack *ack, struct slice result, struct slice information)
{
    (void)result, (void)information;
    acks_add(acks, ack);
}

/* --- what the stores say ------------------------------------------------------------------------------------------ */

static void say_batch(struct batch *batch)
{
    batch_fn *fn = scene->batch;
    assert_non_null(fn);
    scene->batch = NULL;
    fn(scene->batch_arg, batch, 0, 0);
}

static void say_filled(unsigned *asked, bool filled)
{
    assert_true(*asked > 0);
    --*asked;
    scene->filled(scene->redis_arg, ERR_OK, filled);
}

/* Redis, of all three questions. */
static void say(bool filled_before, enum err spec, bool filled_after)
{
    live_bytes_fn *got_spec = scene->spec;
    assert_non_null(got_spec);
    assert_int_equal(scene->before, 1);
    assert_int_equal(scene->after, 1);
    say_filled(&scene->before, filled_before);
    scene->spec = NULL;
    got_spec(scene->redis_arg, spec, (struct slice){0});
    assert_int_equal(scene->recorded, 0);
    say_filled(&scene->after, filled_after);
}

static void until_asked(void)
{
    while (!scene->batch)
        ev_run(scene->worker.loop, EVRUN_ONCE);
}

static int set_up(void **state)
{
    static struct scene fresh;
    (void)state;
    fresh = (struct scene){.worker.loop = ev_default_loop(0)};
    scene = &fresh;
    scene->worker.answers = answers_new(&scene->worker);
    const struct ack ack = {.batch = 1, .tenant = 7, .seq = 5};
    const struct acknowledgement said = {.id = {1, 7, 5}, .outcome = 2};
    assert_true(answer_take(&scene->worker, NULL, &ack, &said));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    answers_free(&scene->worker.answers);
    return 0;
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

static void of_a_batch_that_is_over_it_is_what_it_says(void **state)
{
    (void)state;
    say_batch(NULL);
    say(true, ERR_NOT_FOUND, true);
    assert_int_equal(scene->recorded, 1);
    assert_int_equal(scene->ack.event, EVENT_FAIL);
}

/* Between any two questions it may be lost, or filled, or not answer: whether the batch is tried again it says only
 * then. */
static void where_redis_was_lost_it_waits_until_it_is_filled(void **state)
{
    static const struct {
        bool before, after;
        enum err spec;
    } lost[] = {{true, false, ERR_NOT_FOUND},
                {false, true, ERR_NOT_FOUND},
                {false, false, ERR_NOT_FOUND},
                {true, true, ERR_UNAVAILABLE},
                {true, true, ERR_OK}};
    struct batch batch = {.id = 1, .retry_after = 1 << STATE_FAILED, .retry_attempts = 3};
    (void)state;
    for (unsigned i = 0; i < sizeof lost / sizeof *lost; i++) {
        until_asked();
        say_batch(NULL);
        say(lost[i].before, lost[i].spec, lost[i].after);
    }
    assert_int_equal(scene->recorded, 0);
    until_asked();
    say_batch(&batch);
    assert_int_equal(scene->recorded, 1);
    assert_int_equal(scene->ack.event, EVENT_RETRY);
    assert_int_equal(scene->ack.attempts, 1);
}

static void of_a_canceled_batch_it_is_final(void **state)
{
    struct batch batch = {.id = 1, .retry_after = 1 << STATE_FAILED, .retry_attempts = 3, .canceled = true};
    (void)state;
    say_batch(&batch);
    assert_int_equal(scene->recorded, 1);
    assert_int_equal(scene->ack.event, EVENT_FAIL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(of_a_batch_that_is_over_it_is_what_it_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(where_redis_was_lost_it_waits_until_it_is_filled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(of_a_canceled_batch_it_is_final, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
