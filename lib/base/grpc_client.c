#include "lib/base/grpc_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/grpc_client_internal.h"

/* --- the turn ----------------------------------------------------------------------------------------------------- */

static void keep_awake(struct grpc_client *client)
{
    if (!ev_is_active(&client->awake))
        ev_idle_start(client->loop, &client->awake);
}

void client_mark_dirty(struct client_conn *conn)
{
    if (!list_empty(&conn->dirty))
        return;
    list_append(&conn->client->dirty, &conn->dirty);
    keep_awake(conn->client);
}

void client_call_later(struct grpc_client_call *call)
{
    list_remove(&call->lost);
    list_append(&call->client->lost, &call->lost);
    keep_awake(call->client);
}

/* Its calls hear of it as UNAVAILABLE. */
static void conn_free(struct client_conn *conn)
{
    struct grpc_client *client = conn->client;
    if (client->conn == conn)
        client->conn = NULL;
    conn->lost = true;
    h2_free(&conn->h2);
    list_remove(&conn->link);
    list_remove(&conn->dirty);
    if (conn->stream)
        stream_close(conn->stream);
    free(conn);
}

/* The session is over: what is still to be sent, such as a GOAWAY, is not worth a wait. */
static void pump(struct client_conn *conn)
{
    if (!conn->open)
        return;
    if (h2_send(conn->h2) != ERR_OK || h2_finished(conn->h2))
        conn_free(conn);
}

static void on_flush(struct ev_loop *loop, ev_prepare *w, int revents)
{
    (void)revents;
    struct grpc_client *client = container_of(w, struct grpc_client, flush);
    struct list *l;
    bool ending = false;
    client->flushing = true;
    while ((l = list_pop(&client->dirty)))
        pump(container_of(l, struct client_conn, dirty));
    while ((l = list_pop(&client->lost))) {
        ending = true;
        client_call_end(container_of(l, struct grpc_client_call, lost));
    }
    client->flushing = false;
    /* Who runs the loop once at a time, waiting for a status, must not sleep after it came. */
    if (client->doomed)
        grpc_client_free(&client);
    else if (ending)
        keep_awake(client);
    else
        ev_idle_stop(loop, &client->awake);
}

static void on_awake(struct ev_loop *loop, ev_idle *w, int revents)
{
    (void)loop, (void)w, (void)revents;
}

/* --- the connection -------------------------------------------------------------------------------------------------
 */

static void sink_write(void *arg, const uint8_t *data, size_t len)
{
    stream_write(((struct client_conn *)arg)->stream, data, len);
}

static bool sink_writable(void *arg)
{
    return stream_writable(((struct client_conn *)arg)->stream);
}

static const struct h2_sink client_sink = {sink_write, sink_writable};

static void on_stream_open(struct stream *s, void *arg)
{
    struct client_conn *conn = arg;
    if (conn->client->tls && strcmp(stream_alpn(s), "h2") != 0) {
        conn_free(conn);
        return;
    }
    conn->open = true;
    client_mark_dirty(conn);
}

static size_t on_stream_data(struct stream *s, void *arg, const uint8_t *data, size_t len)
{
    (void)s;
    struct client_conn *conn = arg;
    if (h2_receive(conn->h2, data, len) != ERR_OK)
        conn_free(conn);
    else
        client_mark_dirty(conn);
    return len;
}

static void on_stream_drain(struct stream *s, void *arg)
{
    (void)s;
    client_mark_dirty(arg);
}

static void on_stream_close(struct stream *s, void *arg, enum err why)
{
    (void)s;
    struct client_conn *conn = arg;
    conn->why = why;
    conn->stream = NULL;
    conn_free(conn);
}

static const struct stream_handler stream_events = {.on_open = on_stream_open,
                                                    .on_data = on_stream_data,
                                                    .on_drain = on_stream_drain,
                                                    .on_close = on_stream_close,
                                                    .output_limit = GRPC_CLIENT_OUTPUT_LIMIT};

struct client_conn *client_connect(struct grpc_client *client)
{
    if (client->conn)
        return client->conn;
    struct client_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    conn->client = client;
    list_init(&conn->link);
    list_init(&conn->dirty);
    struct h2_options options = {.max_header_list = GRPC_CLIENT_HEADER_LIST};
    conn->h2 = h2_new(&options, &client_h2_events, &client_sink, conn);
    if (conn->h2)
        conn->stream = stream_connect(client->hub, client->host, client->port, client->tls, NULL, &stream_events, conn);
    if (!conn->stream) {
        conn_free(conn);
        return NULL;
    }
    list_append(&client->conns, &conn->link);
    client->conn = conn;
    return conn;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

/* Splits "host:port" ("[::1]:7443" too); "unix:/path" has no port. */
static bool parse_target(struct grpc_client *client, const char *target)
{
    const char *colon = strrchr(target, ':');
    bool local = strncmp(target, "unix:", 5) == 0;
    size_t len = local || !colon ? strlen(target) : (size_t)(colon - target);
    const char *host = target;
    if (!local) {
        char *end;
        unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
        if (!colon || *end || port == 0 || port > 65535)
            return false;
        client->port = (uint16_t)port;
        if (len >= 2 && target[0] == '[' && target[len - 1] == ']') {
            host++;
            len -= 2;
        }
    }
    client->host = strndup(host, len);
    client->authority = strdup(local ? "localhost" : target);
    return client->host && client->authority;
}

struct grpc_client *grpc_client_new(struct stream_hub *hub, const char *target, struct tls *tls)
{
    struct grpc_client *client = calloc(1, sizeof *client);
    if (!client)
        return NULL;
    client->hub = hub;
    client->loop = stream_hub_loop(hub);
    client->tls = tls;
    list_init(&client->conns);
    list_init(&client->dirty);
    list_init(&client->lost);
    ev_prepare_init(&client->flush, on_flush);
    ev_prepare_start(client->loop, &client->flush);
    ev_unref(client->loop);
    ev_idle_init(&client->awake, on_awake);
    /* A target that is none is found out by the first call: UNAVAILABLE. */
    if (!parse_target(client, target)) {
        free(client->host);
        client->host = NULL;
        if (!client->authority)
            client->authority = strdup("localhost");
    }
    return client;
}

void grpc_client_free(struct grpc_client **clientp)
{
    struct grpc_client *client = *clientp;
    if (!client)
        return;
    struct list *l;
    *clientp = NULL;
    client->doomed = true;
    while (!list_empty(&client->conns))
        conn_free(container_of(client->conns.next, struct client_conn, link));
    while ((l = list_pop(&client->lost)))
        client_call_end(container_of(l, struct grpc_client_call, lost));
    if (client->flushing)
        return;
    ev_ref(client->loop);
    ev_prepare_stop(client->loop, &client->flush);
    ev_idle_stop(client->loop, &client->awake);
    while (client->metadata) {
        struct client_metadata *next = client->metadata->next;
        free(client->metadata->key);
        free(client->metadata->value);
        free(client->metadata);
        client->metadata = next;
    }
    free(client->host);
    free(client->authority);
    free(client);
}

void grpc_client_metadata(struct grpc_client *client, const char *key, const char *value)
{
    struct client_metadata *m = calloc(1, sizeof *m);
    if (!m)
        return;
    m->key = strdup(key);
    m->value = strdup(value);
    if (!m->key || !m->value) {
        free(m->key);
        free(m->value);
        free(m);
        return;
    }
    m->next = client->metadata;
    client->metadata = m;
}

/* --- one call, waited for
 * --------------------------------------------------------------------------------------------- */

struct unary {
    ProtobufCMessage *response;
    struct status *status;
    bool done;
};

static void unary_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct unary *u = arg;
    /* The message lives in the call's arena; the caller frees his own with the standard allocator. */
    size_t size = protobuf_c_message_get_packed_size(response);
    uint8_t *copy = malloc(size + 1);
    if (copy && !u->response) {
        protobuf_c_message_pack(response, copy);
        u->response = protobuf_c_message_unpack(response->descriptor, NULL, size, copy);
    }
    free(copy);
    (void)call;
}

static void unary_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    (void)call;
    struct unary *u = arg;
    *u->status = *status;
    u->done = true;
}

ProtobufCMessage *grpc_client_unary(struct grpc_client *client, const char *path, const ProtobufCMessage *request,
                                    const ProtobufCMessageDescriptor *response, int64_t timeout_ms,
                                    struct status *status)
{
    static const struct grpc_client_handler handler = {unary_message, unary_status, NULL};
    struct unary u = {.status = status};
    *status = (struct status){0};
    struct grpc_client_call *call = grpc_client_start(client, path, response, timeout_ms, &handler, &u);
    if (!call) {
        status_set(status, STATUS_RESOURCE_EXHAUSTED, NULL, "out of memory");
        return NULL;
    }
    grpc_client_send(call, request);
    grpc_client_end(call);
    while (!u.done)
        ev_run(client->loop, EVRUN_ONCE);
    if (status->code == STATUS_OK && !u.response)
        status_set(status, STATUS_INTERNAL, NULL, "the server answered without a message");
    if (status->code != STATUS_OK && u.response) {
        protobuf_c_message_free_unpacked(u.response, NULL);
        u.response = NULL;
    }
    return u.response;
}
