/* PUBACKs give way while many commands are unanswered: they come with the device's next packet, or after that, in their
 * order, and none is forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "workers/mqtt_internal.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define DEVICES 200
#define CROWD   64 /* as in workers/mqtt_puback.c */

static struct world {
    struct worker worker;
    struct mqtt_server server;
    struct mqtt_session devices[DEVICES];
    int64_t now_us;
    unsigned sent, bytes;         /* packets' worth, since the last look */
    const struct stream *last_to; /* stands for the device: its own address */
} world;

/* In place of lib/base/clock.c's, mqtt_server.c's and session_table.c's. */
int64_t clock_mono_us(void)
{
    return world.now_us;
}

void mqtt_send(struct mqtt_server *server, struct stream *stream)
{
    world.sent++;
    world.bytes += (unsigned)buf_len(&server->scratch);
    world.last_to = stream;
    buf_reset(&server->scratch);
}

struct session *session_table_still(const struct session_table *table, uint32_t tenant, uint32_t seq,
                                    uint32_t generation)
{
    (void)table;
    struct session *s = &world.devices[seq].session;
    return tenant == s->tenant && s->open && generation == s->generation ? s : NULL;
}

static int set_up(void **state)
{
    world = (struct world){.now_us = INT64_C(1000000) << WINDOW_SPAN_US_LOG2};
    world.worker = (struct worker){.loop = ev_loop_new(0), .mqtt = &world.server};
    world.server.worker = &world.worker;
    mqtt_puback_init(&world.server);
    for (unsigned i = 0; i < DEVICES; i++) {
        struct mqtt_session *m = &world.devices[i];
        *m = (struct mqtt_session){.version = MQTT_5, .stream = (struct stream *)(void *)m};
        m->session =
            (struct session){.worker = &world.worker, .tenant = 7, .seq = i, .generation = i + 1, .open = true};
    }
    *state = &world;
    return world.worker.loop ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    mqtt_puback_free(&world.server);
    for (unsigned i = 0; i < DEVICES; i++)
        pubacks_free(&world.devices[i].pubacks);
    buf_free(&world.server.scratch);
    ev_loop_destroy(world.worker.loop);
    return 0;
}

static void sent_a_moment_ago(unsigned commands)
{
    while (commands-- > 0)
        window_sent(&world.worker.window, world.now_us);
}

/* What the device has published becomes durable. */
static void settle(unsigned device, uint16_t id)
{
    struct mqtt_session *m = &world.devices[device];
    uint16_t token;
    assert_true(pubacks_add(&m->pubacks, id, &token));
    pubacks_settle(&m->pubacks, token, MQTT_SUCCESS);
    mqtt_puback(m);
}

static unsigned sent(void)
{
    unsigned n = world.sent;
    world.sent = 0;
    return n;
}

/* Turns of the loop until the timer has fired once. */
static unsigned look(void)
{
    ev_run(world.worker.loop, EVRUN_ONCE);
    return sent();
}

static void in_quiet_they_are_said_at_once(void **state)
{
    (void)state;
    sent_a_moment_ago(CROWD - 1);
    settle(1, 10);
    assert_int_equal(sent(), 1);
    assert_ptr_equal(world.last_to, &world.devices[1]);
    assert_false(ev_is_active(&world.server.deferred_timer));
}

static void in_a_crowd_they_wait_until_it_is_over(void **state)
{
    (void)state;
    sent_a_moment_ago(CROWD);
    for (unsigned i = 0; i < DEVICES; i++)
        settle(i, 10);
    assert_int_equal(sent(), 0);
    assert_int_equal(look(), 0);
    world.now_us += 3 << WINDOW_SPAN_US_LOG2; /* what was sent is long ago */
    for (unsigned left = DEVICES, n; left > 0; left -= n) {
        n = look();
        assert_int_equal(n, left < 64 ? left : 64); /* no more a turn: others have theirs */
    }
    assert_int_equal(world.bytes, DEVICES * 4); /* PUBACK without reason: MQTT 5.0, 3.4.2.1 */
    assert_ptr_equal(world.last_to, &world.devices[DEVICES - 1]);
    assert_false(ev_is_active(&world.server.deferred_timer));
}

static void no_crowd_makes_them_wait_for_ever(void **state)
{
    (void)state;
    sent_a_moment_ago(CROWD);
    settle(1, 10);
    world.now_us += 2000000;
    sent_a_moment_ago(CROWD);
    settle(2, 10);
    assert_int_equal(look(), 0);
    world.now_us += 1000000;
    sent_a_moment_ago(CROWD);
    assert_int_equal(look(), 1);
    assert_ptr_equal(world.last_to, &world.devices[1]);
}

static void they_ride_with_the_next_packet(void **state)
{
    (void)state;
    struct mqtt_session *m = &world.devices[1];
    sent_a_moment_ago(CROWD);
    settle(1, 10);
    mqtt_puback_put(m);
    assert_int_equal(buf_len(&world.server.scratch), 4);
    buf_reset(&world.server.scratch);
    world.now_us += 3 << WINDOW_SPAN_US_LOG2;
    assert_int_equal(look(), 0); /* there is nothing left to say */
    sent_a_moment_ago(CROWD);
    settle(1, 11); /* and it may wait again */
    assert_int_equal(sent(), 0);
    world.now_us += 3 << WINDOW_SPAN_US_LOG2;
    assert_int_equal(look(), 1);
}

static void who_waits_for_more_than_two_is_told(void **state)
{
    (void)state;
    sent_a_moment_ago(CROWD);
    settle(1, 10);
    settle(1, 11);
    assert_int_equal(sent(), 0);
    settle(1, 12);
    assert_int_equal(sent(), 1);
    assert_int_equal(world.bytes, 3 * 4);
}

static void who_is_not_read_until_then_is_told(void **state)
{
    (void)state;
    sent_a_moment_ago(CROWD);
    world.devices[1].paused = true;
    settle(1, 10);
    assert_int_equal(sent(), 1);
}

static void who_has_gone_or_come_back_is_passed_over(void **state)
{
    (void)state;
    sent_a_moment_ago(CROWD);
    for (unsigned i = 0; i < 3; i++)
        settle(i, 10);
    world.devices[0].session.open = false;
    world.devices[1].session.generation += DEVICES;
    world.now_us += 3 << WINDOW_SPAN_US_LOG2;
    assert_int_equal(look(), 1);
    assert_ptr_equal(world.last_to, &world.devices[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(in_quiet_they_are_said_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(in_a_crowd_they_wait_until_it_is_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_crowd_makes_them_wait_for_ever, set_up, tear_down),
        cmocka_unit_test_setup_teardown(they_ride_with_the_next_packet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_waits_for_more_than_two_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_is_not_read_until_then_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_has_gone_or_come_back_is_passed_over, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
