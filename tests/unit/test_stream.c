/* Plain streams against each other over loopback: leftovers, limits, pauses, closing, bad addresses. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "tests/unit/stream_world.h"

static void test_plain_echo(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    echo(w, 100);
}

static void test_plain_large(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    echo(w, 5 << 20);
    assert_true(w->client.drained > 0);
}

static void test_unix_echo(void **state)
{
    struct world *w = *state;
    char path[64], address[80];
    make_path(path);
    snprintf(address, sizeof address, "unix:%s", path);
    listen_on(w, address, 0);
    w->client.to_send = w->client.want = 1000;
    w->server.echo = true;
    w->client.stream = stream_connect(w->hub, address, 0, NULL, NULL, &handler, &w->client);
    assert_non_null(w->client.stream);
    run(w);
    assert_pattern(&w->client.got, 1000);
    assert_string_equal(stream_peer(w->server.stream), "unix");
    stream_listener_free(&w->listener);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_leftovers_come_again(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    w->server.keep_back = 10;
    w->server.want = 300000;
    w->client.to_send = 300000;
    connect_client(w);
    while (buf_len(&w->server.got) < 300000)
        run(w);
    assert_pattern(&w->server.got, 300000);
    assert_null(w->server.stream->in);
}

static void test_input_limit(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    connect_client(w);
    run_until_open(w);
    stream_set_handler(w->server.stream, &little_handler, &w->server);
    w->server.keep_back = w->server.want = 1000;
    w->client.to_send = 100;
    pump(&w->client);
    while (!w->server.stream->in || buf_len(w->server.stream->in) < 100)
        ev_run(w->loop, EVRUN_ONCE);
    assert_int_equal(w->server.closed, 0);
    w->client.to_send = 1;
    pump(&w->client);
    while (!w->server.closed)
        run(w);
    assert_int_equal(w->server.why, ERR_LIMIT);
    while (!w->client.closed)
        run(w);
}

static void test_pause_plain(void **state)
{
    listen_on(*state, "127.0.0.1:0", 0);
    pause_and_resume(*state);
}

static void test_guard_plain(void **state)
{
    listen_on(*state, "127.0.0.1:0", 0);
    hold_and_release(*state);
}

static void test_guard_drops_plain(void **state)
{
    listen_on(*state, "127.0.0.1:0", 0);
    hold_and_drop(*state);
}

/* What is being shut down is guarded as well. */
static void test_guard_holds_last_words(void **state)
{
    struct world *w = *state;
    bool may = false;
    listen_on(w, "127.0.0.1:0", 0);
    connect_client(w);
    run_until_open(w);
    stream_hub_guard(w->hub, as_told, &may);
    stream_write_guarded(w->server.stream, "told", 4);
    stream_shutdown(w->server.stream);
    some_turns(w);
    stream_hub_drop_guarded(w->hub);
    assert_int_equal(w->server.why, ERR_FENCED);
    while (!w->client.closed)
        run(w);
    assert_int_equal(buf_len(&w->client.got), 0);
}

/* What was kept while the stream was paused, and what has come since, are had at once. */
static void test_receive_now(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    connect_client(w);
    run_until_open(w);
    w->server.pause_in_data = true;
    stream_write(w->client.stream, "kept", 4);
    run(w);
    stream_write(w->client.stream, "new", 3);
    some_turns(w);
    assert_int_equal(buf_len(&w->server.got), 0);
    stream_pause(w->server.stream, false);
    stream_receive(w->server.stream);
    assert_int_equal(buf_len(&w->server.got), 7);
}

/* The server answers and shuts down while the client goes on sending: the answer arrives all the same. */
static void test_last_words_survive_unread_input(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    connect_client(w);
    run_until_open(w);
    w->client.to_send = 3 << 20;
    pump(&w->client);
    stream_write(w->server.stream, "bye", 3);
    stream_shutdown(w->server.stream);
    stream_write(w->server.stream, "unheard", 7);
    while (!w->client.closed)
        run(w);
    assert_int_equal(buf_len(&w->client.got), 3);
    assert_memory_equal(buf_head(&w->client.got), "bye", 3);
    while (!w->server.closed)
        run(w);
    assert_int_equal(w->server.why, ERR_CLOSED);
}

static void test_refused(void **state)
{
    struct world *w = *state;
    listen_on(w, "127.0.0.1:0", 0);
    uint16_t port = (uint16_t)stream_listener_port(w->listener);
    stream_listener_free(&w->listener);
    w->client.stream = stream_connect(w->hub, "127.0.0.1", port, NULL, "127.0.0.1", &handler, &w->client);
    if (w->client.stream) {
        run(w);
        assert_int_equal(w->client.why, ERR_UNAVAILABLE);
    }
    assert_null(stream_connect(w->hub, "127.0.0.1", port, NULL, "203.0.113.7", &handler, &w->client));
}

static void test_bad_files_and_addresses(void **state)
{
    struct world *w = *state;
    struct tls_options none = {.server = true},
                       missing = {.cert_file = "/nonexistent", .key_file = w->key, .server = true};
    struct tls_options mixed = {.cert_file = w->cert, .key_file = w->cert, .server = true}, ca = {.ca_file = w->key};
    assert_null(tls_new(&none));
    assert_null(tls_new(&missing));
    assert_null(tls_new(&mixed));
    assert_null(tls_new(&ca));
    static const char *const bad[] = {
        "", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:8x", "unix:", "203.0.113.7:0"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_null(stream_listen(w->hub, bad[i], NULL, 0, on_accept, w));
}

static void test_out_of_descriptors(void **state)
{
    struct world *w = *state;
    struct rlimit old, low;
    listen_on(w, "127.0.0.1:0", 0);
    connect_client(w);
    getrlimit(RLIMIT_NOFILE, &old);
    /* One more than the next free number: nothing can be accepted. */
    int next = dup(0);
    close(next);
    low = old;
    low.rlim_cur = (rlim_t)next;
    setrlimit(RLIMIT_NOFILE, &low);
    while (!ev_is_active(&w->client.stream->io) || !w->client.opened)
        ev_run(w->loop, EVRUN_ONCE);
    ev_run(w->loop, EVRUN_ONCE);
    assert_int_equal(w->accepted, 0);
    setrlimit(RLIMIT_NOFILE, &old);
    while (!w->accepted)
        ev_run(w->loop, EVRUN_ONCE);
}

#define WORLD_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

/* --- hurry -------------------------------------------------------------------------------------------------------- */

#define CROWD 200

/* Streams of the hub to sockets of ours, all open. */
static void connect_crowd(struct world *w, struct stream **streams, int *peers)
{
    static const struct stream_handler none = {0};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(bind(listener, (struct sockaddr *)&at, len), errno);
    assert_return_code(listen(listener, CROWD), errno);
    assert_return_code(getsockname(listener, (struct sockaddr *)&at, &len), errno);
    for (unsigned i = 0; i < CROWD; i++) {
        streams[i] = stream_connect(w->hub, "127.0.0.1", ntohs(at.sin_port), NULL, NULL, &none, NULL);
        assert_non_null(streams[i]);
        peers[i] = accept(listener, NULL, NULL);
        assert_return_code(peers[i], errno);
    }
    for (unsigned i = 0; i < CROWD; i++)
        while (streams[i]->state != STREAM_OPEN)
            ev_run(w->loop, EVRUN_ONCE);
    close(listener);
}

/* Bytes that have come to a peer and were not read yet. */
static unsigned came(int peer)
{
    int n = 0;
    assert_return_code(ioctl(peer, FIONREAD, &n), errno);
    return (unsigned)n;
}

/* More have output than are served in a turn: those in a hurry first, but some of the others too. */
static void test_hurry(void **state)
{
    struct world *w = *state;
    struct stream *streams[CROWD];
    int peers[CROWD];
    unsigned hurried = 0, others = 0;
    connect_crowd(w, streams, peers);
    for (unsigned i = 0; i < CROWD; i++)
        stream_write(streams[i], "x", 1);
    for (unsigned i = CROWD / 2; i < CROWD; i++)
        stream_hurry(streams[i]);
    ev_run(w->loop, EVRUN_NOWAIT);
    for (unsigned i = 0; i < CROWD; i++)
        *(i < CROWD / 2 ? &others : &hurried) += came(peers[i]);
    assert_int_equal(hurried, STREAM_HURRIED_PER_TURN);
    assert_int_equal(others, STREAM_FLUSHES_PER_TURN - STREAM_HURRIED_PER_TURN);
    assert_int_equal(came(peers[CROWD / 2]) + came(peers[CROWD / 2 + STREAM_HURRIED_PER_TURN - 1]), 2); /* in order */
    for (unsigned i = 0; i < CROWD; i++) {
        while (came(peers[i]) < 1)
            ev_run(w->loop, EVRUN_NOWAIT);
        close(peers[i]);
        stream_hurry(streams[i]); /* has nothing to send */
        stream_close(streams[i]);
    }
}

/* --- between streams ---------------------------------------------------------------------------------------------- */

struct scene {
    struct stream *told;
    int peer; /* of `told` */
    unsigned heard, heard_after, looks;
};

/* As Redis's answers, this comes before what streams say in the same turn. */
static void on_order(struct ev_loop *loop, ev_io *io, int revents)
{
    const struct scene *scene = io->data;
    (void)revents;
    ev_io_stop(loop, io);
    stream_write(scene->told, "x", 1);
    stream_hurry(scene->told);
}

static size_t on_word(struct stream *s, void *arg, const uint8_t *data, size_t len)
{
    struct scene *scene = arg;
    (void)s, (void)data;
    scene->heard++;
    scene->heard_after += came(scene->peer) > 0;
    return len;
}

static void on_look(void *arg)
{
    ((struct scene *)arg)->looks++;
}

/* All but the first one say something, and are heard in as many turns as that takes. */
static void hear_crowd(struct world *w, struct scene *scene, struct stream **streams, const int *peers)
{
    static const struct stream_handler words = {.on_data = on_word};
    scene->told = streams[0];
    scene->peer = peers[0];
    for (unsigned i = 1; i < CROWD; i++) {
        stream_set_handler(streams[i], &words, scene);
        assert_int_equal(write(peers[i], "x", 1), 1);
    }
    while (scene->heard < CROWD - 1)
        ev_run(w->loop, EVRUN_ONCE);
}

static void close_crowd(struct stream **streams, const int *peers)
{
    for (unsigned i = 0; i < CROWD; i++) {
        close(peers[i]);
        stream_close(streams[i]);
    }
}

static void test_hurry_before_others_are_heard(void **state)
{
    struct world *w = *state;
    struct stream *streams[CROWD];
    struct scene scene = {0};
    int peers[CROWD], order[2];
    ev_io io;
    connect_crowd(w, streams, peers);
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, order), errno);
    ev_io_init(&io, on_order, order[0], EV_READ);
    ev_set_priority(&io, 1);
    io.data = &scene;
    ev_io_start(w->loop, &io);
    assert_int_equal(write(order[1], "x", 1), 1);
    hear_crowd(w, &scene, streams, peers);
    assert_int_equal(scene.heard_after, CROWD - 1);
    close_crowd(streams, peers);
    close(order[0]);
    close(order[1]);
}

static void test_look_between(void **state)
{
    struct world *w = *state;
    struct stream *streams[CROWD];
    struct scene scene = {0};
    int peers[CROWD];
    connect_crowd(w, streams, peers);
    stream_hub_look(w->hub, on_look, &scene);
    hear_crowd(w, &scene, streams, peers);
    assert_int_equal(scene.looks, (CROWD - 1) / STREAM_LOOK_EVERY);
    stream_hub_look(w->hub, NULL, NULL);
    close_crowd(streams, peers);
}

int main(void)
{
    log_init("test_stream", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_plain_echo),
        WORLD_TEST(test_plain_large),
        WORLD_TEST(test_unix_echo),
        WORLD_TEST(test_leftovers_come_again),
        WORLD_TEST(test_input_limit),
        WORLD_TEST(test_pause_plain),
        WORLD_TEST(test_last_words_survive_unread_input),
        WORLD_TEST(test_receive_now),
        WORLD_TEST(test_guard_plain),
        WORLD_TEST(test_guard_drops_plain),
        WORLD_TEST(test_guard_holds_last_words),
        WORLD_TEST(test_refused),
        WORLD_TEST(test_bad_files_and_addresses),
        WORLD_TEST(test_out_of_descriptors),
        WORLD_TEST(test_hurry),
        WORLD_TEST(test_hurry_before_others_are_heard),
        WORLD_TEST(test_look_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
