#include "lib/base/h2.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

/* Frames that move nothing forward (SETTINGS, PING, PRIORITY, RST_STREAM, empty DATA): this many at once, and so many a
 * second go on. A busy client that cancels half of its calls stays far below. */
#define IDLE_FRAMES_BURST 2000
#define IDLE_FRAMES_RATE  200
/* RST_STREAM alone (CVE-2023-44487). */
#define RESET_BURST 1000
#define RESET_RATE  100
/* CONTINUATION frames of one header block: 16 KiB each, more than any header limit allows (CVE-2024-28182). */
#define CONTINUATIONS_MAX 8
/* Acknowledgements the peer makes us owe without reading them (CVE-2019-9512, CVE-2019-9515). */
#define UNSENT_ACKS_MAX 256
/* A header list so many times over the limit ends the connection: decoding it costs, whoever reads it. */
#define HEADER_EXCESS 16
/* Pings that come too early before the connection ends (grpc/proposal A8). */
#define PING_STRIKES 3

struct h2 {
    nghttp2_session *session;
    const struct h2_events *events;
    const struct h2_sink *sink;
    void *arg;
    struct list streams, drained;
    size_t stream_count;
    size_t max_header_list;
    int64_t now;          /* µs, of the last h2_receive */
    int64_t last_receive; /* µs */
    int64_t stalled_since;
    int64_t min_ping_interval, last_ping;
    int64_t idle_frames_at;
    int64_t idle_frames; /* tokens left */
    unsigned strikes;
    bool server;
    bool prefaced; /* the peer's first SETTINGS have come */
    bool leaving;  /* a final GOAWAY was submitted */
    bool aborting; /* no more input is looked at */
    bool flooded;
    bool goodbye; /* aborting, and the GOAWAY has left */
};

/* --- receiving ---------------------------------------------------------------------------------------------------- */

static struct h2_stream *find(struct h2 *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

static void attach(struct h2 *h2, struct h2_stream *s, int32_t id)
{
    s->h2 = h2;
    s->id = id;
    list_append(&h2->streams, &s->link);
    h2->stream_count++;
}

void h2_detach(struct h2_stream *s)
{
    struct h2 *h2 = s->h2;
    if (!h2)
        return;
    list_remove(&s->link);
    list_remove(&s->drained);
    h2->stream_count--;
    s->h2 = NULL;
    (void)nghttp2_session_set_stream_user_data(h2->session, s->id, NULL);
}

static void flood(struct h2 *h2, const char *what)
{
    h2->flooded = true;
    h2_abort(h2, NGHTTP2_ENHANCE_YOUR_CALM, what);
}

static bool idle_frame(const nghttp2_frame_hd *hd)
{
    switch (hd->type) {
    case NGHTTP2_DATA:
        return hd->length == 0 && !(hd->flags & NGHTTP2_FLAG_END_STREAM);
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PING:
    case NGHTTP2_PRIORITY:
    case NGHTTP2_RST_STREAM:
        return true;
    default:
        return false;
    }
}

static void spend_idle_frame(struct h2 *h2)
{
    int64_t earned = (h2->now - h2->idle_frames_at) * IDLE_FRAMES_RATE / 1000000;
    if (earned > 0) {
        h2->idle_frames_at = h2->now;
        h2->idle_frames = earned > IDLE_FRAMES_BURST - h2->idle_frames ? IDLE_FRAMES_BURST : h2->idle_frames + earned;
    }
    if (--h2->idle_frames < 0)
        flood(h2, "too_many_control_frames");
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user)
{
    (void)session;
    struct h2 *h2 = user;
    if (idle_frame(hd))
        spend_idle_frame(h2);
    if (hd->type == NGHTTP2_HEADERS && !h2->leaving)
        h2->stalled_since = h2->now;
    else if (hd->type != NGHTTP2_CONTINUATION && h2->prefaced)
        h2->stalled_since = 0;
    return h2->aborting ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static void clear_fields(struct h2_stream *s)
{
    s->fields = NULL;
    s->last = &s->fields;
    s->field_bytes = 0;
    s->fields_over = false;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2 *h2 = user;
    struct h2_stream *s = find(h2, frame->hd.stream_id);
    if (!s && h2->server && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        s = h2->events->on_begin(h2->arg);
        if (!s)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        attach(h2, s, frame->hd.stream_id);
        (void)nghttp2_session_set_stream_user_data(session, s->id, s);
    }
    if (s)
        clear_fields(s);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    (void)session, (void)flags;
    struct h2 *h2 = user;
    struct h2_stream *s = find(h2, frame->hd.stream_id);
    if (!s)
        return 0;
    s->field_bytes += name_len + value_len + 32;
    if (s->field_bytes > h2->max_header_list) {
        s->fields_over = true;
        if (s->field_bytes / HEADER_EXCESS > h2->max_header_list) {
            flood(h2, "header_list_too_large");
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        return 0;
    }
    struct h2_field *f = arena_alloc(s->arena, sizeof *f);
    char *n = arena_copy(s->arena, name, name_len), *v = arena_copy(s->arena, value, value_len);
    if (!f || !n || !v)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    *f = (struct h2_field){NULL, n, v, name_len, value_len};
    *s->last = f;
    s->last = &f->next;
    return 0;
}

static void ping_received(struct h2 *h2)
{
    if (!h2->server)
        return;
    if (h2->last_ping && h2->now - h2->last_ping < h2->min_ping_interval && ++h2->strikes >= PING_STRIKES)
        flood(h2, "too_many_pings");
    h2->last_ping = h2->now;
}

static void goaway_received(struct h2 *h2, const nghttp2_goaway *frame)
{
    if (h2->events->on_goaway)
        h2->events->on_goaway(h2->arg, frame->error_code, (struct slice){frame->opaque_data, frame->opaque_data_len});
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct h2 *h2 = user;
    struct h2_stream *s = frame->hd.stream_id ? find(h2, frame->hd.stream_id) : NULL;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        h2->stalled_since = 0;
        if (s)
            h2->events->on_headers(s);
        break;
    case NGHTTP2_SETTINGS:
        h2->prefaced = true;
        h2->stalled_since = 0;
        break;
    case NGHTTP2_PING:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            ping_received(h2);
        else if (h2->events->on_pong)
            h2->events->on_pong(h2->arg);
        break;
    case NGHTTP2_GOAWAY:
        goaway_received(h2, &frame->goaway);
        break;
    default:
        break;
    }
    if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && (s = find(h2, frame->hd.stream_id))) {
        s->ended = true;
        h2->events->on_end(s);
    }
    return h2->aborting ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* The connection's credit comes back at once: a stream that is not taken must not stop the others. What streams hold is
 * bounded by their windows and by the owner. */
static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                         void *user)
{
    (void)flags;
    struct h2 *h2 = user;
    struct h2_stream *s = find(h2, id);
    if (nghttp2_session_consume_connection(session, len) != 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (s && len > 0)
        h2->events->on_data(s, data, len);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    (void)session;
    struct h2 *h2 = user;
    struct h2_stream *s = find(h2, id);
    if (s) {
        h2_detach(s);
        h2->events->on_close(s, code);
    }
    return 0;
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static ssize_t read_content(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                            nghttp2_data_source *source, void *user)
{
    (void)buf, (void)source;
    struct h2_stream *s = find(user, id);
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t have = buf_len(&s->out);
    if (have == 0 && !s->out_end) {
        s->out_waits = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t n = have < length ? have : length;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == have && s->out_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailer_count) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (nghttp2_submit_trailer(session, id, s->trailers, s->trailer_count) != 0)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)n;
}

static int send_content(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t length,
                        nghttp2_data_source *source, void *user)
{
    (void)session, (void)source;
    struct h2 *h2 = user;
    struct h2_stream *s = find(h2, frame->hd.stream_id);
    if (!s || buf_len(&s->out) < length)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    h2->sink->write(h2->arg, head, 9);
    if (length)
        h2->sink->write(h2->arg, buf_head(&s->out), length);
    buf_consume(&s->out, length);
    if (buf_len(&s->out) == 0 && !s->out_end && list_empty(&s->drained))
        list_append(&h2->drained, &s->drained);
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2 *h2 = user;
    if (frame->hd.type == NGHTTP2_GOAWAY && h2->aborting)
        h2->goodbye = true;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    /* Pings may follow what was sent: clients estimate the bandwidth with them. */
    h2->strikes = 0;
    h2->last_ping = 0;
    /* RFC 9113, 8.1: the answer is complete, the rest of the request is not wanted. */
    if (h2->server && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
        nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

/* Client: the server went away before the request could be sent. Such a stream was never open: it is known by us only.
 */
static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user)
{
    (void)session, (void)error;
    struct h2 *h2 = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    list_for_each (l, next, &h2->streams) {
        struct h2_stream *s = container_of(l, struct h2_stream, link);
        if (s->id == frame->hd.stream_id) {
            h2_detach(s);
            h2->events->on_close(s, NGHTTP2_REFUSED_STREAM);
            break;
        }
    }
    return 0;
}

static void call_drained(struct h2 *h2)
{
    struct list todo, *l;
    list_init(&todo);
    if (!list_empty(&h2->drained)) {
        list_insert(&h2->drained, &todo);
        list_remove(&h2->drained);
    }
    while ((l = list_pop(&todo))) {
        struct h2_stream *s = container_of(l, struct h2_stream, drained);
        if (buf_len(&s->out) == 0)
            h2->events->on_drained(s);
    }
}

enum err h2_send(struct h2 *h2)
{
    while (h2->sink->writable(h2->arg)) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(h2->session, &data);
        if (n < 0)
            return n == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_PROTOCOL;
        if (n > 0)
            h2->sink->write(h2->arg, data, (size_t)n);
        else if (list_empty(&h2->drained))
            break;
        else
            call_drained(h2);
    }
    return ERR_OK;
}

enum err h2_receive(struct h2 *h2, const uint8_t *data, size_t len)
{
    h2->now = h2->last_receive = clock_mono_us();
    if (h2->aborting)
        return ERR_OK;
    ssize_t n = nghttp2_session_mem_recv(h2->session, data, len);
    if (h2->aborting)
        return ERR_OK;
    if (n == NGHTTP2_ERR_FLOODED) {
        h2->flooded = true;
        return ERR_LIMIT;
    }
    if (n < 0)
        return n == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_PROTOCOL;
    return ERR_OK;
}

/* --- sessions ----------------------------------------------------------------------------------------------------- */

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *c;
    if (nghttp2_session_callbacks_new(&c) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(c, on_frame_not_send);
    nghttp2_session_callbacks_set_send_data_callback(c, send_content);
    return c;
}

static nghttp2_option *make_options(void)
{
    nghttp2_option *o;
    if (nghttp2_option_new(&o) != 0)
        return NULL;
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_outbound_ack(o, UNSENT_ACKS_MAX);
    nghttp2_option_set_stream_reset_rate_limit(o, RESET_BURST, RESET_RATE);
    nghttp2_option_set_max_continuations(o, CONTINUATIONS_MAX);
    return o;
}

static int submit_settings(struct h2 *h2, const struct h2_options *options)
{
    uint32_t list = options->max_header_list > UINT32_MAX ? UINT32_MAX : (uint32_t)options->max_header_list;
    nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, list},
        {h2->server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         h2->server ? options->max_streams : 0},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    int rc = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, entries, sizeof entries / sizeof *entries);
    return rc ? rc : nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW);
}

static int make_session(struct h2 *h2, const struct h2_options *options)
{
    nghttp2_session_callbacks *callbacks = make_callbacks();
    nghttp2_option *option = make_options();
    int rc = NGHTTP2_ERR_NOMEM;
    if (callbacks && option)
        rc = h2->server ? nghttp2_session_server_new2(&h2->session, callbacks, h2, option)
                        : nghttp2_session_client_new2(&h2->session, callbacks, h2, option);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return rc ? rc : submit_settings(h2, options);
}

struct h2 *h2_new(const struct h2_options *options, const struct h2_events *events, const struct h2_sink *sink,
                  void *arg)
{
    struct h2 *h2 = calloc(1, sizeof *h2);
    if (!h2)
        return NULL;
    h2->events = events;
    h2->sink = sink;
    h2->arg = arg;
    h2->server = options->server;
    h2->max_header_list = options->max_header_list;
    h2->min_ping_interval = options->min_ping_interval;
    h2->now = h2->last_receive = h2->stalled_since = h2->idle_frames_at = clock_mono_us();
    h2->idle_frames = IDLE_FRAMES_BURST;
    list_init(&h2->streams);
    list_init(&h2->drained);
    if (make_session(h2, options) != 0)
        h2_free(&h2);
    return h2;
}

void h2_free(struct h2 **h2p)
{
    struct h2 *h2 = *h2p;
    if (!h2)
        return;
    while (!list_empty(&h2->streams)) {
        struct h2_stream *s = container_of(h2->streams.next, struct h2_stream, link);
        h2_detach(s);
        h2->events->on_close(s, NGHTTP2_CANCEL);
    }
    nghttp2_session_del(h2->session);
    free(h2);
    *h2p = NULL;
}

bool h2_finished(const struct h2 *h2)
{
    if (h2->aborting)
        return h2->goodbye;
    return !nghttp2_session_want_write(h2->session) && !nghttp2_session_want_read(h2->session);
}

int64_t h2_stalled_since(const struct h2 *h2)
{
    return h2->stalled_since;
}

int64_t h2_last_receive(const struct h2 *h2)
{
    return h2->last_receive;
}

size_t h2_stream_count(const struct h2 *h2)
{
    return h2->stream_count;
}

size_t h2_unsent(const struct h2 *h2)
{
    size_t n = 0;
    for (struct list *l = h2->streams.next; l != &h2->streams; l = l->next)
        n += buf_len(&container_of(l, struct h2_stream, link)->out);
    return n;
}

bool h2_was_flooded(const struct h2 *h2)
{
    return h2->flooded;
}

/* --- streams ------------------------------------------------------------------------------------------------------ */

void h2_stream_init(struct h2_stream *s, struct arena *arena)
{
    struct buf out = s->out;
    *s = (struct h2_stream){.arena = arena, .out = out};
    buf_reset(&s->out);
    list_init(&s->link);
    list_init(&s->drained);
    clear_fields(s);
}

enum err h2_request(struct h2 *h2, struct h2_stream *s, const nghttp2_nv *fields, size_t count)
{
    nghttp2_data_provider provider = {.read_callback = read_content};
    int32_t id = nghttp2_submit_request(h2->session, NULL, fields, count, &provider, s);
    if (id < 0)
        return id == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_UNAVAILABLE;
    attach(h2, s, id);
    return ERR_OK;
}

void h2_respond(struct h2_stream *s, const nghttp2_nv *fields, size_t count, bool last)
{
    nghttp2_data_provider provider = {.read_callback = read_content};
    if (s->h2 && nghttp2_submit_response(s->h2->session, s->id, fields, count, last ? NULL : &provider) != 0)
        h2_reset(s, NGHTTP2_INTERNAL_ERROR);
}

void h2_resume(struct h2_stream *s)
{
    if (!s->h2)
        return;
    if (s->out.failed) {
        h2_reset(s, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    if (s->out_waits && (buf_len(&s->out) || s->out_end)) {
        s->out_waits = false;
        (void)nghttp2_session_resume_data(s->h2->session, s->id);
    }
}

void h2_consume(struct h2_stream *s, size_t n)
{
    if (s->h2 && n > 0)
        (void)nghttp2_session_consume_stream(s->h2->session, s->id, n);
}

void h2_reset(struct h2_stream *s, uint32_t code)
{
    if (s->h2)
        (void)nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, code);
}

/* --- going away --------------------------------------------------------------------------------------------------- */

void h2_shutdown_notice(struct h2 *h2)
{
    (void)nghttp2_submit_shutdown_notice(h2->session);
}

void h2_goaway(struct h2 *h2)
{
    if (h2->leaving)
        return;
    h2->leaving = true;
    (void)nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                                NGHTTP2_NO_ERROR, NULL, 0);
}

void h2_abort(struct h2 *h2, uint32_t code, const char *debug)
{
    if (h2->aborting)
        return;
    h2->aborting = h2->leaving = true;
    (void)nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                                code, (const uint8_t *)debug, strlen(debug));
}

void h2_ping(struct h2 *h2)
{
    (void)nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL);
}
