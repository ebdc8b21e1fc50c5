/* What a device that comes is given: what Redis has for it, in that order, though each batch is looked up by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ev.h>

#include "lib/store/live.h"
#include "lib/store/state.h"
#include "muster/internal/v1/batch.pb-c.h"
#include "workers/acks.h"
#include "workers/attach.h"
#include "workers/batch_cache.h"
#include "workers/lease.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/strays.h"
#include "workers/worker.h"

#define TENANT 7
#define SEQ    5
#define NUMBER 3
#define FIRST  1 /* batches that are open for the device */
#define SECOND 2

static struct scene {
    struct worker worker;
    struct session session;
    bool up;                /* Redis is there */
    live_attach_fn *attach; /* asked for, and not answered yet; NULL: not */
    live_bytes_fn *spec;    /* the same */
    void *attach_arg, *spec_arg;
    uint64_t given[4]; /* batches, in order */
    unsigned given_count, settled;
} * scene;

/* --- Redis -------------------------------------------------------------------------------------------------------- */

bool live_up(const struct live *live)
{
    (void)live;
    return scene->up;
}

void live_attach(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, const uint16_t *slots,
                 size_t count, unsigned most, live_attach_fn *done, void *arg)
{
    (void)live, (void)tenant, (void)block, (void)worker, (void)slots, (void)most;
    assert_int_equal(count, 1);
    scene->attach = done;
    scene->attach_arg = arg;
}

void live_get_spec(struct live *live, uint64_t batch, live_bytes_fn *done, void *arg)
{
    (void)live;
    assert_int_equal(batch, FIRST);
    scene->spec = done;
    scene->spec_arg = arg;
}

void live_get_values(struct live *live, struct live_place place, live_bytes_fn *done, void *arg)
{
    (void)live, (void)place, (void)done, (void)arg;
    fail();
}

void live_detach(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, const uint16_t *slots,
                 size_t count, live_done_fn *done, void *arg)
{
    (void)live, (void)tenant, (void)block, (void)worker, (void)slots, (void)count, (void)done, (void)arg;
    fail();
}

void live_inbox_push(struct live *live, uint16_t worker, enum live_class class, struct slice entry, live_int_fn *done,
                     void *arg)
{
    (void)live, (void)worker, (void)class, (void)entry, (void)done, (void)arg;
    fail();
}

/* --- the session -------------------------------------------------------------------------------------------------- */

void session_again(struct session *s)
{
    attach_change(s->worker->attach, s->tenant, s->seq);
}

unsigned session_wants(const struct session *s)
{
    (void)s;
    return SESSION_GIVEN_MAX;
}

void session_asks(struct session *s)
{
    (void)s;
}

void session_attached(struct session *s, size_t given, unsigned wanted)
{
    (void)s, (void)given, (void)wanted;
}

void session_hold(struct session *s, struct batch *batch, uint8_t state, struct slice values)
{
    (void)s, (void)state, (void)values;
    assert_true(scene->given_count < sizeof scene->given / sizeof *scene->given);
    scene->given[scene->given_count++] = batch->id;
}

void session_settled(struct session *s)
{
    (void)s;
    scene->settled++;
}

/* --- the rest of the worker --------------------------------------------------------------------------------------- */

uint16_t lease_number(const struct lease *lease)
{
    (void)lease;
    return NUMBER;
}

bool lease_holds(const struct lease *lease)
{
    (void)lease;
    return true;
}

bool acks_push(struct acks *acks)
{
    (void)acks;
    return true;
}

void strays_mark(struct strays *strays)
{
    (void)strays;
}

void strays_unsure(struct strays *strays, uint32_t tenant, uint32_t seq)
{
    (void)strays, (void)tenant, (void)seq;
}

void strays_settled(struct strays *strays)
{
    (void)strays;
}

/* --- what Redis says ---------------------------------------------------------------------------------------------- */

static struct slice spec_of(uint64_t id, uint8_t bytes[64])
{
    Muster__Internal__V1__BatchSpec spec = MUSTER__INTERNAL__V1__BATCH_SPEC__INIT;
    spec.batch_id = (int64_t)id;
    spec.tenant = TENANT;
    spec.expires_ms = INT64_MAX;
    return (struct slice){bytes, muster__internal__v1__batch_spec__pack(&spec, bytes)};
}

/* The device is being attached, and has both. */
static void say_both(void)
{
    const struct live_pending pending[] = {{FIRST, state_byte(STATE_QUEUED, 0)}, {SECOND, state_byte(STATE_QUEUED, 0)}};
    const struct live_attached attached = {.slot = SEQ, .pending = pending, .count = 2};
    while (!scene->attach)
        ev_run(scene->worker.loop, EVRUN_ONCE);
    live_attach_fn *fn = scene->attach;
    scene->attach = NULL;
    fn(scene->attach_arg, ERR_OK, &attached, 1);
}

static void say_first(enum err err, struct slice spec)
{
    live_bytes_fn *fn = scene->spec;
    assert_non_null(fn);
    scene->spec = NULL;
    fn(scene->spec_arg, err, spec);
}

static int set_up(void **state)
{
    static struct scene fresh;
    uint8_t bytes[64];
    (void)state;
    fresh = (struct scene){.worker.loop = ev_default_loop(0), .up = true};
    scene = &fresh;
    struct worker *w = &scene->worker;
    w->sessions = session_table_new();
    w->batches = batch_cache_new(NULL);
    w->attach = attach_new(w);
    if (!w->sessions || !w->batches || !w->attach)
        return -1;
    batch_cache_told(w->batches, SECOND, spec_of(SECOND, bytes));
    scene->session = (struct session){.worker = w, .tenant = TENANT, .seq = SEQ, .generation = 1, .receiving = true};
    if (!session_table_put(w->sessions, &scene->session))
        return -1;
    session_again(&scene->session);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    attach_free(&scene->worker.attach);
    batch_cache_free(&scene->worker.batches);
    session_table_free(&scene->worker.sessions);
    return 0;
}

static void assert_given_both(void)
{
    assert_int_equal(scene->given_count, 2);
    assert_int_equal(scene->given[0], FIRST);
    assert_int_equal(scene->given[1], SECOND);
    assert_int_equal(scene->settled, 1);
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

static void what_is_known_waits_for_what_is_looked_up(void **state)
{
    uint8_t bytes[64];
    (void)state;
    say_both();
    assert_int_equal(scene->given_count, 0);
    say_first(ERR_OK, spec_of(FIRST, bytes));
    assert_given_both();
}

static void what_is_over_keeps_nothing_back(void **state)
{
    (void)state;
    say_both();
    say_first(ERR_NOT_FOUND, (struct slice){0});
    assert_int_equal(scene->given_count, 1);
    assert_int_equal(scene->given[0], SECOND);
    assert_int_equal(scene->settled, 1);
}

/* It is not over: the device is attached once more. */
static void what_redis_went_away_with_is_not_overtaken(void **state)
{
    uint8_t bytes[64];
    (void)state;
    say_both();
    scene->up = false;
    say_first(ERR_UNAVAILABLE, (struct slice){0});
    assert_int_equal(scene->given_count, 0);
    assert_int_equal(scene->settled, 0);
    scene->up = true;
    say_both();
    say_first(ERR_OK, spec_of(FIRST, bytes));
    assert_given_both();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_known_waits_for_what_is_looked_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_over_keeps_nothing_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_redis_went_away_with_is_not_overtaken, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
