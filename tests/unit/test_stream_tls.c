/* TLS streams against each other over loopback, with OpenSSL's records and lean ones at either end: everything a stream
 * promises holds with both; bad peers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "tests/unit/stream_world.h"

/* A failed handshake is not counted any more once the stream is reaped. */
static void assert_no_handshakes(struct world *w)
{
    ev_run(w->loop, EVRUN_NOWAIT);
    assert_int_equal(w->hub->handshakes, 0);
}

static bool is_lean(const struct stream *s)
{
    return s->is_lean;
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
    assert_int_equal(is_lean(w->client.stream), w->lean_client);
    assert_int_equal(is_lean(w->server.stream), w->lean_server);
    if (!w->lean_client)
        assert_int_equal(SSL_version(w->client.stream->tls->ssl), TLS1_3_VERSION);
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
        if (is_lean(asking))
            tls_channel_renew(asking->tls->lean);
        else
            assert_int_equal(SSL_key_update(asking->tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
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

static void test_pause_tls(void **state)
{
    use_tls(*state);
    listen_on(*state, "127.0.0.1:0", 5000);
    pause_and_resume(*state);
}

static void test_guard_tls(void **state)
{
    use_tls(*state);
    listen_on(*state, "127.0.0.1:0", 5000);
    hold_and_release(*state);
}

static void test_guard_drops_tls(void **state)
{
    use_tls(*state);
    listen_on(*state, "127.0.0.1:0", 5000);
    hold_and_drop(*state);
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
    int before = w->client.drained; /* the kernel may have taken some late */
    stream_pause(w->server.stream, false);
    while (w->client.drained == before)
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
    assert_no_handshakes(w);
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
    assert_no_handshakes(w);
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
    assert_no_handshakes(w);
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

/* --- a crowd ------------------------------------------------------------------------------------------------------ */

#define CROWD_CLIENTS 100

struct crowd {
    unsigned clients_open, servers_open, closed;
    unsigned most; /* handshakes at a time */
    struct stream_hub *hub;
};

static void crowd_client_open(struct stream *s, void *arg)
{
    (void)s;
    ((struct crowd *)arg)->clients_open++;
}

static void crowd_server_open(struct stream *s, void *arg)
{
    (void)s;
    struct crowd *c = arg;
    c->servers_open++;
    if (c->hub->handshakes > c->most)
        c->most = c->hub->handshakes;
}

static void crowd_close(struct stream *s, void *arg, enum err why)
{
    (void)s, (void)why;
    ((struct crowd *)arg)->closed++;
}

static const struct stream_handler crowd_client = {.on_open = crowd_client_open, .on_close = crowd_close},
                                   crowd_server = {.on_open = crowd_server_open, .on_close = crowd_close};

/* No TLS, and gone at once. */
static void crowd_garbage_open(struct stream *s, void *arg)
{
    crowd_client_open(s, arg);
    stream_write(s, "GET / HTTP/1.1\r\n\r\n", 18);
    stream_shutdown(s);
}

static const struct stream_handler crowd_garbage = {.on_open = crowd_garbage_open, .on_close = crowd_close};

static void crowd_accept(struct stream *s, void *arg)
{
    stream_set_handler(s, &crowd_server, arg);
}

static void connect_crowd(struct world *w, struct crowd *c, const struct stream_handler *client)
{
    w->listener = stream_listen(w->hub, "127.0.0.1:0", w->server_tls, 10000, crowd_accept, c);
    assert_non_null(w->listener);
    uint16_t port = (uint16_t)stream_listener_port(w->listener);
    for (unsigned i = 0; i < CROWD_CLIENTS; i++)
        assert_non_null(stream_connect(w->hub, "127.0.0.1", port, w->client_tls, NULL, client, c));
}

/* Many at once: every handshake is counted to its end, and then memory was given back. */
static void test_tls_crowd(void **state)
{
    struct world *w = *state;
    struct crowd c = {.hub = w->hub};
    use_tls(w);
    connect_crowd(w, &c, &crowd_client);
    while (c.clients_open < CROWD_CLIENTS || c.servers_open < CROWD_CLIENTS)
        ev_run(w->loop, EVRUN_ONCE);
    assert_int_equal(c.closed, 0);
    assert_true(c.most >= STREAM_CROWD);
    assert_int_equal(w->hub->handshakes, 0);
    assert_true(w->hub->handshakes_peak < STREAM_CROWD);
    assert_int_equal(w->hub->hello_count, 0);
}

static void test_crowd_of_garbage(void **state)
{
    struct world *w = *state;
    struct crowd c = {.hub = w->hub};
    use_tls(w);
    tls_free(&w->client_tls);
    connect_crowd(w, &c, &crowd_garbage);
    while (c.closed < 2 * CROWD_CLIENTS)
        ev_run(w->loop, EVRUN_ONCE);
    assert_int_equal(c.servers_open, 0);
    assert_int_equal(w->hub->hello_count, 0);
    assert_no_handshakes(w);
}

/* Streams that are closed while they wait for their turn. */
static void test_closed_in_line(void **state)
{
    struct world *w = *state;
    struct crowd c = {.hub = w->hub};
    use_tls(w);
    connect_crowd(w, &c, &crowd_client);
    while (w->hub->hello_count <= STREAM_HELLOS_WATCHED)
        ev_run(w->loop, EVRUN_ONCE);
    stream_listener_free(&w->listener);
    stream_hub_free(&w->hub);
    assert_int_equal(c.closed, 0);
}

/* --- which records at which end ----------------------------------------------------------------------------------- */

static int setup_lean(void **state)
{
    setup(state);
    struct world *w = *state;
    w->lean_server = w->lean_client = true;
    return 0;
}

static int setup_lean_server(void **state)
{
    setup(state);
    ((struct world *)*state)->lean_server = true;
    return 0;
}

static int setup_lean_client(void **state)
{
    setup(state);
    ((struct world *)*state)->lean_client = true;
    return 0;
}

#define TLS_TEST(fn)                                                                                                   \
    {#fn, fn, setup, teardown, NULL}, {#fn "_lean", fn, setup_lean, teardown, NULL},                                   \
        {#fn "_lean_server", fn, setup_lean_server, teardown, NULL},                                                   \
    {                                                                                                                  \
#fn "_lean_client", fn, setup_lean_client, teardown, NULL                                                      \
    }

int main(void)
{
    log_init("test_stream_tls", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        TLS_TEST(test_tls_echo),
        TLS_TEST(test_tls_large),
        TLS_TEST(test_tls_facts),
        TLS_TEST(test_tls_key_update),
        TLS_TEST(test_tls_crowd),
        TLS_TEST(test_crowd_of_garbage),
        TLS_TEST(test_closed_in_line),
        TLS_TEST(test_tls_cut_everywhere),
        TLS_TEST(test_pause_tls),
        TLS_TEST(test_guard_tls),
        TLS_TEST(test_guard_drops_tls),
        TLS_TEST(test_drain_after_small_writes),
        TLS_TEST(test_close_in_open),
        TLS_TEST(test_close_in_data),
        TLS_TEST(test_wrong_name),
        TLS_TEST(test_name_may_be_an_address),
        TLS_TEST(test_wrong_alpn),
        TLS_TEST(test_garbage_for_tls),
        TLS_TEST(test_silent_client_times_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
