/* A session's order of sending: what is urgent, and what it waits for. What it does not send any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/store/db_clock.h"
#include "lib/store/state.h"
#include "tests/unit/session_world.h"
#include "workers/acks.h"
#include "workers/attach.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define TENANT 7
#define SEQ    5
#define URGENT 1
#define BULK   3

static struct scene {
    struct worker worker;
    struct session session;
    unsigned delivered, hurried, attached;
    uint64_t last;           /* batch delivered last */
    uint8_t event, attempts; /* recorded last */
    int64_t wall_ms;         /* the time of day */
} * scene;

/* --- around the session ------------------------------------------------------------------------------------------- */

int64_t db_clock_ms(struct db_clock *clock)
{
    (void)clock;
    return scene->wall_ms;
}

void acks_add(struct acks *acks, const struct ack *ack)
{
    (void)acks;
    scene->event = ack->event;
    scene->attempts = ack->attempts;
}

void acks_add_result(struct acks *acks, const struct ack *ack, struct slice result, struct slice information)
{
    (void)acks, (void)ack, (void)result, (void)information;
}

void attach_change(struct attach *attach, uint32_t tenant, uint32_t seq)
{
    (void)attach, (void)tenant, (void)seq;
    scene->attached++;
}

/* --- a transport that notes --------------------------------------------------------------------------------------- */

static const char *deliver(struct session *s, struct batch *batch, const struct command_id *id, unsigned attempt,
                           struct slice values)
{
    (void)s, (void)id, (void)attempt, (void)values;
    scene->delivered++;
    scene->last = batch->id;
    return NULL;
}

static void hurry(struct session *s)
{
    (void)s;
    scene->hurried++;
}

static void acknowledged(struct session *s, uint16_t token)
{
    (void)s, (void)token;
}

static void hear(struct session *s)
{
    (void)s;
}

static void close_it(struct session *s, enum session_end why)
{
    (void)s, (void)why;
}

static const struct transport transport = {
    .name = "noted", .deliver = deliver, .hurry = hurry, .acknowledged = acknowledged, .hear = hear, .close = close_it};

static struct batch batch_of(uint64_t id, uint8_t priority)
{
    return (struct batch){.id = id,
                          .tenant = TENANT,
                          .load = BATCH_READY,
                          .priority = priority,
                          .created_ms = scene->wall_ms,
                          .expires_ms = INT64_MAX,
                          .deliver_by_ms = INT64_MAX};
}

static int set_up(void **state)
{
    static struct scene fresh;
    (void)state;
    fresh = (struct scene){.session = {.transport = &transport, .tenant = TENANT, .seq = SEQ, .in_flight_max = 1},
                           .wall_ms = clock_wall_ms()};
    scene = &fresh;
    scene->session.worker = &scene->worker;
    scene->worker.sessions = session_table_new();
    assert_non_null(scene->worker.sessions);
    assert_true(session_open(&scene->session));
    scene->session.receiving = true;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    session_close(&scene->session);
    session_table_free(&scene->worker.sessions);
    return 0;
}

/* --- the tests ---------------------------------------------------------------------------------------------------- */

/* What is in flight may not have left yet, behind what hundreds of others get: it is not to keep an urgent one there.
 */
static void what_an_urgent_one_waits_for_hurries(void **state)
{
    struct batch bulk = batch_of(1, BULK), more = batch_of(2, BULK), urgent = batch_of(3, URGENT);
    struct session *s = &scene->session;
    (void)state;
    session_offer(s, &bulk, (struct slice){0});
    assert_int_equal(scene->delivered, 1);
    unsigned before = scene->hurried;
    session_offer(s, &more, (struct slice){0});
    assert_int_equal(scene->hurried, before);
    session_offer(s, &urgent, (struct slice){0});
    assert_int_equal(scene->delivered, 1); /* one in flight at a time */
    assert_int_equal(scene->hurried, before + 1);
    const struct acknowledgement answer = {.id = {1, TENANT, SEQ}, .outcome = 1};
    assert_int_equal(session_answer(s, &answer, 1), SESSION_TAKEN);
    assert_int_equal(scene->delivered, 2);
    assert_int_equal(scene->last, 3);
}

/* Redis was lost, and filled again without what it alone knew. */
static void that_it_was_sent_is_said_again_where_that_is_not_known(void **state)
{
    struct batch batch = batch_of(1, BULK);
    struct session *s = &scene->session;
    (void)state;
    session_offer(s, &batch, (struct slice){0});
    session_record_sent(s, 1);
    scene->event = EVENT_COUNT;
    session_hold(s, &batch, state_byte(STATE_SENT, 1), (struct slice){0});
    assert_int_equal(scene->event, EVENT_COUNT);
    session_offer(s, &batch, (struct slice){0});
    assert_int_equal(scene->event, EVENT_SEND);
    assert_int_equal(scene->delivered, 1);
}

/* Redis may have been emptied since it was said, and this worker not have noticed. */
static void that_it_was_sent_is_said_again_when_the_device_goes(void **state)
{
    struct batch batch = batch_of(1, BULK);
    struct session *s = &scene->session;
    (void)state;
    session_offer(s, &batch, (struct slice){0});
    session_record_sent(s, 1);
    scene->event = EVENT_COUNT;
    session_receive(s, false);
    assert_int_equal(scene->event, EVENT_SEND);
}

/* The time of what was put off has come; a hint of what is behind it, too. */
static void what_is_given_while_it_is_attached_once_more_waits(void **state)
{
    struct batch put_off = batch_of(1, BULK), newer = batch_of(2, BULK);
    struct session *s = &scene->session;
    (void)state;
    session_again(s);
    session_offer(s, &newer, (struct slice){0});
    assert_int_equal(scene->delivered, 0);
    session_attached(s, 1, session_wants(s));
    session_hold(s, &put_off, state_byte(STATE_ROUTED, 0), (struct slice){0});
    session_settled(s);
    assert_int_equal(scene->delivered, 1);
    assert_int_equal(scene->last, 1);
}

/* The worker's clock is ahead, and set right after it has ended what was given by an attach: its hint comes then. */
static void what_has_expired_is_not_sent_when_the_clock_is_set_back(void **state)
{
    struct batch expired = batch_of(1, BULK), overdue = batch_of(2, BULK), other = batch_of(3, BULK);
    struct session *s = &scene->session;
    (void)state;
    expired.expires_ms = scene->wall_ms + 1000;
    overdue.deliver_by_ms = other.deliver_by_ms = scene->wall_ms + 1000;
    scene->wall_ms += 2000;
    session_hold(s, &expired, state_byte(STATE_ROUTED, 0), (struct slice){0});
    assert_int_equal(scene->event, EVENT_LOSE);
    session_hold(s, &overdue, state_byte(STATE_ROUTED, 0), (struct slice){0});
    assert_int_equal(scene->event, EVENT_LOSE);
    scene->wall_ms -= 1500;
    session_offer(s, &expired, (struct slice){0});
    assert_int_equal(scene->event, EVENT_LOSE);
    session_offer(s, &overdue, (struct slice){0});
    assert_int_equal(scene->event, EVENT_LOSE);
    assert_int_equal(scene->delivered, 0);
    session_offer(s, &other, (struct slice){0});
    assert_int_equal(scene->last, 3);
}

static void answer_not_now(struct session *s, struct batch *batch)
{
    struct acknowledgement said = {.id = {batch->id, s->tenant, s->seq}, .outcome = 4};
    assert_int_equal(session_answer(s, &said, 7), SESSION_TAKEN);
    session_durable(s, batch->id, EVENT_NOT_NOW, 7);
}

/* Nobody but Redis knows whether it is to be sent still: it may have been ended since. */
static void what_is_put_off_comes_only_when_redis_gives_it_once_more(void **state)
{
    struct batch put_off = batch_of(1, BULK), other = batch_of(2, BULK);
    struct session *s = &scene->session;
    (void)state;
    session_hold(s, &put_off, state_byte(STATE_ROUTED, 0), (struct slice){0});
    answer_not_now(s, &put_off);
    assert_int_equal(s->in_flight, 0);
    session_offer(s, &put_off, (struct slice){0}); /* a hint of before */
    assert_int_equal(scene->delivered, 1);
    session_offer(s, &other, (struct slice){0});
    assert_int_equal(scene->delivered, 2);
    session_asks(s);
    session_attached(s, 1, session_wants(s));
    session_hold(s, &put_off, state_byte(STATE_QUEUED, 0), (struct slice){0});
    session_settled(s);
    assert_int_equal(s->held_count, 2); /* waits for the other one's answer */
    assert_false(s->put_off);
}

/* It was routed to a connection before this one, and ended before Redis was asked for this one. */
static void what_redis_does_not_give_and_waited_before_is_over(void **state)
{
    struct batch over = batch_of(1, BULK), since = batch_of(2, BULK);
    struct session *s = &scene->session;
    (void)state;
    session_again(s);
    session_offer(s, &over, (struct slice){0});
    session_asks(s);
    session_offer(s, &since, (struct slice){0});
    session_attached(s, 0, session_wants(s));
    session_settled(s);
    assert_int_equal(scene->delivered, 1);
    assert_int_equal(s->held_count, 1);
    assert_ptr_equal(s->held[0].batch, &since);
}

/* Redis was asked before it had said "not now", and gave it as it stood then. */
static void what_is_put_off_since_redis_was_asked_does_not_come_yet(void **state)
{
    struct batch put_off = batch_of(1, BULK);
    struct session *s = &scene->session;
    (void)state;
    session_hold(s, &put_off, state_byte(STATE_ROUTED, 0), (struct slice){0});
    session_again(s);
    session_asks(s);
    answer_not_now(s, &put_off);
    session_attached(s, 1, session_wants(s));
    session_hold(s, &put_off, state_byte(STATE_SENT, 1), (struct slice){0});
    session_settled(s);
    assert_int_equal(scene->delivered, 1);
    assert_true(s->put_off);
}

/* A cancel finds it in nobody's hands. */
static void what_is_put_off_can_be_taken_back(void **state)
{
    struct batch put_off = batch_of(1, BULK);
    struct session *s = &scene->session;
    (void)state;
    session_hold(s, &put_off, state_byte(STATE_ROUTED, 0), (struct slice){0});
    answer_not_now(s, &put_off);
    put_off.canceled = true;
    session_take_back(s, &put_off);
    assert_int_equal(scene->event, EVENT_LOSE);
    assert_int_equal(scene->attempts, 0); /* what it was put off for was no delivery */
    assert_int_equal(s->held_count, 0);
}

/* Others may have sent it, and not told yet a Redis that was lost: only the leader knows when to end it. */
static void what_is_canceled_is_only_handed_back(void **state)
{
    struct batch canceled = batch_of(2, BULK);
    struct session *s = &scene->session;
    (void)state;
    canceled.canceled = true;
    session_hold(s, &canceled, state_byte(STATE_ROUTED, 0), (struct slice){0});
    assert_int_equal(scene->event, EVENT_LOSE);
    assert_int_equal(s->held_count, 0);
    assert_false(s->later); /* it ends soon, and is not asked for again */
}

/* The outcome is durable, and its wait over, before the session is told. */
static void what_is_tried_again_early_comes_nevertheless(void **state)
{
    struct batch batch = batch_of(1, BULK);
    struct session *s = &scene->session;
    (void)state;
    batch.retry_after = 1 << STATE_FAILED;
    batch.retry_attempts = 3;
    session_hold(s, &batch, state_byte(STATE_ROUTED, 0), (struct slice){0});
    const struct acknowledgement answer = {.id = {1, TENANT, SEQ}, .outcome = 2};
    assert_int_equal(session_answer(s, &answer, 1), SESSION_TAKEN);
    session_hold(s, &batch, state_byte(STATE_ROUTED, 1), (struct slice){0});
    assert_int_equal(scene->delivered, 1);
    unsigned attached = scene->attached;
    session_durable(s, 1, EVENT_RETRY, 1);
    assert_int_equal(scene->attached, attached + 1);
}

/* Waiting for its head-of-line limit: the one before it is the last that the session was given. */
static void what_redis_still_has_is_fetched_past_an_unanswered_one(void **state)
{
    struct batch silent = batch_of(1, BULK);
    struct session *s = &scene->session;
    (void)state;
    silent.head_ms = 300000;
    session_attached(s, SESSION_GIVEN_MAX, SESSION_GIVEN_MAX);
    session_hold(s, &silent, state_byte(STATE_ROUTED, 0), (struct slice){0});
    unsigned attached = scene->attached;
    session_look(s, clock_mono_us());
    assert_int_equal(scene->attached, attached);
    s->held[0].sent_us -= 300 * 1000000u;
    session_look(s, clock_mono_us());
    assert_int_equal(scene->attached, attached + 1);
    assert_int_equal(session_wants(s), SESSION_HELD_MAX);
    /* Its outcome may still come; what Redis gives now does not wait for it. */
    struct batch next = batch_of(2, BULK);
    session_asks(s);
    session_attached(s, 1, SESSION_HELD_MAX);
    session_hold(s, &next, state_byte(STATE_ROUTED, 0), (struct slice){0});
    session_settled(s);
    assert_int_equal(scene->last, 2);
    const struct acknowledgement answer = {.id = {1, TENANT, SEQ}, .outcome = 1};
    assert_int_equal(session_answer(s, &answer, 1), SESSION_TAKEN);
}

/* As many as a session holds, none of which is urgent. */
static void an_urgent_one_takes_the_place_of_the_last_that_waits(void **state)
{
    static struct batch bulk[SESSION_HELD_MAX];
    struct session *s = &scene->session;
    (void)state;
    for (unsigned i = 0; i < SESSION_HELD_MAX; i++) {
        bulk[i] = batch_of(i + 1, BULK);
        session_hold(s, &bulk[i], state_byte(STATE_ROUTED, 0), (struct slice){0});
    }
    struct batch later = batch_of(1000, BULK), urgent = batch_of(1001, URGENT);
    session_hold(s, &later, state_byte(STATE_ROUTED, 0), (struct slice){0});
    assert_int_equal(later.refs, 0); /* comes after all of them */
    s->more = false;
    session_offer(s, &urgent, (struct slice){0});
    assert_int_equal(s->held_count, SESSION_HELD_MAX);
    assert_int_equal(bulk[SESSION_HELD_MAX - 1].refs, 0);
    assert_true(s->more); /* which is fetched again */
    const struct acknowledgement answer = {.id = {1, TENANT, SEQ}, .outcome = 1};
    assert_int_equal(session_answer(s, &answer, 1), SESSION_TAKEN);
    assert_int_equal(scene->last, 1001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_an_urgent_one_waits_for_hurries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(that_it_was_sent_is_said_again_where_that_is_not_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(that_it_was_sent_is_said_again_when_the_device_goes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_given_while_it_is_attached_once_more_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_has_expired_is_not_sent_when_the_clock_is_set_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_put_off_comes_only_when_redis_gives_it_once_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_redis_does_not_give_and_waited_before_is_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_put_off_since_redis_was_asked_does_not_come_yet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_put_off_can_be_taken_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_canceled_is_only_handed_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_tried_again_early_comes_nevertheless, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_redis_still_has_is_fetched_past_an_unanswered_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_urgent_one_takes_the_place_of_the_last_that_waits, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
