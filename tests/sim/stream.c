#include "tests/sim/stream.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/list.h"
#include "lib/base/stream.h"
#include "tests/sim/loop.h"
#include "tests/sim/net.h"

#define RESET_LIMIT (256 * 1024)

struct stream_hub {
    struct process *process;
    struct ev_loop *loop;
    struct list streams; /* the worker's ends that are open */
    struct stream_listener *listener;
    bool (*may)(void *arg);
    void *may_arg;
};

struct stream_listener {
    struct stream_hub *hub;
    stream_accept_fn *accept;
    void *arg;
};

struct segment {
    struct list link;
    struct event event;
    struct stream *stream;
    bool close; /* the end of the connection, after what was sent before */
    int64_t sent_us, sent_ms;
    size_t len;
    uint8_t data[];
};

struct stream {
    struct list link; /* hub->streams */
    struct world *world;
    struct process *process;
    struct stream_hub *hub; /* NULL: the worker's end is gone */
    struct device *device;  /* NULL: the device's end is gone */
    const struct stream_handler *handler;
    void *arg;
    bool accepted, paused, silent; /* silent: what is sent to the device vanishes */
    bool guarded;                  /* `out` may leave only while the hub's guard says so */
    struct buf in, out;
    struct event flush, read, accept;
    struct wire there, back;
    struct list segments;
};

/* --- life -------------------------------------------------------------------------------------------------------- */

static void segment_free(struct segment *g)
{
    event_cancel(g->stream->world, &g->event);
    list_remove(&g->link);
    free(g);
}

static void stream_destroy(struct stream *s)
{
    struct world *w = s->world;
    event_cancel(w, &s->flush);
    event_cancel(w, &s->read);
    event_cancel(w, &s->accept);
    while (!list_empty(&s->segments))
        segment_free(container_of(s->segments.next, struct segment, link));
    list_remove(&s->link);
    buf_free(&s->in);
    buf_free(&s->out);
    free(s);
}

static void let_go(void *arg)
{
    struct stream *s = arg;
    if (!s->hub && !s->device)
        stream_destroy(s);
}

/* When both ends are gone; after this event, since the caller may still look at it. */
static void free_later(struct stream *s)
{
    if (!s->hub && !s->device)
        event_plan(s->world, &s->read, s->world->now_us, NULL, let_go, s);
}

static struct segment *segment_new(struct stream *s, const void *data, size_t len)
{
    struct segment *g = calloc(1, sizeof *g + len);
    if (!g)
        abort();
    g->stream = s;
    g->len = len;
    g->sent_us = s->world->now_us;
    g->sent_ms = world_wall_ms(s->world) - s->process->slow_ms;
    if (len)
        memcpy(g->data, data, len);
    list_append(&s->segments, &g->link);
    return g;
}

/* --- to the device ----------------------------------------------------------------------------------------------- */

static void to_device(void *arg)
{
    struct segment *g = arg;
    struct stream *s = g->stream;
    list_remove(&g->link);
    if (s->device && g->close) {
        struct device *d = s->device;
        s->device = NULL;
        free_later(s);
        device_closed(d);
    } else if (s->device) {
        device_data(s->device, g->data, g->len, g->sent_us, g->sent_ms);
    }
    free(g);
}

static void send_to_device(struct stream *s, struct segment *g)
{
    if (s->silent || !s->device)
        segment_free(g);
    else
        event_plan(s->world, &g->event, wire_arrival(s->world, &s->back), NULL, to_device, g);
}

/* Refused, it stays until stream_hub_release. */
static void flush(void *arg)
{
    struct stream *s = arg;
    if (s->guarded && s->hub && s->hub->may && !s->hub->may(s->hub->may_arg))
        return;
    if (buf_len(&s->out))
        send_to_device(s, segment_new(s, buf_head(&s->out), buf_len(&s->out)));
    buf_reset(&s->out);
    s->guarded = false;
}

static void to_worker(void *arg);

/* What is on its way to the worker's end reaches nobody. */
static void close_worker_end(struct stream *s)
{
    event_cancel(s->world, &s->flush);
    event_cancel(s->world, &s->read);
    event_cancel(s->world, &s->accept);
    list_remove(&s->link);
    s->hub = NULL;
    list_for_each (l, tmp, &s->segments) {
        struct segment *g = container_of(l, struct segment, link);
        if (g->event.fn == to_worker)
            segment_free(g);
    }
}

/* The worker's end goes; the device learns it after what was sent. */
static void worker_end_gone(struct stream *s)
{
    close_worker_end(s);
    struct segment *g = segment_new(s, NULL, 0);
    g->close = true;
    send_to_device(s, g);
    free_later(s);
}

/* --- to the worker ----------------------------------------------------------------------------------------------- */

static void read_in(void *arg)
{
    struct stream *s = arg;
    if (!s->hub || s->paused || !s->handler || buf_len(&s->in) == 0)
        return;
    struct buf in = s->in; /* the handler may close the stream */
    s->in = (struct buf){0};
    size_t n = s->handler->on_data(s, s->arg, buf_head(&in), buf_len(&in));
    buf_consume(&in, n);
    buf_put(&in, buf_slice(&s->in).data, buf_len(&s->in));
    buf_free(&s->in);
    s->in = in;
    if (s->hub && buf_len(&s->out)) {
        event_cancel(s->world, &s->flush);
        flush(s);
    }
}

static void to_worker(void *arg)
{
    struct segment *g = arg;
    struct stream *s = g->stream;
    list_remove(&g->link);
    if (s->hub && g->close) {
        close_worker_end(s);
        free_later(s);
        if (s->handler) /* accepted in time */
            s->handler->on_close(s, s->arg, ERR_CLOSED);
    } else if (s->hub) {
        buf_put(&s->in, g->data, g->len);
        if (buf_len(&s->in) > RESET_LIMIT)
            abort(); /* devices here do not send so much */
        read_in(s);
    }
    free(g);
}

static void accept_one(void *arg)
{
    struct stream *s = arg;
    struct stream_listener *l = s->hub ? s->hub->listener : NULL;
    s->accepted = true;
    if (!l)
        worker_end_gone(s);
    else
        l->accept(s, l->arg);
}

/* --- the device's end -------------------------------------------------------------------------------------------- */

struct stream *link_open(struct device *d, struct process *worker)
{
    struct stream_hub *hub = sim_process_hub(worker);
    if (!hub || !hub->listener)
        return NULL;
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->world = worker->world;
    s->process = worker;
    s->hub = hub;
    s->device = d;
    list_init(&s->segments);
    list_init(&s->link);
    list_append(&hub->streams, &s->link);
    event_plan(s->world, &s->accept, wire_arrival(s->world, &s->there), worker, accept_one, s);
    return s;
}

void link_write(struct stream *s, const void *data, size_t len)
{
    struct segment *g = segment_new(s, data, len);
    if (!s->hub || s->silent)
        segment_free(g);
    else
        event_plan(s->world, &g->event, wire_arrival(s->world, &s->there), s->process, to_worker, g);
}

void link_close(struct stream *s, bool silently)
{
    struct segment *g = segment_new(s, NULL, 0);
    s->device = NULL;
    g->close = true;
    if (!s->hub || silently || s->silent)
        segment_free(g);
    else
        event_plan(s->world, &g->event, wire_arrival(s->world, &s->there), s->process, to_worker, g);
    s->silent = s->silent || silently;
    free_later(s);
}

void link_stall(struct stream *s, int64_t until_us)
{
    wire_stall(&s->there, until_us);
    wire_stall(&s->back, until_us);
    list_for_each (l, tmp, &s->segments) {
        struct segment *g = container_of(l, struct segment, link);
        struct wire *wire = g->event.fn == to_worker ? &s->there : &s->back;
        if (g->event.place)
            event_plan(s->world, &g->event, wire_arrival(s->world, wire), g->event.process, g->event.fn, g);
    }
}

struct process *link_worker(const struct stream *s)
{
    return s->process;
}

void link_free(struct stream *s)
{
    s->device = NULL;
    if (!s->hub)
        stream_destroy(s);
}

void links_free(struct world *w)
{
    for (size_t place = 1; place <= w->heap_count;)
        if (w->heap[place]->fn == let_go) {
            stream_destroy(w->heap[place]->arg);
            place = 1; /* its events leave the heap */
        } else {
            place++;
        }
}

/* --- lib/base/stream.h ------------------------------------------------------------------------------------------- */

struct stream_hub *stream_hub_new(struct ev_loop *loop)
{
    struct stream_hub *hub = calloc(1, sizeof *hub);
    if (!hub)
        abort();
    hub->process = sim_loop_process(loop);
    hub->loop = loop;
    list_init(&hub->streams);
    return hub;
}

void stream_hub_free(struct stream_hub **hub)
{
    if (!*hub)
        return;
    list_for_each (l, tmp, &(*hub)->streams)
        worker_end_gone(container_of(l, struct stream, link));
    free(*hub);
    *hub = NULL;
}

struct stream_listener *stream_listen(struct stream_hub *hub, const char *address, struct tls *tls,
                                      int handshake_timeout_ms, stream_accept_fn *on_accept, void *arg)
{
    struct stream_listener *l = calloc(1, sizeof *l);
    (void)address, (void)tls, (void)handshake_timeout_ms;
    if (!l)
        abort();
    *l = (struct stream_listener){hub, on_accept, arg};
    hub->listener = l;
    return l;
}

int stream_listener_port(const struct stream_listener *l)
{
    (void)l;
    return 1;
}

void stream_listener_free(struct stream_listener **l)
{
    if (!*l)
        return;
    (*l)->hub->listener = NULL;
    free(*l);
    *l = NULL;
}

void stream_set_handler(struct stream *s, const struct stream_handler *handler, void *arg)
{
    s->handler = handler;
    s->arg = arg;
}

void stream_write(struct stream *s, const void *data, size_t len)
{
    if (!s->hub || s->process->dying)
        return;
    buf_put(&s->out, data, len);
    if (!event_planned(&s->flush))
        event_plan(s->world, &s->flush, s->world->now_us + 5, s->process, flush, s);
}

void stream_write_guarded(struct stream *s, const void *data, size_t len)
{
    s->guarded = true;
    stream_write(s, data, len);
}

void stream_hurry(struct stream *s)
{
    (void)s; /* here nobody's output waits for another's */
}

void stream_hub_look(struct stream_hub *hub, void (*look)(void *arg), void *arg)
{
    (void)hub, (void)look, (void)arg; /* here everything comes when it comes */
}

void stream_hub_guard(struct stream_hub *hub, bool (*may)(void *arg), void *arg)
{
    hub->may = may;
    hub->may_arg = arg;
}

void stream_hub_release(struct stream_hub *hub)
{
    list_for_each (l, tmp, &hub->streams) {
        struct stream *s = container_of(l, struct stream, link);
        if (buf_len(&s->out))
            event_plan(s->world, &s->flush, s->world->now_us + 5, s->process, flush, s);
    }
}

void stream_hub_drop_guarded(struct stream_hub *hub)
{
    list_for_each (l, tmp, &hub->streams) {
        struct stream *s = container_of(l, struct stream, link);
        if (!s->guarded)
            continue;
        worker_end_gone(s);
        s->handler->on_close(s, s->arg, ERR_FENCED);
    }
}

/* What has come while the process was stopped is among what is held back. */
void stream_receive(struct stream *s)
{
    event_cancel(s->world, &s->read);
    read_in(s);
    if (!s->hub)
        return;
    list_for_each (l, tmp, &s->segments) {
        struct segment *g = container_of(l, struct segment, link);
        if (g->event.fn != to_worker || g->event.at_us > s->world->now_us || !event_planned(&g->event))
            continue;
        event_cancel(s->world, &g->event);
        bool last = g->close || !s->hub;
        to_worker(g);
        if (last || !s->hub)
            return;
    }
}

/* Devices here read what they are sent. */
bool stream_writable(const struct stream *s)
{
    (void)s;
    return true;
}

bool stream_silent(const struct stream *s)
{
    if (buf_len(&s->in))
        return false;
    for (const struct list *l = s->segments.next; l != &s->segments; l = l->next) {
        const struct segment *g = container_of(l, struct segment, link);
        if (g->event.fn == to_worker && g->event.at_us <= s->world->now_us)
            return false;
    }
    return true;
}

/* Memory does not run out here. */
void stream_fail_soon(struct stream *s, enum err why)
{
    (void)s, (void)why;
    abort();
}

/* Devices here are few. */
void stream_listener_set_room(struct stream_listener *l, stream_room_fn *room)
{
    (void)l, (void)room;
}

void stream_pause(struct stream *s, bool paused)
{
    s->paused = paused;
    if (!paused && s->hub && buf_len(&s->in))
        event_plan(s->world, &s->read, s->world->now_us + 5, s->process, read_in, s);
}

void stream_shutdown(struct stream *s)
{
    if (!s->hub)
        return;
    flush(s);
    worker_end_gone(s);
}

void stream_close(struct stream *s)
{
    if (s->hub)
        worker_end_gone(s);
}

const char *stream_peer(const struct stream *s)
{
    (void)s;
    return "device";
}
