#include "lib/base/stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/stream_internal.h"

/* Buffers bigger than this are freed rather than pooled. */
#define SPARE_BUF_MAX 16384

/* --- buffers ---------------------------------------------------------------------------------------------------- */

struct buf *stream_take_buf(struct stream_hub *hub)
{
    if (hub->spare_count > 0)
        return hub->spare[--hub->spare_count];
    return calloc(1, sizeof(struct buf));
}

void stream_return_buf(struct stream_hub *hub, struct buf **b)
{
    if (!*b)
        return;
    if ((*b)->cap <= SPARE_BUF_MAX && hub->spare_count < STREAM_SPARES_MAX) {
        buf_reset(*b);
        hub->spare[hub->spare_count++] = *b;
    } else {
        buf_free(*b);
        free(*b);
    }
    *b = NULL;
}

bool stream_append(struct stream_hub *hub, struct buf **b, const void *data, size_t len)
{
    if (!*b && !(*b = stream_take_buf(hub)))
        return false;
    buf_put(*b, data, len);
    return !(*b)->failed;
}

/* --- life ------------------------------------------------------------------------------------------------------- */

void stream_mark_turn(struct stream *s)
{
    if (list_empty(&s->turn))
        list_append(&s->hub->turn, &s->turn);
}

static void set_events(struct stream *s, int events)
{
    if (events == (s->io.events & (EV_READ | EV_WRITE)) && (events == 0 || ev_is_active(&s->io)))
        return;
    ev_io_stop(s->hub->loop, &s->io);
    ev_io_set(&s->io, s->io.fd, events);
    if (events)
        ev_io_start(s->hub->loop, &s->io);
}

/* EV_WRITE is asked for only after a short write, so that a turn that sends all it has costs no epoll_ctl. */
void stream_update_events(struct stream *s)
{
    bool waiting = stream_wire_waits(s) || (!s->secure && s->out && s->state == STREAM_OPEN);
    bool blocked = s->state == STREAM_CONNECTING || (waiting && !s->held);
    bool reading = s->state == STREAM_HANDSHAKE || s->state == STREAM_LINGER || s->closing || !s->paused;
    set_events(s, (reading && !s->parked && s->state != STREAM_CONNECTING ? EV_READ : 0) | (blocked ? EV_WRITE : 0));
}

void stream_close(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    if (s->state == STREAM_CLOSED)
        return;
    s->state = STREAM_CLOSED;
    hub->stream_count--;
    hub->hello_count -= s->queued;
    ev_io_stop(hub->loop, &s->io);
    close(s->io.fd);
    list_remove(&s->turn);
    list_remove(&s->link);
    list_append(&hub->closed, &s->link);
    stream_return_buf(hub, &s->in);
    stream_return_buf(hub, &s->out);
    if (s->secure) {
        stream_return_buf(hub, &s->tls->wire);
        stream_return_buf(hub, &s->tls->part);
    }
}

void stream_fail(struct stream *s, enum err why)
{
    if (s->state == STREAM_CLOSED)
        return;
    stream_close(s);
    if (s->handler && s->handler->on_close)
        s->handler->on_close(s, s->io.data, why);
}

void stream_fail_soon(struct stream *s, enum err why)
{
    if (s->state == STREAM_CLOSED)
        return;
    if (!s->doomed)
        s->doomed = (uint8_t)why;
    stream_mark_turn(s);
}

static struct pool *pool_of(struct stream_hub *hub, bool secure)
{
    return secure ? &hub->secure_streams : &hub->plain_streams;
}

static void reap(struct stream_hub *hub)
{
    struct list *l;
    while ((l = list_pop(&hub->closed))) {
        struct stream *s = container_of(l, struct stream, link);
        const struct stream_records *records = stream_records(s);
        if (records)
            records->free(s);
        struct pool *pool = pool_of(hub, s->secure);
        pool_give(pool, s, pool->size);
    }
}

/* --- input ------------------------------------------------------------------------------------------------------ */

static size_t limit(uint32_t bytes)
{
    return bytes ? bytes : STREAM_DEFAULT_LIMIT;
}

/* Keeps what on_data left over. */
static void keep_rest(struct stream *s, const uint8_t *rest, size_t len, size_t used)
{
    if (s->in) {
        buf_consume(s->in, used);
        if (buf_len(s->in) == 0)
            stream_return_buf(s->hub, &s->in);
    } else if (len > 0 && !stream_append(s->hub, &s->in, rest, len)) {
        stream_fail(s, ERR_NOMEM);
        return;
    }
    if (s->in && !s->paused && buf_len(s->in) > limit(s->handler->input_limit))
        stream_fail(s, ERR_LIMIT);
}

void stream_deliver(struct stream *s, const uint8_t *data, size_t len)
{
    if (s->closing)
        return;
    if (s->in || s->paused) {
        if (len > 0 && !stream_append(s->hub, &s->in, data, len)) {
            stream_fail(s, ERR_NOMEM);
            return;
        }
        if (!s->in || s->paused)
            return;
        data = buf_head(s->in);
        len = buf_len(s->in);
    }
    if (len == 0)
        return;
    size_t used = s->handler->on_data(s, s->io.data, data, len);
    if (s->state == STREAM_CLOSED)
        return;
    assert(used <= len);
    keep_rest(s, data + used, len - used, used);
}

/* Returns bytes received into hub->received; 0 when nothing came or the stream was closed. */
static size_t receive(struct stream *s)
{
    ssize_t n = recv(s->io.fd, s->hub->received, s->hub->read_share, 0);
    if (n > 0) {
        s->hub->reads++;
        return (size_t)n;
    }
    if (n == 0)
        stream_fail(s, ERR_CLOSED);
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        stream_fail(s, s->state == STREAM_LINGER ? ERR_CLOSED : ERR_IO);
    return 0;
}

void stream_read_once(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    size_t n = receive(s);
    if (n == 0 || s->state == STREAM_LINGER || (s->closing && s->state == STREAM_OPEN))
        return;
    const struct stream_records *records = stream_records(s);
    if (records) {
        hub->raw = (struct slice){hub->received, n};
        records->receive(s);
        hub->raw.len = 0;
    } else {
        stream_deliver(s, hub->received, n);
    }
}

static void on_readable(struct stream *s)
{
    if (s->state != STREAM_HANDSHAKE) {
        stream_read_once(s);
    } else if (!s->tls->ssl) {
        stream_queue_hello(s);
    } else if (stream_may_shake(s->hub)) {
        stream_handshake_step(s);
    }
    /* What is not read stays readable, and is looked at again in the next turn. */
}

void stream_opened(struct stream *s)
{
    s->state = STREAM_OPEN;
    if (s->closing) {
        stream_mark_turn(s);
        return;
    }
    stream_clear_deadline(s);
    if (s->out)
        stream_mark_turn(s);
    if (s->handler->on_open)
        s->handler->on_open(s, s->io.data);
}

static void on_connected(struct stream *s)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(s->io.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
        stream_fail(s, ERR_UNAVAILABLE);
        return;
    }
    if (s->secure) {
        s->state = STREAM_HANDSHAKE;
        stream_update_events(s);
        stream_records(s)->receive(s);
    } else {
        stream_opened(s);
    }
    if (s->state != STREAM_CLOSED)
        stream_update_events(s);
}

/* One more has been read or written, perhaps closed. */
static void look_between(struct stream_hub *hub)
{
    if (!hub->look || ++hub->looked_ago < STREAM_LOOK_EVERY)
        return;
    hub->looked_ago = 0;
    hub->look(hub->look_arg);
}

static void serve(struct stream *s, int revents)
{
    if (s->state == STREAM_CONNECTING) {
        on_connected(s);
        return;
    }
    if (revents & EV_WRITE && !s->doomed)
        stream_flush(s);
    if (!(revents & EV_READ) || s->state == STREAM_CLOSED || !(s->io.events & EV_READ))
        return;
    on_readable(s);
    /* What it answered to its own input leaves while it is still in the processor's cache (measured: a tenth of the
     * whole round trip with 2,000 connections); a stream is read once a turn, so it is one write all the same. */
    if (s->out && s->state == STREAM_OPEN && !s->resume && !s->doomed)
        stream_flush(s);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    struct stream *s = container_of(w, struct stream, io);
    struct stream_hub *hub = s->hub;
    (void)loop;
    serve(s, revents);
    look_between(hub);
}

/* --- output ----------------------------------------------------------------------------------------------------- */

size_t stream_pending(const struct stream *s)
{
    return (s->out ? buf_len(s->out) : 0) + (stream_wire_waits(s) ? buf_len(s->tls->wire) : 0);
}

bool stream_writable(const struct stream *s)
{
    return stream_pending(s) <= limit(s->handler->output_limit);
}

void stream_write(struct stream *s, const void *data, size_t len)
{
    if (s->state >= STREAM_LINGER || s->closing || s->doomed || len == 0)
        return;
    if (!stream_append(s->hub, &s->out, data, len)) {
        stream_fail_soon(s, ERR_NOMEM);
        return;
    }
    if (!stream_writable(s))
        s->full = true;
    if (s->state == STREAM_OPEN)
        stream_mark_turn(s);
}

void stream_write_guarded(struct stream *s, const void *data, size_t len)
{
    if (s->state < STREAM_LINGER && !s->closing)
        s->guarded = true;
    stream_write(s, data, len);
}

void stream_hurry(struct stream *s)
{
    if (s->state != STREAM_OPEN || list_empty(&s->turn))
        return;
    list_remove(&s->turn);
    if (list_empty(&s->hub->hurried))
        ev_feed_event(s->hub->loop, &s->hub->hurry, EV_CUSTOM);
    list_append(&s->hub->hurried, &s->turn);
}

/* Sends from *b until it is empty (and then returns it) or the kernel takes no more. False when the connection is
 * broken. */
static bool send_buf(struct stream *s, struct buf **b)
{
    size_t budget = STREAM_FLUSH_MAX;
    while (*b && budget > 0) {
        size_t len = buf_len(*b);
        ssize_t n = send(s->io.fd, buf_head(*b), len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        buf_consume(*b, (size_t)n);
        if (buf_len(*b) == 0)
            stream_return_buf(s->hub, b);
        else if ((size_t)n < len)
            return true;
        budget -= (size_t)n < budget ? (size_t)n : budget;
    }
    return true;
}

/* All is sent and the owner wants no more: says so to the peer, and waits a moment for it to close. */
static void begin_linger(struct stream *s)
{
    if (s->secure) {
        stream_records(s)->notify_close(s);
        if (s->tls->wire)
            return;
    }
    s->state = STREAM_LINGER;
    stream_return_buf(s->hub, &s->in);
    if (shutdown(s->io.fd, SHUT_WR) < 0) {
        stream_fail(s, ERR_CLOSED);
        return;
    }
    stream_set_deadline(s, STREAM_UNTIL_GONE, STREAM_LINGER_MS);
    stream_update_events(s);
}

void stream_flush(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    if (!s->resume && !s->doomed)
        list_remove(&s->turn);
    s->held = s->guarded && hub->may && !hub->may(hub->may_arg);
    if (s->held) {
        stream_update_events(s);
        return;
    }
    if (s->guarded)
        stream_pushed(hub);
    if (stream_wire_waits(s) && !send_buf(s, &s->tls->wire)) {
        stream_fail(s, ERR_IO);
        return;
    }
    if (s->state == STREAM_OPEN && s->out && !stream_wire_waits(s) &&
        !(s->secure ? stream_records(s)->flush(s) : send_buf(s, &s->out))) {
        stream_fail(s, ERR_IO);
        return;
    }
    /* What is left of TLS output though the kernel took all was over the turn's bound. */
    if (s->secure && s->out && !s->tls->wire && s->state == STREAM_OPEN)
        stream_mark_turn(s);
    if (stream_pending(s) == 0)
        s->guarded = false;
    if (s->closing && s->state == STREAM_OPEN && stream_pending(s) == 0) {
        begin_linger(s);
        if (s->state != STREAM_OPEN)
            return;
    }
    stream_update_events(s);
    if (s->full && stream_pending(s) <= limit(s->handler->output_limit) / 4) {
        s->full = false;
        if (s->handler->on_drain && !s->closing)
            s->handler->on_drain(s, s->io.data);
    } else if (!stream_writable(s)) {
        /* Encrypted output is a little longer: it can be over the limit that the plain one was under. */
        s->full = true;
    }
}

void stream_shutdown(struct stream *s)
{
    if (s->closing || s->state >= STREAM_LINGER)
        return;
    s->closing = true;
    s->paused = false;
    stream_set_deadline(s, STREAM_UNTIL_SENT, STREAM_SHUTDOWN_TIMEOUT_MS);
    if (s->state == STREAM_OPEN)
        stream_mark_turn(s);
}

void stream_pause(struct stream *s, bool paused)
{
    if (s->state >= STREAM_LINGER || s->closing || s->paused == paused)
        return;
    s->paused = paused;
    /* Inside on_data what it will leave over is not in `in` yet. */
    if (!paused) {
        s->resume = true;
        stream_mark_turn(s);
    }
    stream_update_events(s);
}

bool stream_send_records(struct stream *s, const uint8_t *data, size_t len)
{
    ssize_t sent = 0;
    if (!s->tls->wire) {
        do {
            sent = send(s->io.fd, data, len, MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            return false;
        if (sent < 0)
            sent = 0;
    }
    size_t rest = len - (size_t)sent, waiting = s->tls->wire ? buf_len(s->tls->wire) : 0;
    return rest == 0 || (waiting + rest <= STREAM_WIRE_MAX && stream_append(s->hub, &s->tls->wire, data + sent, rest));
}

/* --- the end of a turn ------------------------------------------------------------------------------------------- */

static void finish_stream(struct stream *s)
{
    if (s->doomed) {
        stream_fail(s, (enum err)s->doomed);
        return;
    }
    if (s->resume) {
        s->resume = false;
        if (!s->paused)
            stream_deliver(s, NULL, 0);
    }
    if (s->state != STREAM_CLOSED)
        stream_flush(s);
}

static void share_reads(struct stream_hub *hub)
{
    size_t share = hub->reads ? STREAM_READ_TURN / hub->reads : STREAM_READ_MAX;
    hub->read_share = share < STREAM_READ_MIN ? STREAM_READ_MIN : share > STREAM_READ_MAX ? STREAM_READ_MAX : share;
    hub->reads = 0;
}

/* What callbacks add meanwhile waits for the next turn, so that a turn ends whatever they do. */
static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
    (void)revents;
    struct stream_hub *hub = container_of(w, struct stream_hub, prepare);
    struct list end;
    share_reads(hub);
    list_append(&hub->turn, &end);
    for (unsigned n = hub->hurried_count; n < STREAM_FLUSHES_PER_TURN; n++) {
        bool others = hub->turn.next != &end;
        struct list *l = n < STREAM_HURRIED_PER_TURN || !others ? list_pop(&hub->hurried) : NULL;
        if (!l && others)
            l = list_pop(&hub->turn);
        if (!l)
            break;
        finish_stream(container_of(l, struct stream, turn));
        look_between(hub);
    }
    list_remove(&end);
    hub->hurried_count = 0;
    /* What is to be sent does not wait for who only comes; what these write leaves with the next turn, at once. */
    stream_begin_handshakes(hub);
    reap(hub);
    /* Those who may not begin yet need no hurry: they are looked at after whatever comes next. */
    bool more = !list_empty(&hub->turn) || !list_empty(&hub->hurried) ||
                (hub->hello_count > 0 && hub->handshakes < STREAM_HANDSHAKES_MAX);
    if (more && !ev_is_active(&hub->idle))
        ev_idle_start(loop, &hub->idle);
    else if (!more && ev_is_active(&hub->idle))
        ev_idle_stop(loop, &hub->idle);
}

/* --- what goes first ---------------------------------------------------------------------------------------------- */

static void on_hurry(struct ev_loop *loop, ev_prepare *w, int revents)
{
    (void)revents;
    struct stream_hub *hub = container_of(w, struct stream_hub, hurry);
    struct list *l;
    for (; hub->hurried_count < STREAM_HURRIED_PER_TURN && (l = list_pop(&hub->hurried)); hub->hurried_count++)
        finish_stream(container_of(l, struct stream, turn));
    /* The turn may have had its end already. */
    bool more = !list_empty(&hub->turn) || !list_empty(&hub->hurried);
    if (more && !ev_is_active(&hub->idle))
        ev_idle_start(loop, &hub->idle);
}

void stream_hub_look(struct stream_hub *hub, void (*look)(void *arg), void *arg)
{
    hub->look = look;
    hub->look_arg = arg;
}

/* --- the guard ---------------------------------------------------------------------------------------------------- */

void stream_hub_guard(struct stream_hub *hub, bool (*may)(void *arg), void *arg)
{
    hub->may = may;
    hub->may_arg = arg;
}

static void release(struct stream *s)
{
    if (s->held)
        stream_mark_turn(s);
}

static void drop_guarded(struct stream *s)
{
    if (s->guarded && stream_pending(s) > 0)
        stream_fail(s, ERR_FENCED);
}

/* A look at all, since it comes when a lease has lapsed, and streams are many: no list is kept for it. */
static void each_stream(struct stream_hub *hub, void (*fn)(struct stream *s))
{
    list_for_each (l, next, &hub->open)
        fn(container_of(l, struct stream, link));
    for (unsigned n = 0; n < STREAM_DEADLINES; n++)
        list_for_each (l, next, &hub->deadlines[n])
            fn(container_of(l, struct stream, link));
}

void stream_hub_release(struct stream_hub *hub)
{
    each_stream(hub, release);
}

void stream_hub_drop_guarded(struct stream_hub *hub)
{
    each_stream(hub, drop_guarded);
}

void stream_receive(struct stream *s)
{
    if (s->state != STREAM_OPEN || s->closing || s->paused)
        return;
    if (s->in) /* kept while it was not read */
        stream_deliver(s, NULL, 0);
    if (s->state == STREAM_OPEN && !s->closing && !s->paused)
        stream_read_once(s);
}

static void on_idle(struct ev_loop *loop, ev_idle *w, int revents)
{
    (void)loop, (void)w, (void)revents;
}

struct stream_hub *stream_hub_new(struct ev_loop *loop)
{
    struct stream_hub *hub = malloc(sizeof *hub);
    if (!hub)
        return NULL;
    memset(hub, 0, offsetof(struct stream_hub, received));
    hub->loop = loop;
    hub->read_share = STREAM_READ_MAX;
    pool_init(&hub->plain_streams, sizeof(struct stream));
    pool_init(&hub->secure_streams, sizeof(struct stream) + sizeof(struct stream_tls));
    list_init(&hub->open);
    for (unsigned n = 0; n < STREAM_DEADLINES; n++)
        list_init(&hub->deadlines[n]);
    list_init(&hub->closed);
    list_init(&hub->turn);
    list_init(&hub->hurried);
    stream_hellos_init(hub);
    /* Last of all prepare watchers, so that what the others write leaves before the loop sleeps. */
    ev_prepare_init(&hub->prepare, on_prepare);
    ev_set_priority(&hub->prepare, EV_MINPRI);
    ev_prepare_start(loop, &hub->prepare);
    ev_unref(loop);
    ev_prepare_init(&hub->hurry, on_hurry);
    ev_set_priority(&hub->hurry, 1);
    ev_idle_init(&hub->idle, on_idle);
    ev_timer_init(&hub->timer, stream_on_timer, 0, 0);
    return hub;
}

void stream_hub_free(struct stream_hub **hub)
{
    struct stream_hub *h = *hub;
    if (!h)
        return;
    each_stream(h, stream_close);
    reap(h);
    ev_ref(h->loop);
    ev_prepare_stop(h->loop, &h->prepare);
    ev_clear_pending(h->loop, &h->hurry);
    ev_idle_stop(h->loop, &h->idle);
    ev_timer_stop(h->loop, &h->timer);
    while (h->spare_count > 0) {
        struct buf *b = h->spare[--h->spare_count];
        buf_free(b);
        free(b);
    }
    pool_free(&h->plain_streams);
    pool_free(&h->secure_streams);
    free(h);
    *hub = NULL;
}

struct ev_loop *stream_hub_loop(const struct stream_hub *hub)
{
    return hub->loop;
}

struct stream *stream_new(struct stream_hub *hub, int fd, struct tls *tls, enum stream_state state, int events)
{
    struct pool *pool = pool_of(hub, tls);
    struct stream *s = pool_take(pool, pool->size);
    if (!s) {
        close(fd);
        return NULL;
    }
    s->hub = hub;
    hub->stream_count++;
    if (tls) {
        s->secure = true;
        s->tls->context = tls;
    }
    s->state = (uint8_t)state;
    list_init(&s->turn);
    list_init(&s->link);
    list_append(&hub->open, &s->link);
    ev_io_init(&s->io, on_io, fd, events);
    ev_io_start(hub->loop, &s->io);
    return s;
}
