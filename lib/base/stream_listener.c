/* Where streams come from: listening sockets, and connect(2). */
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/address.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/stream_internal.h"

/* Each costs some 10 µs with what follows from it, on a machine at rest; a crowd is where it is not. A turn that takes
 * so few costs a tenth more than one of 32, and who is here waits that much less. */
#define ACCEPTS_PER_TURN 8
#define ACCEPTS_US       100
#define BACKLOG          4096
/* Out of descriptors: how long to leave the socket alone, and how often to say so. */
#define ACCEPT_PAUSE_S      0.1
#define ACCEPT_COMPLAINT_MS 10000

struct stream_listener {
    ev_io io;
    ev_timer pause;
    struct stream_hub *hub;
    struct tls *tls;
    stream_accept_fn *on_accept;
    stream_room_fn *room; /* may be NULL */
    void *arg;
    unsigned streams_max; /* of the hub; beyond, descriptors are scarce */
    uint16_t handshake_ms;
    int port;
    int64_t complained_ms;
    char *unix_path;
};

static void set_no_delay(int fd, const struct address *a)
{
    int on = 1;
    if (a->storage.ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* --- connecting
 * ------------------------------------------------------------------------------------------------------- */

static bool bind_source(int fd, const char *source)
{
    struct address a;
    int on = 1;
    /* The port is chosen at connect(2), so that one source address can serve more connections than it has ports. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return address_resolve(source, 0, &a) && bind(fd, (struct sockaddr *)&a.storage, a.len) == 0;
}

struct stream *stream_connect(struct stream_hub *hub, const char *host, uint16_t port, struct tls *tls,
                              const char *source, const struct stream_handler *handler, void *arg)
{
    struct address a;
    if (!address_resolve(host, port, &a))
        return NULL;
    int fd = socket(a.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    set_no_delay(fd, &a);
    if (source && !bind_source(fd, source))
        goto fail;
    if (connect(fd, (struct sockaddr *)&a.storage, a.len) < 0 && errno != EINPROGRESS)
        goto fail;
    struct stream *s = stream_new(hub, fd, tls, STREAM_CONNECTING, EV_WRITE);
    if (!s)
        return NULL;
    s->client = true;
    stream_set_handler(s, handler, arg);
    stream_set_deadline(s, STREAM_UNTIL_CONNECTED, STREAM_CONNECT_TIMEOUT_MS);
    return s;
fail:
    close(fd);
    return NULL;
}

/* --- listening
 * --------------------------------------------------------------------------------------------------------- */

static void welcome(struct stream_listener *l, int fd, const struct address *a)
{
    struct stream *s = stream_new(l->hub, fd, l->tls, l->tls ? STREAM_HANDSHAKE : STREAM_OPEN, EV_READ);
    if (!s)
        return;
    s->handshake_ms = l->handshake_ms;
    s->line = stream_line_of(l->hub, &a->storage);
    l->on_accept(s, l->arg);
    if (s->state == STREAM_CLOSED)
        return;
    if (!s->handler)
        stream_close(s);
    else if (!l->tls)
        stream_opened(s);
    else if (!s->closing)
        stream_set_deadline(s, STREAM_UNTIL_HELLO, s->handshake_ms);
}

static void complain(struct stream_listener *l, const char *event, const char *reason)
{
    int64_t now = clock_mono_us() / 1000;
    if (now - l->complained_ms < ACCEPT_COMPLAINT_MS)
        return;
    log_warn(event, "port=%d reason=%s", l->port, log_quote(reason));
    l->complained_ms = now;
}

static void pause_accepting(struct stream_listener *l, const char *reason)
{
    complain(l, "accept_paused", reason);
    ev_io_stop(l->hub->loop, &l->io);
    ev_timer_set(&l->pause, ACCEPT_PAUSE_S, 0);
    ev_timer_start(l->hub->loop, &l->pause);
}

/* Returns false when accepting pauses. */
static bool take(struct stream_listener *l, int fd, const struct address *a)
{
    enum stream_room room = l->room ? l->room(l->arg, l->hub->stream_count >= l->streams_max) : STREAM_ROOM;
    if (room == STREAM_ROOM_NONE) {
        l->hub->stats.accepts_refused++;
        complain(l, "accept_refused", "full");
        close(fd);
        return true;
    }
    set_no_delay(fd, a);
    welcome(l, fd, a);
    if (room == STREAM_ROOM_SOON)
        pause_accepting(l, "crowd");
    return room == STREAM_ROOM;
}

static void on_acceptable(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop, (void)revents;
    struct stream_listener *l = container_of(w, struct stream_listener, io);
    int64_t began = clock_mono_us();
    if (!stream_time_for_strangers(l->hub))
        return;
    for (int i = 0; i < ACCEPTS_PER_TURN && (i == 0 || clock_mono_us() - began < ACCEPTS_US); i++) {
        struct address a = {.len = sizeof a.storage};
        int fd = accept4(l->io.fd, (struct sockaddr *)&a.storage, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            if (!take(l, fd, &a))
                return;
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(l, strerror(errno));
            return;
        }
        /* Anything else is that one connection's misfortune (accept(2), "Error handling"). */
    }
}

static void on_pause_end(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)revents;
    ev_io_start(loop, &container_of(w, struct stream_listener, pause)->io);
}

/* A process that may have few keeps fewer. */
static unsigned streams_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > UINT_MAX)
        return UINT_MAX;
    unsigned most = (unsigned)limit.rlim_cur, kept = STREAM_DESCRIPTORS_KEPT;
    return most - (kept < most / 4 ? kept : most / 4);
}

void stream_listener_set_room(struct stream_listener *l, stream_room_fn *room)
{
    l->room = room;
}

struct stream_listener *stream_listen(struct stream_hub *hub, const char *address, struct tls *tls,
                                      int handshake_timeout_ms, stream_accept_fn *on_accept, void *arg)
{
    int fd = address_listen(address);
    if (fd < 0)
        return NULL;
    struct stream_listener *l = calloc(1, sizeof *l);
    if (!l || (strncmp(address, "unix:", 5) == 0 && !(l->unix_path = strdup(address + 5)))) {
        log_error("listen_failed", "address=%s reason=no_memory", log_quote(address));
        free(l);
        close(fd);
        return NULL;
    }
    l->hub = hub;
    l->tls = tls;
    l->on_accept = on_accept;
    l->arg = arg;
    int ms = handshake_timeout_ms > 0 ? handshake_timeout_ms : STREAM_CONNECT_TIMEOUT_MS;
    l->handshake_ms = (uint16_t)(ms < UINT16_MAX ? ms : UINT16_MAX);
    l->port = address_port_of(fd);
    l->streams_max = streams_max();
    l->complained_ms = -ACCEPT_COMPLAINT_MS;
    ev_io_init(&l->io, on_acceptable, fd, EV_READ);
    ev_set_priority(&l->io, EV_MINPRI); /* behind those who are here */
    ev_timer_init(&l->pause, on_pause_end, 0, 0);
    ev_io_start(hub->loop, &l->io);
    return l;
}

int stream_listener_port(const struct stream_listener *l)
{
    return l->port;
}

void stream_listener_free(struct stream_listener **listener)
{
    struct stream_listener *l = *listener;
    if (!l)
        return;
    ev_io_stop(l->hub->loop, &l->io);
    ev_timer_stop(l->hub->loop, &l->pause);
    close(l->io.fd);
    if (l->unix_path)
        unlink(l->unix_path);
    free(l->unix_path);
    free(l);
    *listener = NULL;
}
