/* Streams against each other over loopback: plain, TLS, unix; leftovers, limits, pauses, closing anywhere, bad peers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "lib/base/stream_internal.h"
#include "tests/unit/certificate.h"

/* One side of a connection under test, and what has happened to it. */
struct side {
    struct world *world;
    struct stream *stream;
    struct buf got;
    size_t want;      /* stop the loop when so many bytes have come */
    size_t keep_back; /* bytes on_data leaves over while fewer than `want` have come */
    bool echo, close_in_open, close_in_data, shut_in_data, pause_in_data;
    size_t to_send; /* bytes still to generate, sent as on_drain allows */
    size_t sent;
    int opened, drained, closed;
    enum err why;
};

struct world {
    struct ev_loop *loop;
    struct stream_hub *hub;
    struct tls *server_tls, *client_tls;
    struct stream_listener *listener;
    struct side server, client;
    ev_timer watchdog;
    char cert[64], key[64];
    int accepted;
};

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 31 + (i >> 9));
}

static void pump(struct side *p)
{
    uint8_t chunk[5000];
    while (p->to_send > 0 && stream_writable(p->stream)) {
        size_t n = p->to_send < sizeof chunk ? p->to_send : sizeof chunk;
        for (size_t i = 0; i < n; i++)
            chunk[i] = pattern(p->sent + i);
        stream_write(p->stream, chunk, n);
        p->sent += n;
        p->to_send -= n;
    }
}

static void on_open(struct stream *s, void *arg)
{
    struct side *p = arg;
    p->opened++;
    if (p->close_in_open) {
        stream_close(s);
        ev_break(p->world->loop, EVBREAK_ALL);
        return;
    }
    pump(p);
}

static size_t on_data(struct stream *s, void *arg, const uint8_t *data, size_t len)
{
    struct side *p = arg;
    if (p->close_in_data) {
        stream_close(s);
        ev_break(p->world->loop, EVBREAK_ALL);
        return 0;
    }
    if (p->pause_in_data) {
        p->pause_in_data = false;
        stream_pause(s, true);
        ev_break(p->world->loop, EVBREAK_ALL);
        return 0;
    }
    size_t use = len;
    if (p->keep_back && buf_len(&p->got) + len < p->want)
        use = len > p->keep_back ? len - p->keep_back : 0;
    buf_put(&p->got, data, use);
    if (p->echo)
        stream_write(s, data, use);
    if (p->shut_in_data)
        stream_shutdown(s);
    if (p->want && buf_len(&p->got) >= p->want)
        ev_break(p->world->loop, EVBREAK_ALL);
    return use;
}

static void on_drain(struct stream *s, void *arg)
{
    struct side *p = arg;
    assert_true(stream_writable(s));
    p->drained++;
    pump(p);
}

static void on_close(struct stream *s, void *arg, enum err why)
{
    struct side *p = arg;
    p->closed++;
    p->why = why;
    p->stream = NULL;
    stream_close(s); /* harmless */
    ev_break(p->world->loop, EVBREAK_ALL);
}

static const struct stream_handler handler = {on_open, on_data, on_drain, on_close};

static void on_accept(struct stream *s, void *arg)
{
    struct world *w = arg;
    w->accepted++;
    w->server.stream = s;
    stream_set_handler(s, &handler, &w->server);
}

static void on_watchdog(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)w, (void)revents;
    fail_msg("nothing happened for 20 s");
}

static void make_path(char path[64])
{
    strcpy(path, "/tmp/muster-stream-XXXXXX");
    close(mkstemp(path));
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    w->loop = ev_loop_new(EVBACKEND_EPOLL);
    w->hub = stream_hub_new(w->loop);
    w->server.world = w->client.world = w;
    make_path(w->cert);
    make_path(w->key);
    make_certificate(w->cert, w->key);
    ev_timer_init(&w->watchdog, on_watchdog, 20, 0);
    ev_timer_start(w->loop, &w->watchdog);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    ev_timer_stop(w->loop, &w->watchdog);
    stream_listener_free(&w->listener);
    stream_hub_free(&w->hub);
    assert_null(w->hub);
    tls_free(&w->server_tls);
    tls_free(&w->client_tls);
    buf_free(&w->server.got);
    buf_free(&w->client.got);
    ev_loop_destroy(w->loop);
    unlink(w->cert);
    unlink(w->key);
    free(w);
    return 0;
}

static void use_tls(struct world *w)
{
    struct tls_options server = {.cert_file = w->cert, .key_file = w->key, .alpn = "h2", .server = true};
    struct tls_options client = {.ca_file = w->cert, .alpn = "h2", .server_name = "localhost"};
    w->server_tls = tls_new(&server);
    w->client_tls = tls_new(&client);
    assert_non_null(w->server_tls);
    assert_non_null(w->client_tls);
}

static void listen_on(struct world *w, const char *address, int timeout_ms)
{
    w->listener = stream_listen(w->hub, address, w->server_tls, timeout_ms, on_accept, w);
    assert_non_null(w->listener);
}

static void connect_client(struct world *w)
{
    uint16_t port = (uint16_t)stream_listener_port(w->listener);
    w->client.stream = stream_connect(w->hub, "127.0.0.1", port, w->client_tls, NULL, &handler, &w->client);
    assert_non_null(w->client.stream);
}

static void run(struct world *w)
{
    ev_run(w->loop, 0);
}

/* Runs until both sides are open. */
static void run_until_open(struct world *w)
{
    while (!w->server.opened || !w->client.opened)
        ev_run(w->loop, EVRUN_ONCE);
}

static void assert_pattern(const struct buf *b, size_t len)
{
    assert_int_equal(buf_len(b), len);
    for (size_t i = 0; i < len; i++) {
        if (buf_head(b)[i] != pattern(i))
            fail_msg("byte %zu differs", i);
    }
}

/* The client sends `len` bytes, the server echoes, both count; then an orderly end. */
static void echo(struct world *w, size_t len)
{
    w->server.echo = true;
    w->client.to_send = w->client.want = len;
    connect_client(w);
    while (buf_len(&w->client.got) < len)
        run(w);
    assert_pattern(&w->server.got, len);
    assert_pattern(&w->client.got, len);
    /* Idle: no buffers held. */
    assert_null(w->client.stream->in);
    assert_null(w->client.stream->out);
    assert_null(w->client.stream->wire);
    assert_int_equal(stream_pending(w->client.stream), 0);
    stream_shutdown(w->client.stream);
    while (!w->client.closed || !w->server.closed)
        run(w);
    assert_int_equal(w->client.why, ERR_CLOSED);
    assert_int_equal(w->server.why, ERR_CLOSED);
    assert_int_equal(w->client.closed + w->server.closed, 2);
}

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

static void test_tls_echo(void **state)
{
    struct world *w = *state;
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 5000);
    echo(w, 100);
}

static void test_tls_large(void **state)
{
    struct world *w = *state;
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 5000);
    echo(w, 5 << 20);
    assert_true(w->client.drained > 0);
}

static void test_tls_facts(void **state)
{
    struct world *w = *state;
    char peer[64];
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 5000);
    connect_client(w);
    run_until_open(w);
    assert_string_equal(stream_alpn(w->client.stream), "h2");
    assert_string_equal(stream_alpn(w->server.stream), "h2");
    snprintf(peer, sizeof peer, "127.0.0.1:%d", stream_listener_port(w->listener));
    assert_string_equal(stream_peer(w->client.stream), peer);
    assert_int_equal(SSL_version(w->client.stream->ssl), TLS1_3_VERSION);
}

/* New keys in the middle of a connection, asked for by either side (RFC 8446, 4.6.3). */
static void test_tls_key_update(void **state)
{
    struct world *w = *state;
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 5000);
    w->server.echo = true;
    connect_client(w);
    run_until_open(w);
    for (size_t round = 1; round <= 20; round++) {
        struct stream *asking = round % 2 ? w->client.stream : w->server.stream;
        assert_int_equal(SSL_key_update(asking->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        w->client.to_send = 1000;
        w->client.want = round * 1000;
        pump(&w->client);
        while (buf_len(&w->client.got) < w->client.want)
            run(w);
    }
    assert_pattern(&w->client.got, 20000);
}

/* Relays between two plain streams in pieces of 1 to 7 bytes, one a turn, so that records are cut everywhere. */
struct relay {
    struct world *world;
    struct stream_listener *listener;
    struct stream *ends[2];
    unsigned step;
};

static size_t relay_data(struct stream *s, void *arg, const uint8_t *data, size_t len)
{
    struct relay *r = arg;
    struct stream *other = r->ends[s == r->ends[0]];
    size_t n = 1 + r->step++ % 7;
    if (n > len)
        n = len;
    stream_write(other, data, n);
    if (n < len) {
        stream_pause(s, true);
        stream_pause(s, false);
    }
    return n;
}

static void relay_close(struct stream *s, void *arg, enum err why)
{
    (void)why;
    struct relay *r = arg;
    int i = s == r->ends[1];
    r->ends[i] = NULL;
    if (r->ends[!i])
        stream_shutdown(r->ends[!i]);
}

static const struct stream_handler relay_handler = {.on_data = relay_data, .on_close = relay_close};

static void relay_accept(struct stream *s, void *arg)
{
    struct relay *r = arg;
    uint16_t port = (uint16_t)stream_listener_port(r->world->listener);
    r->ends[0] = s;
    stream_set_handler(s, &relay_handler, r);
    r->ends[1] = stream_connect(r->world->hub, "127.0.0.1", port, NULL, NULL, &relay_handler, r);
    assert_non_null(r->ends[1]);
}

static void test_tls_cut_everywhere(void **state)
{
    struct world *w = *state;
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 5000);
    struct relay r = {.world = w};
    r.listener = stream_listen(w->hub, "127.0.0.1:0", NULL, 0, relay_accept, &r);
    assert_non_null(r.listener);
    w->server.echo = true;
    w->client.to_send = w->client.want = 20000;
    w->client.stream = stream_connect(w->hub, "127.0.0.1", (uint16_t)stream_listener_port(r.listener), w->client_tls,
                                      NULL, &handler, &w->client);
    while (buf_len(&w->client.got) < 20000)
        run(w);
    assert_pattern(&w->client.got, 20000);
    stream_shutdown(w->client.stream);
    while (!w->client.closed || !w->server.closed)
        run(w);
    stream_listener_free(&r.listener);
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
    stream_set_input_limit(w->server.stream, 100);
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

static void pause_and_resume(struct world *w)
{
    w->server.pause_in_data = true;
    w->client.to_send = w->server.want = 50000;
    connect_client(w);
    run(w);
    assert_int_equal(buf_len(&w->server.got), 0);
    /* Paused, the socket is not looked at: nothing comes up though the rest has been sent. */
    while (w->client.to_send > 0 || stream_pending(w->client.stream) > 0)
        ev_run(w->loop, EVRUN_ONCE);
    ev_run(w->loop, EVRUN_NOWAIT);
    assert_int_equal(buf_len(&w->server.got), 0);
    stream_pause(w->server.stream, false);
    while (buf_len(&w->server.got) < 50000)
        run(w);
    assert_pattern(&w->server.got, 50000);
}

static void test_pause_plain(void **state)
{
    listen_on(*state, "127.0.0.1:0", 0);
    pause_and_resume(*state);
}

static void test_pause_tls(void **state)
{
    use_tls(*state);
    listen_on(*state, "127.0.0.1:0", 5000);
    pause_and_resume(*state);
}

/* Written little by little to a peer that does not read: the encrypted part alone may make the difference between
 * writable and not, and whoever was told to wait must be told to go on. */
static void test_drain_after_small_writes(void **state)
{
    struct world *w = *state;
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 10000);
    connect_client(w);
    run_until_open(w);
    struct stream *s = w->client.stream;
    stream_pause(w->server.stream, true);
    uint8_t bytes[1000] = {0};
    while (stream_writable(s)) {
        stream_write(s, bytes, sizeof bytes);
        ev_run(w->loop, EVRUN_NOWAIT);
    }
    assert_int_equal(w->client.drained, 0);
    stream_pause(w->server.stream, false);
    while (!w->client.drained)
        ev_run(w->loop, EVRUN_ONCE);
    assert_true(stream_writable(s));
}

static void test_close_in_open(void **state)
{
    struct world *w = *state;
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 5000);
    w->server.close_in_open = true;
    connect_client(w);
    while (!w->client.closed)
        run(w);
    assert_int_equal(w->server.closed, 0);
}

static void test_close_in_data(void **state)
{
    struct world *w = *state;
    use_tls(w);
    listen_on(w, "127.0.0.1:0", 5000);
    w->server.close_in_data = true;
    w->client.to_send = 40000;
    connect_client(w);
    while (!w->client.closed)
        run(w);
    assert_int_equal(w->server.closed, 0);
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

static void test_wrong_name(void **state)
{
    struct world *w = *state;
    use_tls(w);
    tls_free(&w->client_tls);
    struct tls_options client = {.ca_file = w->cert, .alpn = "h2", .server_name = "elsewhere.test"};
    w->client_tls = tls_new(&client);
    listen_on(w, "127.0.0.1:0", 5000);
    connect_client(w);
    while (!w->client.closed || !w->server.closed)
        run(w);
    assert_int_equal(w->client.why, ERR_AUTH);
    assert_int_equal(w->server.why, ERR_PROTOCOL);
    assert_int_equal(w->client.opened, 0);
}

static void test_name_may_be_an_address(void **state)
{
    struct world *w = *state;
    use_tls(w);
    tls_free(&w->client_tls);
    struct tls_options client = {.ca_file = w->cert, .server_name = "127.0.0.1"};
    w->client_tls = tls_new(&client);
    listen_on(w, "127.0.0.1:0", 5000);
    connect_client(w);
    run_until_open(w);
    assert_string_equal(stream_alpn(w->server.stream), "");
}

static void test_wrong_alpn(void **state)
{
    struct world *w = *state;
    use_tls(w);
    tls_free(&w->client_tls);
    struct tls_options client = {.insecure = true, .alpn = "mqtt"};
    w->client_tls = tls_new(&client);
    listen_on(w, "127.0.0.1:0", 5000);
    connect_client(w);
    while (!w->client.closed || !w->server.closed)
        run(w);
    assert_int_equal(w->client.why, ERR_PROTOCOL);
    assert_int_equal(w->server.opened, 0);
}

static void test_garbage_for_tls(void **state)
{
    struct world *w = *state;
    use_tls(w);
    tls_free(&w->client_tls);
    listen_on(w, "127.0.0.1:0", 5000);
    w->client.to_send = 500;
    connect_client(w);
    while (!w->server.closed)
        run(w);
    assert_int_equal(w->server.why, ERR_PROTOCOL);
    assert_int_equal(w->server.opened, 0);
}

static void test_silent_client_times_out(void **state)
{
    struct world *w = *state;
    use_tls(w);
    tls_free(&w->client_tls);
    listen_on(w, "127.0.0.1:0", 20);
    connect_client(w);
    while (!w->server.closed)
        run(w);
    assert_int_equal(w->server.why, ERR_TIMEOUT);
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

int main(void)
{
    log_init("test_stream", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_plain_echo),
        WORLD_TEST(test_plain_large),
        WORLD_TEST(test_unix_echo),
        WORLD_TEST(test_tls_echo),
        WORLD_TEST(test_tls_large),
        WORLD_TEST(test_tls_facts),
        WORLD_TEST(test_tls_key_update),
        WORLD_TEST(test_tls_cut_everywhere),
        WORLD_TEST(test_leftovers_come_again),
        WORLD_TEST(test_input_limit),
        WORLD_TEST(test_pause_plain),
        WORLD_TEST(test_pause_tls),
        WORLD_TEST(test_drain_after_small_writes),
        WORLD_TEST(test_close_in_open),
        WORLD_TEST(test_close_in_data),
        WORLD_TEST(test_last_words_survive_unread_input),
        WORLD_TEST(test_wrong_name),
        WORLD_TEST(test_name_may_be_an_address),
        WORLD_TEST(test_wrong_alpn),
        WORLD_TEST(test_garbage_for_tls),
        WORLD_TEST(test_silent_client_times_out),
        WORLD_TEST(test_refused),
        WORLD_TEST(test_bad_files_and_addresses),
        WORLD_TEST(test_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
