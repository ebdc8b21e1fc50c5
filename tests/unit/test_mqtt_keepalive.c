/* Who is silent for too long is ended in time and only then, however long the keepalive and whatever the clock does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/mqtt_internal.h"

#define TICKS_A_KEEPALIVE_SECOND 6 /* one and a half of them, of 250 ms each */
#define DEVICES                  100

static struct mqtt_session devices[DEVICES];
static unsigned ended;

/* In place of mqtt_session.c's. */
void mqtt_session_end(struct mqtt_session *m, enum mqtt_reason reason)
{
    (void)reason;
    list_remove(&m->link);
    m->session.open = false;
    ended++;
}

static int set_up(void **state)
{
    static struct mqtt_server server;
    server = (struct mqtt_server){.tick = UINT32_MAX - 1000}; /* the count starts anew on the way */
    mqtt_keepalive_init(&server);
    ended = 0;
    *state = &server;
    return 0;
}

static struct mqtt_session *add(struct mqtt_server *server, unsigned i, uint16_t keepalive)
{
    devices[i] = (struct mqtt_session){.session.open = true, .seen = server->tick, .keepalive = keepalive};
    list_init(&devices[i].link);
    mqtt_keepalive_add(server, &devices[i]);
    return &devices[i];
}

/* One look every `step` ticks; the number ended. */
static unsigned pass(struct mqtt_server *server, uint32_t ticks, uint32_t step)
{
    unsigned before = ended;
    for (uint32_t past = 0; past < ticks; past += step) {
        server->tick += step;
        mqtt_keepalive_look(server);
    }
    return ended - before;
}

static void the_silent_are_ended_in_their_tick(void **state)
{
    struct mqtt_server *server = *state;
    for (unsigned i = 0; i < DEVICES; i++)
        add(server, i, (uint16_t)(i + 1));
    for (unsigned i = 0; i < DEVICES; i++) {
        assert_int_equal(pass(server, i == 0 ? TICKS_A_KEEPALIVE_SECOND : TICKS_A_KEEPALIVE_SECOND - 1, 1), 0);
        assert_int_equal(pass(server, 1, 1), 1);
        assert_false(devices[i].session.open);
    }
    assert_int_equal(server->stats.keepalive_timeouts, DEVICES);
}

static void a_packet_puts_it_off(void **state)
{
    struct mqtt_server *server = *state;
    struct mqtt_session *m = add(server, 0, 10);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(pass(server, 10 * TICKS_A_KEEPALIVE_SECOND, 1), 0);
        m->seen = server->tick;
    }
    assert_int_equal(pass(server, 10 * TICKS_A_KEEPALIVE_SECOND, 1), 0);
    assert_int_equal(pass(server, 1, 1), 1);
}

static void longer_ones_than_the_wheel_are_kept_too(void **state)
{
    struct mqtt_server *server = *state;
    add(server, 0, UINT16_MAX);
    assert_int_equal(pass(server, UINT16_MAX * TICKS_A_KEEPALIVE_SECOND, 1), 0);
    assert_int_equal(pass(server, 1, 1), 1);
}

static void after_a_long_stop_all_are_looked_at_once(void **state)
{
    struct mqtt_server *server = *state;
    for (unsigned i = 1; i < DEVICES; i++)
        add(server, i, (uint16_t)(1 + i * 7));
    add(server, 0, 0);
    devices[1].seen += 100000; /* its packet has just come */
    assert_int_equal(pass(server, 100000, 100000), DEVICES - 2);
    assert_true(devices[0].session.open);
    assert_true(devices[1].session.open);
    assert_int_equal(pass(server, 8 * TICKS_A_KEEPALIVE_SECOND + 1, 1), 1);
}

static void who_is_not_read_is_not_to_blame(void **state)
{
    struct mqtt_server *server = *state;
    struct mqtt_session *m = add(server, 0, 1);
    m->paused = true;
    assert_int_equal(pass(server, 10000, 1), 0);
    m->paused = false;
    m->seen = server->tick;
    assert_int_equal(pass(server, TICKS_A_KEEPALIVE_SECOND, 1), 0);
    assert_int_equal(pass(server, 4, 1), 1);
}

static void at_the_end_all_are_ended(void **state)
{
    struct mqtt_server *server = *state;
    for (unsigned i = 0; i < DEVICES; i++)
        add(server, i, (uint16_t)(i * 60));
    mqtt_keepalive_end_all(server, MQTT_SERVER_SHUTTING_DOWN);
    assert_int_equal(ended, DEVICES);
    assert_int_equal(server->stats.keepalive_timeouts, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_silent_are_ended_in_their_tick, set_up),
        cmocka_unit_test_setup(a_packet_puts_it_off, set_up),
        cmocka_unit_test_setup(longer_ones_than_the_wheel_are_kept_too, set_up),
        cmocka_unit_test_setup(after_a_long_stop_all_are_looked_at_once, set_up),
        cmocka_unit_test_setup(who_is_not_read_is_not_to_blame, set_up),
        cmocka_unit_test_setup(at_the_end_all_are_ended, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
