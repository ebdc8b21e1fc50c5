/* Connections of the gRPC server: stream below, HTTP/2 session above. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/grpc_server_internal.h"
#include "lib/base/log.h"

/* --- what the session wants ----------------------------------------------------------------------------------------
 */

static struct h2_stream *on_begin(void *arg)
{
    struct grpc_call *call = grpc_call_new(arg);
    return call ? &call->stream : NULL;
}

static void on_pong(void *arg)
{
    struct grpc_conn *conn = arg;
    if (conn->stage == GRPC_CONN_NOTICED) {
        conn->stage = GRPC_CONN_LEAVING;
        h2_goaway(conn->h2);
    }
}

static const struct h2_events h2_events = {
    .on_begin = on_begin,
    .on_headers = grpc_call_on_headers,
    .on_data = grpc_call_on_data,
    .on_end = grpc_call_on_end,
    .on_drained = grpc_call_on_drained,
    .on_close = grpc_call_on_close,
    .on_pong = on_pong,
};

static void sink_write(void *arg, const uint8_t *data, size_t len)
{
    struct grpc_conn *conn = arg;
    conn->server->stats.bytes_out += len;
    if (conn->stream)
        stream_write(conn->stream, data, len);
}

static bool sink_writable(void *arg)
{
    struct grpc_conn *conn = arg;
    return !conn->stream || stream_writable(conn->stream);
}

static const struct h2_sink h2_sink = {sink_write, sink_writable};

/* --- what the stream says -------------------------------------------------------------------------------------------
 */

static void on_stream_open(struct stream *s, void *arg)
{
    struct grpc_conn *conn = arg;
    snprintf(conn->peer, sizeof conn->peer, "%s", stream_peer(s));
    if ((conn->tls && strcmp(stream_alpn(s), "h2") != 0) || !grpc_conn_start(conn))
        grpc_conn_free(conn);
}

static size_t on_stream_data(struct stream *s, void *arg, const uint8_t *data, size_t len)
{
    (void)s;
    struct grpc_conn *conn = arg;
    if (conn->h2)
        grpc_conn_feed(conn, data, len);
    return len;
}

static void on_stream_drain(struct stream *s, void *arg)
{
    (void)s;
    struct grpc_conn *conn = arg;
    if (conn->h2)
        grpc_server_mark_dirty(conn);
}

static void on_stream_close(struct stream *s, void *arg, enum err why)
{
    (void)s, (void)why;
    struct grpc_conn *conn = arg;
    conn->stream = NULL;
    grpc_conn_free(conn);
}

static const struct stream_handler stream_events = {.on_open = on_stream_open,
                                                    .on_data = on_stream_data,
                                                    .on_drain = on_stream_drain,
                                                    .on_close = on_stream_close,
                                                    .output_limit = GRPC_OUTPUT_LIMIT};

/* --- life --------------------------------------------------------------------------------------------------------- */

struct grpc_conn *grpc_conn_new(struct grpc_server *server, struct stream *stream, bool tls)
{
    struct grpc_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    conn->server = server;
    conn->stream = stream;
    conn->tls = tls;
    list_init(&conn->dirty);
    list_init(&conn->link);
    list_append(&server->strangers, &conn->link);
    server->stats.connections++;
    server->stats.connections_total++;
    if (stream)
        stream_set_handler(stream, &stream_events, conn);
    return conn;
}

bool grpc_conn_start(struct grpc_conn *conn)
{
    const struct grpc_server_options *o = &conn->server->options;
    struct h2_options options = {
        .server = true,
        .max_streams = o->max_streams,
        .max_header_list = o->max_header_list,
        .min_ping_interval = o->min_ping_interval_ms * 1000,
    };
    conn->h2 = h2_new(&options, &h2_events, &h2_sink, conn);
    if (!conn->h2)
        return false;
    if (conn->server->draining)
        grpc_conn_drain(conn);
    grpc_server_mark_dirty(conn);
    return true;
}

static void drop_session(struct grpc_conn *conn)
{
    if (conn->h2 && h2_was_flooded(conn->h2)) {
        conn->server->stats.goaway_floods++;
        log_warn("grpc_flood", "peer=%s", conn->peer);
    }
    list_remove(&conn->dirty);
    h2_free(&conn->h2);
}

void grpc_conn_free(struct grpc_conn *conn)
{
    drop_session(conn);
    list_remove(&conn->dirty);
    list_remove(&conn->link);
    conn->server->stats.connections--;
    if (conn->stream)
        stream_close(conn->stream);
    free(conn);
}

void grpc_conn_trust(struct grpc_conn *conn)
{
    if (conn->known)
        return;
    conn->known = true;
    list_remove(&conn->link);
    list_append(&conn->server->conns, &conn->link);
}

bool grpc_conn_drop_stranger(struct grpc_server *server)
{
    unsigned looked = 0;
    list_for_each (l, next, &server->strangers) {
        struct grpc_conn *conn = container_of(l, struct grpc_conn, link);
        if (++looked > GRPC_STRANGERS_LOOK)
            break;
        bool at_work = conn->h2 && h2_stream_count(conn->h2) > 0 && !h2_stalled_since(conn->h2);
        if (!conn->stream || !stream_silent(conn->stream) || at_work)
            continue;
        server->stats.strangers_dropped++;
        grpc_conn_free(conn);
        return true;
    }
    return false;
}

/* The session is over: the stream sends the rest of its output and closes. */
static void end(struct grpc_conn *conn)
{
    drop_session(conn);
    if (!conn->stream) {
        grpc_conn_free(conn);
        return;
    }
    conn->stage = GRPC_CONN_CLOSING;
    stream_shutdown(conn->stream);
}

void grpc_conn_pump(struct grpc_conn *conn)
{
    if (!conn->h2)
        return;
    if (h2_send(conn->h2) != ERR_OK)
        grpc_conn_free(conn);
    else if (h2_finished(conn->h2) || h2_was_flooded(conn->h2))
        end(conn);
}

void grpc_conn_feed(struct grpc_conn *conn, const uint8_t *data, size_t len)
{
    conn->server->stats.bytes_in += len;
    if (h2_receive(conn->h2, data, len) == ERR_OK) {
        grpc_server_mark_dirty(conn);
        return;
    }
    if (h2_send(conn->h2) != ERR_OK)
        grpc_conn_free(conn);
    else
        end(conn);
}

void grpc_conn_drain(struct grpc_conn *conn)
{
    if (conn->stage != GRPC_CONN_OPEN || !conn->h2)
        return;
    conn->stage = GRPC_CONN_NOTICED;
    conn->stage_since = clock_mono_us();
    h2_shutdown_notice(conn->h2);
    h2_ping(conn->h2);
    grpc_server_mark_dirty(conn);
}

static void check_idle(struct grpc_conn *conn, int64_t now)
{
    if (h2_stream_count(conn->h2) > 0)
        conn->idle_since = 0;
    else if (!conn->idle_since)
        conn->idle_since = now;
    else if (now - conn->idle_since >= conn->server->options.idle_timeout_ms * 1000)
        grpc_conn_drain(conn);
}

/* Returns false when the peer is dead. */
static bool check_alive(struct grpc_conn *conn, int64_t now)
{
    int64_t heard = h2_last_receive(conn->h2);
    if (conn->ping_sent && heard < conn->ping_sent)
        return now - conn->ping_sent < GRPC_KEEPALIVE_WAIT_US;
    conn->ping_sent = 0;
    if (now - heard >= GRPC_KEEPALIVE_US) {
        conn->ping_sent = now;
        h2_ping(conn->h2);
        grpc_server_mark_dirty(conn);
    }
    return true;
}

void grpc_conn_tick(struct grpc_conn *conn, int64_t now)
{
    if (!conn->h2)
        return;
    int64_t stalled = h2_stalled_since(conn->h2);
    if ((stalled && now - stalled >= GRPC_STALL_US) || !check_alive(conn, now)) {
        log_info("grpc_peer_stalled", "peer=%s", conn->peer);
        grpc_conn_free(conn);
        return;
    }
    check_idle(conn, now);
    if (conn->stage == GRPC_CONN_NOTICED && now - conn->stage_since >= GRPC_NOTICE_US) {
        conn->stage = GRPC_CONN_LEAVING;
        h2_goaway(conn->h2);
        grpc_server_mark_dirty(conn);
    }
}
