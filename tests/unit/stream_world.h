/* Two streams against each other over loopback, and what has happened to them: what the tests of streams stand on.
 * Owns: struct world. May call: cmocka, lib/base. Loop rule: runs a loop of its own. */
#ifndef MUSTER_TESTS_UNIT_STREAM_WORLD_H
#define MUSTER_TESTS_UNIT_STREAM_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

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
    bool lean_server, lean_client; /* whose TLS records are lean */
};

static inline uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 31 + (i >> 9));
}

static inline void pump(struct side *p)
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

static inline void on_open(struct stream *s, void *arg)
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

static inline size_t on_data(struct stream *s, void *arg, const uint8_t *data, size_t len)
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

static inline void on_drain(struct stream *s, void *arg)
{
    struct side *p = arg;
    assert_true(stream_writable(s));
    p->drained++;
    pump(p);
}

static inline void on_close(struct stream *s, void *arg, enum err why)
{
    struct side *p = arg;
    p->closed++;
    p->why = why;
    p->stream = NULL;
    stream_close(s); /* harmless */
    ev_break(p->world->loop, EVBREAK_ALL);
}

static const struct stream_handler handler = {
    .on_open = on_open, .on_data = on_data, .on_drain = on_drain, .on_close = on_close};
/* With limits of what may be left over. */
static const struct stream_handler little_handler = {
    .on_open = on_open, .on_data = on_data, .on_drain = on_drain, .on_close = on_close, .input_limit = 100};
static const struct stream_handler much_handler = {
    .on_open = on_open, .on_data = on_data, .on_drain = on_drain, .on_close = on_close, .input_limit = 16 << 20};

static inline void on_accept(struct stream *s, void *arg)
{
    struct world *w = arg;
    w->accepted++;
    w->server.stream = s;
    stream_set_handler(s, &handler, &w->server);
}

static inline void on_watchdog(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)w, (void)revents;
    fail_msg("nothing happened for 20 s");
}

static inline void make_path(char path[64])
{
    strcpy(path, "/tmp/muster-stream-XXXXXX");
    close(mkstemp(path));
}

static inline int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
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

static inline int teardown(void **state)
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

static inline void use_tls(struct world *w)
{
    struct tls_options server = {
        .cert_file = w->cert, .key_file = w->key, .alpn = "h2", .server = true, .lean = w->lean_server};
    struct tls_options client = {.ca_file = w->cert, .alpn = "h2", .server_name = "localhost", .lean = w->lean_client};
    w->server_tls = tls_new(&server);
    w->client_tls = tls_new(&client);
    assert_non_null(w->server_tls);
    assert_non_null(w->client_tls);
}

static inline void listen_on(struct world *w, const char *address, int timeout_ms)
{
    w->listener = stream_listen(w->hub, address, w->server_tls, timeout_ms, on_accept, w);
    assert_non_null(w->listener);
}

static inline void connect_client(struct world *w)
{
    uint16_t port = (uint16_t)stream_listener_port(w->listener);
    w->client.stream = stream_connect(w->hub, "127.0.0.1", port, w->client_tls, NULL, &handler, &w->client);
    assert_non_null(w->client.stream);
}

static inline void run(struct world *w)
{
    ev_run(w->loop, 0);
}

/* Runs until both sides are open. */
static inline void run_until_open(struct world *w)
{
    while (!w->server.opened || !w->client.opened)
        ev_run(w->loop, EVRUN_ONCE);
}

static inline void assert_pattern(const struct buf *b, size_t len)
{
    assert_int_equal(buf_len(b), len);
    for (size_t i = 0; i < len; i++) {
        if (buf_head(b)[i] != pattern(i))
            fail_msg("byte %zu differs", i);
    }
}

/* The client sends `len` bytes, the server echoes, both count; then an orderly end. */
static inline void echo(struct world *w, size_t len)
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
    if (w->client.stream->secure) {
        assert_null(w->client.stream->tls->wire);
        assert_null(w->client.stream->tls->part);
    }
    assert_int_equal(stream_pending(w->client.stream), 0);
    stream_shutdown(w->client.stream);
    while (!w->client.closed || !w->server.closed)
        run(w);
    assert_int_equal(w->client.why, ERR_CLOSED);
    assert_int_equal(w->server.why, ERR_CLOSED);
    assert_int_equal(w->client.closed + w->server.closed, 2);
}

static inline bool as_told(void *arg)
{
    return *(bool *)arg;
}

static inline void some_turns(struct world *w)
{
    for (int i = 0; i < 50; i++)
        ev_run(w->loop, EVRUN_NOWAIT);
}

static inline void run_until_got(struct side *side, size_t len)
{
    while (buf_len(&side->got) < len)
        ev_run(side->world->loop, EVRUN_ONCE);
}

/* Guarded output stays while the guard refuses, input comes all the same; released it goes, in order. */
static inline void hold_and_release(struct world *w)
{
    bool may = false;
    connect_client(w);
    run_until_open(w);
    stream_hub_guard(w->hub, as_told, &may);
    stream_write(w->server.stream, "a", 1);
    run_until_got(&w->client, 1);
    stream_write_guarded(w->server.stream, "bc", 2);
    stream_write(w->server.stream, "d", 1);
    some_turns(w);
    stream_write(w->client.stream, "x", 1);
    run_until_got(&w->server, 1);
    some_turns(w);
    assert_int_equal(buf_len(&w->client.got), 1);
    may = true;
    stream_hub_release(w->hub);
    run_until_got(&w->client, 4);
    may = false;
    stream_write(w->server.stream, "e", 1); /* nothing guarded is left in front of it */
    run_until_got(&w->client, 5);
    assert_memory_equal(buf_head(&w->client.got), "abcde", 5);
}

/* In the midst of sending the guard begins to refuse: what the kernel has goes, and not a byte more; then it is
 * dropped.
 */
static inline void hold_and_drop(struct world *w)
{
    bool may = true;
    size_t len = much_handler.input_limit;
    uint8_t *much = calloc(1, len);
    connect_client(w);
    run_until_open(w);
    stream_hub_guard(w->hub, as_told, &may);
    stream_pause(w->client.stream, true);
    stream_write_guarded(w->server.stream, much, len);
    some_turns(w);
    may = false;
    size_t pending = stream_pending(w->server.stream);
    assert_true(pending > 0);
    stream_set_handler(w->client.stream, &much_handler, &w->client);
    stream_pause(w->client.stream, false);
    for (int i = 0; i < 20; i++)
        some_turns(w);
    assert_int_equal(stream_pending(w->server.stream), pending);
    stream_hub_drop_guarded(w->hub);
    assert_int_equal(w->server.why, ERR_FENCED);
    while (!w->client.closed)
        run(w);
    assert_true(buf_len(&w->client.got) <= len - pending + TLS_RECORD_MAX);
    free(much);
}

static inline void pause_and_resume(struct world *w)
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

#endif
