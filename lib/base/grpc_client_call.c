/* Calls of the gRPC client: from the request's header block to the status. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/grpc_client_internal.h"

/* --- the end of a call -------------------------------------------------------------------------------------------- */

static void decide(struct grpc_client_call *call, enum status_code code, const char *why)
{
    if (call->decided)
        return;
    call->decided = true;
    status_set(&call->status, code, NULL, "%s", why);
}

static void call_free(struct grpc_client_call *call)
{
    ev_timer_stop(call->client->loop, &call->timer);
    list_remove(&call->lost);
    h2_detach(&call->stream);
    buf_free(&call->stream.out);
    buf_free(&call->in.body);
    arena_free(&call->arena);
    arena_free(&call->message);
    free(call);
}

void client_call_end(struct grpc_client_call *call)
{
    if (call->done)
        return;
    call->done = true;
    h2_detach(&call->stream);
    call->conn = NULL;
    decide(call, STATUS_UNKNOWN, "the call ended without a status");
    call->handler->on_status(call, call->arg, &call->status);
    call_free(call);
}

/* Ends the call from our side. */
static void give_up(struct grpc_client_call *call, enum status_code code, const char *why)
{
    decide(call, code, why);
    if (call->conn) {
        h2_reset(&call->stream, NGHTTP2_CANCEL);
        client_mark_dirty(call->conn);
        h2_detach(&call->stream);
        call->conn = NULL;
    }
    client_call_later(call);
}

/* --- what comes back ------------------------------------------------------------------------------------------------
 */

/* grpc/grpc doc/http-grpc-status-mapping.md */
static enum status_code code_of_http(const char *status)
{
    switch (atoi(status)) {
    case 400:
    case 431:
        return STATUS_INTERNAL;
    case 401:
        return STATUS_UNAUTHENTICATED;
    case 403:
        return STATUS_PERMISSION_DENIED;
    case 404:
        return STATUS_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return STATUS_UNAVAILABLE;
    default:
        return STATUS_UNKNOWN;
    }
}

/* grpc/grpc doc/PROTOCOL-HTTP2.md, "Errors" */
static enum status_code code_of_h2(uint32_t code)
{
    switch (code) {
    case NGHTTP2_REFUSED_STREAM:
        return STATUS_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return STATUS_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return STATUS_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return STATUS_PERMISSION_DENIED;
    default:
        return STATUS_INTERNAL;
    }
}

/* Takes the status out of trailers; false when they have none. */
static bool read_status(struct grpc_client_call *call)
{
    const struct h2_field *f = grpc_field(call->stream.fields, "grpc-status"), *text;
    if (!f)
        return false;
    struct status st = {0};
    int number = atoi(f->value);
    size_t len;
    const char *details = grpc_field_value(call->stream.fields, "grpc-status-details-bin", &len, &call->arena);
    if (!details || !status_decode(&st, (struct slice){(const uint8_t *)details, len}))
        st = (struct status){0};
    st.code = number >= 0 && number <= STATUS_UNAUTHENTICATED ? (enum status_code)number : STATUS_UNKNOWN;
    text = grpc_field(call->stream.fields, "grpc-message");
    if (text)
        grpc_percent_decode(text->value, text->value_len, st.message, sizeof st.message);
    if (!call->decided)
        call->status = st;
    call->decided = true;
    return true;
}

static void on_headers(struct h2_stream *s)
{
    struct grpc_client_call *call = container_of(s, struct grpc_client_call, stream);
    const struct h2_field *status = grpc_field(s->fields, ":status"), *f;
    if (call->done || call->decided)
        return;
    if (s->fields_over) {
        give_up(call, STATUS_RESOURCE_EXHAUSTED, "the response's metadata is larger than the limit");
        return;
    }
    if (!call->responded && status && status->value[0] == '1')
        return;
    if (read_status(call) || call->responded)
        return;
    f = grpc_field(s->fields, "content-type");
    if (!status || strcmp(status->value, "200") != 0)
        give_up(call, code_of_http(status ? status->value : ""), "the server answered with an HTTP error");
    else if (!f || !grpc_content_type_ok(f->value, f->value_len))
        give_up(call, STATUS_UNKNOWN, "the server's answer is not gRPC");
    else if ((f = grpc_field(s->fields, "grpc-encoding")) && strcmp(f->value, "identity") != 0)
        give_up(call, STATUS_INTERNAL, "the server compresses though nobody asked for it");
    call->responded = true;
}

static void deliver(struct grpc_client_call *call)
{
    struct slice body = buf_slice(&call->in.body);
    ProtobufCMessage *m =
        protobuf_c_message_unpack(call->response, arena_allocator(&call->message), body.len, body.data);
    grpc_deframer_next(&call->in);
    if (m)
        call->handler->on_message(call, call->arg, m);
    else if (!call->decided)
        give_up(call, STATUS_INTERNAL, "the response message can't be decoded");
    arena_reset(&call->message);
}

static void on_data(struct h2_stream *s, const uint8_t *data, size_t len)
{
    struct grpc_client_call *call = container_of(s, struct grpc_client_call, stream);
    struct slice in = {data, len};
    h2_consume(s, len);
    while (in.len > 0 && !call->decided) {
        switch (grpc_deframe(&call->in, &in)) {
        case GRPC_DEFRAME_DONE:
            deliver(call);
            break;
        case GRPC_DEFRAME_BAD:
            give_up(call, call->in.code, call->in.why);
            break;
        case GRPC_DEFRAME_MORE:
            break;
        }
    }
}

static void on_end(struct h2_stream *s)
{
    struct grpc_client_call *call = container_of(s, struct grpc_client_call, stream);
    if (!call->decided)
        decide(call, STATUS_INTERNAL, "the response ends without a status");
    if (call->conn) {
        /* The request may still be on its way; nobody wants the rest. */
        if (!s->out_end || buf_len(&s->out))
            h2_reset(s, NGHTTP2_CANCEL);
        client_mark_dirty(call->conn);
        h2_detach(s);
        call->conn = NULL;
    }
    client_call_later(call);
}

static void on_drained(struct h2_stream *s)
{
    struct grpc_client_call *call = container_of(s, struct grpc_client_call, stream);
    if (call->handler->on_drain && !call->decided)
        call->handler->on_drain(call, call->arg);
}

static void on_close(struct h2_stream *s, uint32_t code)
{
    struct grpc_client_call *call = container_of(s, struct grpc_client_call, stream);
    const struct client_conn *conn = call->conn;
    call->conn = NULL;
    if (conn->lost && !call->decided) {
        call->decided = true;
        status_set(&call->status, STATUS_UNAVAILABLE, NULL,
                   conn->open ? "the connection to %s was lost (%s)" : "can't connect to %s (%s)",
                   call->client->authority, err_name(conn->why ? conn->why : ERR_CLOSED));
    } else
        decide(call, code_of_h2(code), "the server reset the stream");
    client_call_later(call);
}

static struct h2_stream *on_begin(void *arg)
{
    (void)arg;
    return NULL;
}

/* New calls make a new connection; those the server has not seen are closed by the session with REFUSED_STREAM. */
static void on_goaway(void *arg, uint32_t code, struct slice debug)
{
    (void)code, (void)debug;
    struct client_conn *conn = arg;
    if (conn->client->conn == conn)
        conn->client->conn = NULL;
}

const struct h2_events client_h2_events = {
    .on_begin = on_begin,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_end = on_end,
    .on_drained = on_drained,
    .on_close = on_close,
    .on_goaway = on_goaway,
};

/* --- what is sent ---------------------------------------------------------------------------------------------------
 */

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)revents;
    struct grpc_client_call *call = container_of(w, struct grpc_client_call, timer);
    give_up(call, STATUS_DEADLINE_EXCEEDED, "the deadline has passed");
}

static enum err begin(struct grpc_client_call *call, const char *path, int64_t timeout_ms)
{
    struct grpc_client *client = call->client;
    struct grpc_metadata m = {0};
    struct arena *a = &call->arena;
    grpc_metadata_put(&m, a, ":method", "POST");
    grpc_metadata_put(&m, a, ":scheme", client->tls ? "https" : "http");
    grpc_metadata_put(&m, a, ":authority", client->authority);
    grpc_metadata_put(&m, a, ":path", path);
    grpc_metadata_put(&m, a, "te", "trailers");
    if (timeout_ms > 0) {
        char text[GRPC_TIMEOUT_SIZE];
        grpc_timeout_format(timeout_ms > INT64_MAX / 1000000 ? INT64_MAX : timeout_ms * 1000000, text);
        const char *copy = arena_copy(a, text, strlen(text));
        if (copy)
            grpc_metadata_put(&m, a, "grpc-timeout", copy);
    }
    grpc_metadata_put(&m, a, "content-type", "application/grpc");
    grpc_metadata_put(&m, a, "user-agent", "grpc-c-muster/" MUSTER_VERSION);
    for (const struct client_metadata *c = client->metadata; c; c = c->next)
        grpc_metadata_add(&m, a, c->key, c->value, strlen(c->value));
    nghttp2_nv *nv = grpc_metadata_nv(&m, a);
    return nv && !a->failed ? h2_request(call->conn->h2, &call->stream, nv, m.count) : ERR_NOMEM;
}

struct grpc_client_call *grpc_client_start(struct grpc_client *client, const char *path,
                                           const ProtobufCMessageDescriptor *response, int64_t timeout_ms,
                                           const struct grpc_client_handler *handler, void *arg)
{
    struct grpc_client_call *call = calloc(1, sizeof *call);
    if (!call)
        return NULL;
    call->client = client;
    call->handler = handler;
    call->arg = arg;
    call->response = response;
    call->in.max = GRPC_CLIENT_MAX_MESSAGE;
    call->arena.limit = GRPC_CLIENT_ARENA_MAX;
    list_init(&call->lost);
    h2_stream_init(&call->stream, &call->arena);
    call->conn = client->host ? client_connect(client) : NULL;
    if (!call->conn || begin(call, path, timeout_ms) != ERR_OK) {
        call->conn = NULL;
        decide(call, STATUS_UNAVAILABLE, "no connection to the server");
        client_call_later(call);
        return call;
    }
    if (timeout_ms > 0) {
        ev_now_update(client->loop);
        ev_timer_init(&call->timer, on_deadline, (double)timeout_ms / 1000, 0);
        ev_timer_start(client->loop, &call->timer);
    }
    client_mark_dirty(call->conn);
    return call;
}

void grpc_client_send(struct grpc_client_call *call, const ProtobufCMessage *request)
{
    if (!call->conn || call->stream.out_end)
        return;
    grpc_frame_message(&call->stream.out, request);
    h2_resume(&call->stream);
    client_mark_dirty(call->conn);
}

void grpc_client_end(struct grpc_client_call *call)
{
    if (!call->conn)
        return;
    call->stream.out_end = true;
    h2_resume(&call->stream);
    client_mark_dirty(call->conn);
}

size_t grpc_client_pending(const struct grpc_client_call *call)
{
    return buf_len(&call->stream.out);
}

void grpc_client_cancel(struct grpc_client_call *call)
{
    if (!call->decided)
        give_up(call, STATUS_CANCELLED, "cancelled by the caller");
}
