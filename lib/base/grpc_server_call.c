/* Calls of the gRPC server: from the header block to the status.
 *
 * Whose a call is: until its handler has seen it (`started`) or while its admission is open (`admitting`), the server
 * ends it alone; after that it lives until grpc_call_finish, and until its stream is closed. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/base/clock.h"
#include "lib/base/grpc_server_internal.h"
#include "proto/zero_text.h"

#define UNREAD "answers on this connection are not being read"

static void progress(struct grpc_call *call);

/* --- memory ------------------------------------------------------------------------------------------------------- */

void grpc_call_release(struct grpc_call *call)
{
    struct grpc_server *server = call->server;
    struct buf out = call->stream.out, held = call->held;
    struct grpc_deframer in = call->in;
    struct arena arena = call->arena, request = call->request;
    arena_free(&call->taken);
    list_remove(&call->link);
    if (!server || server->pool_count >= GRPC_POOL_MAX) {
        buf_free(&out);
        buf_free(&held);
        buf_free(&in.body);
        arena_free(&arena);
        arena_free(&request);
        free(call);
        return;
    }
    grpc_deframer_next(&in);
    if (out.cap > 16 * 1024)
        buf_free(&out);
    if (held.cap > 16 * 1024)
        buf_free(&held);
    buf_reset(&out);
    buf_reset(&held);
    arena_reset(&arena);
    arena_reset(&request);
    *call = (struct grpc_call){
        .arena = arena, .request = request, .held = held, .stream.out = out, .in = {.body = in.body}};
    list_init(&call->link);
    list_append(&server->pool, &call->link);
    server->pool_count++;
}

/* Keeps the sums of what is received and not yet decoded. */
static void charge(struct grpc_call *call)
{
    size_t now = call->answered || !call->stream.h2 ? 0 : buf_len(&call->held) + buf_len(&call->in.body);
    if (call->server)
        call->server->buffered += now - call->charged;
    if (call->conn)
        call->conn->buffered += now - call->charged;
    call->charged = now;
}

static bool over_limit(const struct grpc_call *call)
{
    const struct grpc_server_options *o = &call->server->options;
    /* One peer gets no more than a quarter, but always one message. */
    size_t share = o->max_buffered / 4;
    if (share < o->max_message + H2_STREAM_WINDOW)
        share = o->max_message + H2_STREAM_WINDOW;
    return call->server->buffered > o->max_buffered || call->conn->buffered > share;
}

static bool owned_by_handler(const struct grpc_call *call)
{
    return (call->started || call->admitting) && !call->finished;
}

/* Frees the call when nobody needs it: the stream is closed and the handler has finished. */
static void settle(struct grpc_call *call)
{
    if (call->stream.h2 || call->busy || owned_by_handler(call))
        return;
    if (call->server)
        call->server->stats.calls--;
    grpc_call_release(call);
}

/* Tells the handler, once, that nobody waits for its answer. */
static void cancel(struct grpc_call *call)
{
    if (call->cancelled || call->finished)
        return;
    call->cancelled = true;
    if (call->started && call->method->cancelled) {
        call->busy++;
        call->method->cancelled(call, call->object);
        call->busy--;
    }
}

static void drop_input(struct grpc_call *call)
{
    buf_reset(&call->held);
    grpc_deframer_next(&call->in);
    charge(call);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static void send_headers(struct grpc_call *call, struct grpc_metadata *m, bool last)
{
    nghttp2_nv *nv = grpc_metadata_nv(m, &call->arena);
    call->headers_sent = true;
    if (nv)
        h2_respond(&call->stream, nv, m->count, last);
    else
        h2_reset(&call->stream, NGHTTP2_INTERNAL_ERROR);
}

static void begin_headers(struct grpc_call *call, struct grpc_metadata *m, const char *http_status)
{
    grpc_metadata_put(m, &call->arena, ":status", http_status);
    grpc_metadata_put(m, &call->arena, "content-type", "application/grpc");
}

static void append_all(struct grpc_metadata *m, const struct grpc_metadata *more)
{
    if (!more->count)
        return;
    if (m->last)
        m->last->next = more->first;
    else
        m->first = more->first;
    m->last = more->last;
    m->count += more->count;
    m->bytes += more->bytes;
}

static void send_initial(struct grpc_call *call)
{
    struct grpc_metadata m = {0};
    begin_headers(call, &m, "200");
    append_all(&m, &call->initial);
    send_headers(call, &m, false);
}

static void send_trailers(struct grpc_call *call, const struct status *status)
{
    struct grpc_metadata m = {0};
    grpc_metadata_status(&m, &call->arena, status);
    append_all(&m, &call->trailer);
    nghttp2_nv *nv = grpc_metadata_nv(&m, &call->arena);
    if (!nv) {
        h2_reset(&call->stream, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    call->stream.trailers = nv;
    call->stream.trailer_count = m.count;
    call->stream.out_end = true;
    h2_resume(&call->stream);
}

/* Submits the status; the last thing that is sent. `http_status` other than "200" is for peers that speak no gRPC. */
static void answer(struct grpc_call *call, const struct status *status, const char *http_status)
{
    if (call->answered)
        return;
    call->answered = true;
    call->answered_at = clock_mono_us();
    if (status && status->code != STATUS_OK && call->server)
        call->server->stats.calls_failed++;
    if (!call->stream.h2)
        return;
    drop_input(call);
    if (!call->headers_sent && call->initial.count == 0) {
        struct grpc_metadata m = {0};
        begin_headers(call, &m, http_status);
        grpc_metadata_status(&m, &call->arena, status);
        append_all(&m, &call->trailer);
        send_headers(call, &m, true);
    } else {
        if (!call->headers_sent)
            send_initial(call);
        send_trailers(call, status);
    }
    grpc_server_mark_dirty(call->conn);
}

/* The server's own refusal. */
static void refuse_as(struct grpc_call *call, const char *http_status, const struct status *st)
{
    answer(call, st, http_status);
    cancel(call);
}

static void refuse_http(struct grpc_call *call, const char *http_status, enum status_code code, const char *reason,
                        const char *why)
{
    struct status st = {0};
    refuse_as(call, http_status, status_set(&st, code, reason, "%s", why));
}

static void refuse(struct grpc_call *call, enum status_code code, const char *reason, const char *why)
{
    refuse_http(call, "200", code, reason, why);
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)revents;
    struct grpc_call *call = container_of(w, struct grpc_call, timer);
    int64_t left = call->deadline - clock_mono_us();
    if (left > 0) {
        ev_timer_set(w, (double)left / 1e6 + 0.0005, 0);
        ev_timer_start(loop, w);
        return;
    }
    call->busy++;
    /* A response that the peer did not take in time can't be followed by trailers in time. */
    bool stuck = buf_len(&call->stream.out) > 0 || call->answered;
    if (!call->answered)
        refuse(call, STATUS_DEADLINE_EXCEEDED, "DEADLINE", "the deadline has passed");
    if (stuck) {
        h2_reset(&call->stream, NGHTTP2_CANCEL);
        if (call->conn)
            grpc_server_mark_dirty(call->conn);
    }
    call->busy--;
    settle(call);
}

/* --- the header block -----------------------------------------------------------------------------------------------
 */

/* Returns false when grpc-timeout is malformed. */
static bool start_deadline(struct grpc_call *call)
{
    const struct h2_field *f = grpc_field(call->stream.fields, "grpc-timeout");
    int64_t ns;
    if (!f)
        return true;
    if (!grpc_timeout_parse(f->value, &ns))
        return false;
    if (ns / 1000 > INT64_MAX / 4)
        return true;
    call->deadline = clock_mono_us() + ns / 1000;
    ev_timer_init(&call->timer, on_deadline, (double)ns / 1e9, 0);
    ev_timer_start(call->server->loop, &call->timer);
    return true;
}

/* Checks what every request needs. Returns false when the call was answered. */
static bool check_request(struct grpc_call *call)
{
    const struct h2_field *fields = call->stream.fields, *f;
    if (call->stream.fields_over) {
        refuse_http(call, "431", STATUS_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                    "the metadata is larger than the limit");
        return false;
    }
    f = grpc_field(fields, ":method");
    if (!f || strcmp(f->value, "POST") != 0) {
        refuse_http(call, "405", STATUS_INTERNAL, NULL, "the HTTP method must be POST");
        return false;
    }
    f = grpc_field(fields, "content-type");
    if (!f || !grpc_content_type_ok(f->value, f->value_len)) {
        refuse_http(call, "415", STATUS_UNKNOWN, NULL,
                    "the content type must be application/grpc or application/grpc+proto");
        return false;
    }
    f = grpc_field(fields, "grpc-encoding");
    if (f && strcasecmp(f->value, "identity") != 0) {
        grpc_metadata_put(&call->trailer, &call->arena, "grpc-accept-encoding", "identity");
        refuse(call, STATUS_UNIMPLEMENTED, NULL, "the message encoding is not supported");
        return false;
    }
    return true;
}

static bool find_method(struct grpc_call *call)
{
    const struct h2_field *path = grpc_field(call->stream.fields, ":path");
    const struct grpc_route *route = path ? grpc_server_route(call->server, path->value) : NULL;
    if (!route) {
        struct status st = {0};
        status_set(&st, STATUS_UNIMPLEMENTED, "METHOD_UNKNOWN", "unknown method %s", path ? path->value : "");
        answer(call, &st, "200");
        return false;
    }
    call->method = route->method;
    call->service = route->service;
    call->object = route->service->object;
    return true;
}

static void admit(struct grpc_call *call)
{
    if (!call->service->admit) {
        call->admitted = true;
        return;
    }
    call->admitting = true;
    call->busy++;
    if (call->service->admit(call, call->object) && !call->finished) {
        call->admitting = false;
        call->admitted = true;
        grpc_conn_trust(call->conn);
    }
    call->busy--;
}

void grpc_call_on_headers(struct h2_stream *s)
{
    struct grpc_call *call = container_of(s, struct grpc_call, stream);
    /* The request's trailers mean nothing. */
    if (call->method || call->answered)
        return;
    if (!check_request(call))
        return;
    if (h2_unsent(call->stream.h2) > GRPC_UNREAD_MAX)
        refuse(call, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", UNREAD);
    else if (!start_deadline(call))
        refuse(call, STATUS_INTERNAL, NULL, "malformed grpc-timeout");
    else if (find_method(call))
        admit(call);
}

/* --- request messages ------------------------------------------------------------------------------------------------
 */

static bool unary_request(const struct grpc_call *call)
{
    return !call->method->client_streaming;
}

static bool may_take(const struct grpc_call *call)
{
    return call->admitted && !call->paused && !call->answered && !call->cancelled && !call->finished && !call->ready;
}

/* A text would end there, and what stands behind would be passed over: half a filter, the id of another device. */
static bool has_zero_text(struct grpc_call *call, struct slice body)
{
    char field[ZERO_TEXT_FIELD];
    struct status st = {0};
    if (!zero_text_find(call->method->request, body, field))
        return false;
    status_violation(&st, field, "has a zero byte");
    refuse_as(call, "200", &st);
    return true;
}

static ProtobufCMessage *decode(struct grpc_call *call)
{
    struct slice body = buf_slice(&call->in.body);
    size_t most = body.len * 8;
    if (has_zero_text(call, body)) {
        grpc_deframer_next(&call->in);
        charge(call);
        return NULL;
    }
    call->request.limit = most > GRPC_DECODE_MIN ? most : GRPC_DECODE_MIN;
    ProtobufCMessage *m =
        protobuf_c_message_unpack(call->method->request, arena_allocator(&call->request), body.len, body.data);
    bool exhausted = call->request.failed;
    grpc_deframer_next(&call->in);
    charge(call);
    if (!m && exhausted)
        refuse(call, STATUS_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", "the message takes too much memory when decoded");
    else if (!m)
        refuse(call, STATUS_INTERNAL, NULL, "the request message can't be decoded");
    return m;
}

/* Decodes the message in `in` and hands it to the handler. */
static void deliver(struct grpc_call *call)
{
    ProtobufCMessage *request = decode(call);
    if (request) {
        call->started = true;
        call->request_taken = false;
        call->method->message(call, call->object, request);
        if (call->request_taken)
            arena_absorb(&call->taken, &call->request);
    }
    arena_reset(&call->request);
}

/* Cuts messages out of `in` as long as they may be taken, and gives the peer credit for what was. */
static void absorb(struct grpc_call *call, struct slice *in)
{
    while (in->len > 0 && may_take(call)) {
        size_t before = in->len;
        enum grpc_deframe result = grpc_deframe(&call->in, in);
        h2_consume(&call->stream, before - in->len);
        charge(call);
        if (result == GRPC_DEFRAME_BAD) {
            refuse(call, call->in.code, call->in.code == STATUS_RESOURCE_EXHAUSTED ? "MESSAGE_TOO_LARGE" : NULL,
                   call->in.why);
        } else if (over_limit(call)) {
            refuse(call, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "too many messages are being received");
        } else if (result == GRPC_DEFRAME_DONE) {
            if (unary_request(call))
                call->ready = true;
            else
                deliver(call);
        }
    }
    if (call->ready && in->len > 0 && !call->answered)
        refuse(call, STATUS_INTERNAL, NULL, "more than one request message");
}

/* All messages are taken, and the peer has sent its last. */
static void end_of_request(struct grpc_call *call)
{
    if (!call->ready && !grpc_deframer_idle(&call->in)) {
        refuse(call, STATUS_INTERNAL, NULL, "the request ends inside a message");
    } else if (!unary_request(call)) {
        call->end_told = call->started = true;
        call->method->end(call, call->object);
    } else if (call->ready) {
        call->ready = false;
        call->end_told = true;
        deliver(call);
    } else {
        refuse(call, STATUS_INTERNAL, NULL, "no request message");
    }
}

static void absorb_held(struct grpc_call *call)
{
    struct slice in = buf_slice(&call->held);
    size_t len = in.len;
    absorb(call, &in);
    /* An answer has emptied it. */
    if (buf_len(&call->held) == len && len > in.len)
        buf_consume(&call->held, len - in.len);
}

/* Does what can be done now; callbacks that change what can be done only call it again. */
static void progress(struct grpc_call *call)
{
    if (call->busy || !call->method)
        return;
    call->busy++;
    absorb_held(call);
    bool open = call->admitted && !call->answered && !call->cancelled && !call->finished;
    if (open && call->stream.ended && !call->paused && !call->end_told && buf_len(&call->held) == 0)
        end_of_request(call);
    charge(call);
    /* Credit for the peer is output, too. */
    if (call->conn)
        grpc_server_mark_dirty(call->conn);
    call->busy--;
    settle(call);
}

void grpc_call_on_data(struct h2_stream *s, const uint8_t *data, size_t len)
{
    struct grpc_call *call = container_of(s, struct grpc_call, stream);
    struct slice in = {data, len};
    if (call->answered || call->finished || !call->method)
        return;
    if (buf_len(&call->held) == 0) {
        call->busy++;
        absorb(call, &in);
        call->busy--;
    }
    if (in.len > 0 && !call->answered && !call->finished) {
        buf_put(&call->held, in.data, in.len);
        charge(call);
        if (call->held.failed || over_limit(call))
            refuse(call, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "too many messages are being received");
    }
    progress(call);
}

void grpc_call_tick(struct grpc_call *call, int64_t now)
{
    int64_t timeout_us = call->server->options.unread_timeout_ms * 1000;
    if (!call->answered || !call->stream.h2 || now - call->answered_at < timeout_us)
        return;
    call->server->stats.unread_dropped++;
    h2_reset(&call->stream, NGHTTP2_CANCEL);
    grpc_server_mark_dirty(call->conn);
}

void grpc_call_on_end(struct h2_stream *s)
{
    progress(container_of(s, struct grpc_call, stream));
}

void grpc_call_on_drained(struct h2_stream *s)
{
    struct grpc_call *call = container_of(s, struct grpc_call, stream);
    if (!call->on_drain || call->finished || call->cancelled)
        return;
    call->busy++;
    call->on_drain(call, call->object);
    call->busy--;
    settle(call);
}

void grpc_call_on_close(struct h2_stream *s, uint32_t code)
{
    (void)code;
    struct grpc_call *call = container_of(s, struct grpc_call, stream);
    if (call->server)
        ev_timer_stop(call->server->loop, &call->timer);
    drop_input(call);
    buf_free(&call->stream.out);
    call->conn = NULL;
    cancel(call);
    settle(call);
}

/* --- for handlers ---------------------------------------------------------------------------------------------------
 */

const struct grpc_method *grpc_call_method(const struct grpc_call *call)
{
    return call->method;
}

const char *grpc_call_metadata(const struct grpc_call *call, const char *key, size_t *len)
{
    /* The arena is scratch, not state. */
    return grpc_field_value(call->stream.fields, key, len, call->stream.arena);
}

const char *grpc_call_peer(const struct grpc_call *call)
{
    return call->peer;
}

int64_t grpc_call_time_left(const struct grpc_call *call)
{
    if (call->deadline == INT64_MAX)
        return INT64_MAX;
    int64_t left = call->deadline - clock_mono_us();
    return left > 0 ? (left + 999) / 1000 : 0;
}

bool grpc_call_cancelled(const struct grpc_call *call)
{
    return call->cancelled;
}

void grpc_call_set_data(struct grpc_call *call, void *data)
{
    call->data = data;
}

void *grpc_call_data(const struct grpc_call *call)
{
    return call->data;
}

void grpc_call_take_request(struct grpc_call *call)
{
    call->request_taken = true;
}

size_t grpc_call_request_bytes(const struct grpc_call *call)
{
    return call->request.held;
}

void grpc_call_accept(struct grpc_call *call)
{
    assert(call->admitting && !call->finished);
    call->admitting = false;
    call->admitted = true;
    if (call->conn)
        grpc_conn_trust(call->conn);
    progress(call);
}

void grpc_call_add_initial(struct grpc_call *call, const char *key, const void *value, size_t len)
{
    if (!call->headers_sent)
        grpc_metadata_add(&call->initial, &call->arena, key, value, len);
}

void grpc_call_add_trailer(struct grpc_call *call, const char *key, const void *value, size_t len)
{
    grpc_metadata_add(&call->trailer, &call->arena, key, value, len);
}

/* False when nobody waits for a message any more. */
static bool begin_message(struct grpc_call *call)
{
    assert(!call->finished);
    if (call->cancelled || call->answered || !call->stream.h2)
        return false;
    /* Of many calls that began together the first answers are kept. A stream's handler holds back by itself. */
    if (!call->method->server_streaming && h2_unsent(call->stream.h2) > GRPC_UNREAD_MAX) {
        struct status st = {0};
        answer(call, status_set(&st, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", UNREAD), "200");
        return false;
    }
    if (!call->headers_sent)
        send_initial(call);
    return true;
}

static void message_added(struct grpc_call *call)
{
    h2_resume(&call->stream);
    grpc_server_mark_dirty(call->conn);
}

void grpc_call_send(struct grpc_call *call, const ProtobufCMessage *response)
{
    if (!begin_message(call))
        return;
    grpc_frame_message(&call->stream.out, response);
    message_added(call);
}

void grpc_call_send_bytes(struct grpc_call *call, struct slice response)
{
    if (!begin_message(call))
        return;
    grpc_frame_bytes(&call->stream.out, response);
    message_added(call);
}

size_t grpc_call_pending(const struct grpc_call *call)
{
    return buf_len(&call->stream.out);
}

void grpc_call_on_drain(struct grpc_call *call, void (*on_drain)(struct grpc_call *call, void *service))
{
    call->on_drain = on_drain;
}

void grpc_call_pause(struct grpc_call *call, bool paused)
{
    call->paused = paused;
    if (!paused)
        progress(call);
}

void grpc_call_finish(struct grpc_call *call, const struct status *status)
{
    assert(!call->finished && (call->started || call->admitting));
    call->finished = true;
    answer(call, status, "200");
    settle(call);
}

void grpc_call_reply(struct grpc_call *call, const ProtobufCMessage *response)
{
    grpc_call_send(call, response);
    grpc_call_finish(call, NULL);
}
