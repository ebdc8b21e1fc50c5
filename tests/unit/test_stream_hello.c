/* Who wants a TLS handshake and has not had one: what they cost, whose turn it is, and that those who are here go
 * first. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "tests/unit/stream_world.h"

#define FAR_US (3600 * INT64_C(1000000))

/* A record that says it holds a ClientHello of 100 bytes, and does not: OpenSSL ends the connection once it sees it. */
static const uint8_t hello[105] = {22, 3, 1, 0, 100};

static void listen_tls(struct world *w)
{
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 60000);
}

static struct sockaddr_in at(const struct world *w)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons((uint16_t)stream_listener_port(w->listener))};
}

static struct sockaddr_in source(const char *address)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, address, &a.sin_addr), 1);
    return a;
}

/* A peer by hand, whom the server has accepted. */
static int connect_peer_from(struct world *w, const char *address)
{
    struct sockaddr_in there = at(w), here = source(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0), accepted = w->accepted;
    assert_int_equal(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&there, sizeof there), 0);
    while (w->accepted == accepted)
        ev_run(w->loop, EVRUN_ONCE);
    return fd;
}

static int connect_peer(struct world *w)
{
    return connect_peer_from(w, "127.0.0.1");
}

static void say(struct world *w, int fd, size_t from, size_t to)
{
    assert_int_equal(send(fd, hello + from, to - from, 0), to - from);
    some_turns(w);
}

static void assert_costs_nothing(struct world *w)
{
    assert_null(w->server.stream->tls->ssl);
    assert_int_equal(w->hub->handshakes, 0);
    assert_int_equal(w->hub->hello_count, 0);
    /* It may go when there is no room, and does not have for ever. */
    assert_true(stream_silent(w->server.stream));
    assert_ptr_equal(w->hub->deadlines[STREAM_UNTIL_HELLO].next, &w->server.stream->link);
}

static void test_part_of_a_hello_costs_nothing(void **state)
{
    static const size_t ends[] = {1, 4, 5, 60, 104};
    struct world *w = *state;
    listen_tls(w);
    for (size_t n = 0; n < sizeof ends / sizeof ends[0]; n++) {
        w->server = (struct side){.world = w};
        int fd = connect_peer(w);
        say(w, fd, 0, ends[n]);
        assert_costs_nothing(w);
        say(w, fd, ends[n], 105);
        while (!w->server.closed)
            run(w);
        assert_int_equal(w->server.why, ERR_PROTOCOL);
        close(fd);
    }
}

/* We are not told of each byte. */
static void test_a_hello_byte_by_byte(void **state)
{
    struct world *w = *state;
    listen_tls(w);
    int fd = connect_peer(w);
    for (size_t n = 0; n < 104; n++) {
        say(w, fd, n, n + 1);
        assert_costs_nothing(w);
    }
    assert_int_equal(w->server.stream->peeks, 2);
    say(w, fd, 104, 105);
    while (!w->server.closed)
        run(w);
    assert_int_equal(w->server.why, ERR_PROTOCOL);
    close(fd);
}

static void test_gone_after_part_of_a_hello(void **state)
{
    struct world *w = *state;
    listen_tls(w);
    int fd = connect_peer(w);
    say(w, fd, 0, 60);
    assert_costs_nothing(w);
    close(fd);
    while (!w->server.closed)
        run(w);
    assert_int_equal(w->server.why, ERR_CLOSED);
    ev_run(w->loop, EVRUN_NOWAIT);
    assert_int_equal(w->hub->handshakes, 0);
}

/* --- whose turn it is --------------------------------------------------------------------------------------------- */

#define MANY 40

/* Those whose handshake has failed, in that order. */
struct ended {
    struct stream *streams[MANY + 1];
    unsigned count;
};

static void ended_close(struct stream *s, void *arg, enum err why)
{
    struct ended *e = arg;
    assert_int_equal(why, ERR_PROTOCOL);
    e->streams[e->count++] = s;
}

static const struct stream_handler ending = {.on_close = ended_close};

static uint8_t line(const struct world *w, const char *address)
{
    struct sockaddr_storage a = {0};
    struct sockaddr_in in = source(address);
    memcpy(&a, &in, sizeof in);
    return stream_line_of(w->hub, &a);
}

/* Strangers have no time until it is given to them. */
static void make_strangers_wait(struct world *w)
{
    w->hub->pushed_us = w->hub->pushing_us = clock_mono_us() + FAR_US;
}

static void give_strangers_time(struct world *w)
{
    w->hub->pushed_us = w->hub->pushing_us = w->hub->strangers_us = -FAR_US;
}

/* Many come from one address; who comes from another after them is the first or the second. */
static void test_addresses_take_turns(void **state)
{
    struct world *w = *state;
    struct ended ended = {.count = 0};
    int fds[MANY + 1];
    w->hub->line_seed = 1;
    assert_int_not_equal(line(w, "127.0.0.2"), line(w, "127.0.0.3"));
    listen_tls(w);
    for (int n = 0; n <= MANY; n++) {
        fds[n] = connect_peer_from(w, n < MANY ? "127.0.0.2" : "127.0.0.3");
        stream_set_handler(w->server.stream, &ending, &ended);
    }
    struct stream *last = w->server.stream;
    make_strangers_wait(w);
    for (int n = 0; n <= MANY; n++)
        say(w, fds[n], 0, sizeof hello);
    assert_int_equal(w->hub->hello_count, MANY + 1);
    assert_int_equal(w->hub->stats.handshakes_waited, MANY + 1 - STREAM_HELLOS_WATCHED);
    give_strangers_time(w);
    while (ended.count <= MANY)
        ev_run(w->loop, EVRUN_NOWAIT);
    assert_true(ended.streams[0] == last || ended.streams[1] == last);
    for (int n = 0; n <= MANY; n++)
        close(fds[n]);
}

/* --- those who are here go first ---------------------------------------------------------------------------------- */

static bool time_for_strangers(struct world *w)
{
    w->hub->strangers = STREAM_STRANGERS_UNDECIDED;
    return stream_time_for_strangers(w->hub);
}

static void test_an_awaited_answer_goes_first(void **state)
{
    struct world *w = *state;
    give_strangers_time(w);
    assert_true(time_for_strangers(w));
    stream_pushed(w->hub);
    w->hub->pushed_us += FAR_US; /* however slow this machine is */
    w->hub->pushing_us += FAR_US;
    assert_false(time_for_strangers(w));
    /* Answers never cease to be awaited: strangers have time all the same, and then wait again. */
    w->hub->pushing_us = w->hub->strangers_us = -FAR_US;
    assert_true(time_for_strangers(w));
    w->hub->strangers_us += FAR_US;
    assert_false(time_for_strangers(w));
}

/* Only what is pushed is awaited, and it is so from the moment it leaves. */
static void test_what_is_guarded_is_awaited(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    connect_client(w);
    run_until_open(w);
    give_strangers_time(w);
    stream_write(w->server.stream, "answer", 6);
    run_until_got(&w->client, 6);
    assert_int_equal(w->hub->pushed_us, -FAR_US);
    stream_write_guarded(w->server.stream, "push", 4);
    run_until_got(&w->client, 10);
    assert_true(w->hub->pushed_us > 0);
    assert_true(w->hub->pushing_us > 0);
}

/* Who waits for an answer keeps those at the door waiting, for a moment. */
static void test_strangers_are_not_accepted_before_answers(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    make_strangers_wait(w);
    connect_client(w);
    some_turns(w);
    assert_int_equal(w->accepted, 0);
    give_strangers_time(w);
    run_until_open(w);
    assert_int_equal(w->accepted, 1);
}

/* --- deadlines ---------------------------------------------------------------------------------------------------- */

/* What is to be done sooner is not looked for behind all who have more time. */
static void test_each_deadline_has_its_list(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    connect_client(w);
    run_until_open(w);
    struct stream *s = w->server.stream;
    for (int n = 0; n < STREAM_DEADLINES; n++) {
        stream_set_deadline(s, (enum stream_deadline)n, 60000);
        for (int other = 0; other < STREAM_DEADLINES; other++)
            assert_int_equal(list_empty(&w->hub->deadlines[other]), other != n);
        assert_true(ev_is_active(&w->hub->timer));
    }
    stream_clear_deadline(s);
    assert_true(list_empty(&w->hub->deadlines[STREAM_DEADLINES - 1]));
}

int main(void)
{
    log_init("test_stream_hello", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_part_of_a_hello_costs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hello_byte_by_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_after_part_of_a_hello, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addresses_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_awaited_answer_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_guarded_is_awaited, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strangers_are_not_accepted_before_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_deadline_has_its_list, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
