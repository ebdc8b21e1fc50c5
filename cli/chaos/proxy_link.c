#include "cli/chaos/proxy_link.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/chaos/schedule.h"

#define CHUNK_BYTES 16384
/* Of one direction: what a network holds of a connection that is 2 s long. */
#define QUEUE_BYTES_MAX (4u << 20)
/* What a lost packet costs, as with Linux' shortest retransmission time. */
#define RETRANSMIT_S 0.2

struct chunk {
    struct chunk *next;
    double due;
    size_t len, done;
    uint8_t data[];
};

/* One direction: from `from` to `to`. */
struct way {
    struct proxy_link *link;
    int from, to;
    ev_io on_read, on_write;
    ev_timer on_due;
    struct chunk *first, *last;
    size_t queued;
    bool ended; /* `from` says there is no more */
    bool shut;  /* and `to` has been told */
};

struct proxy_link {
    struct proxy_route *route;
    struct list in_route;
    struct way there, back;
    bool connecting;
};

static void close_link(struct proxy_link *l, bool reset)
{
    const struct linger now = {1, 0};
    struct way *ways[] = {&l->there, &l->back};

    for (int i = 0; i < 2; i++) {
        struct way *w = ways[i];
        ev_io_stop(l->route->loop, &w->on_read);
        ev_io_stop(l->route->loop, &w->on_write);
        ev_timer_stop(l->route->loop, &w->on_due);
        while (w->first) {
            struct chunk *c = w->first;
            w->first = c->next;
            free(c);
        }
        if (reset)
            setsockopt(w->from, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(w->from);
    }
    list_remove(&l->in_route);
    free(l);
}

/* The direction's watchers as its state wants them. */
static void watch(struct way *w)
{
    struct proxy_link *l = w->link;
    struct proxy_route *r = l->route;
    bool may = !r->stalled && !l->connecting;
    double now = ev_now(r->loop);

    if (may && !w->ended && w->queued < QUEUE_BYTES_MAX)
        ev_io_start(r->loop, &w->on_read);
    else
        ev_io_stop(r->loop, &w->on_read);
    bool due = w->first && w->first->due <= now;
    if (may && due)
        ev_io_start(r->loop, &w->on_write);
    else
        ev_io_stop(r->loop, &w->on_write);
    ev_timer_stop(r->loop, &w->on_due);
    if (may && w->first && !due) {
        ev_timer_set(&w->on_due, w->first->due - now, 0.);
        ev_timer_start(r->loop, &w->on_due);
    }
}

/* Passes the end on once everything before it has been; true when the link was closed. */
static bool pass_end(struct way *w)
{
    struct proxy_link *l = w->link;

    if (w->ended && !w->first && !w->shut) {
        w->shut = true;
        shutdown(w->to, SHUT_WR);
    }
    if (!l->there.shut || !l->back.shut)
        return false;
    close_link(l, false);
    return true;
}

/* Writes what is due; false when the link was closed. */
static bool write_due(struct way *w)
{
    double now = ev_now(w->link->route->loop);

    while (w->first && w->first->due <= now) {
        struct chunk *c = w->first;
        ssize_t n = send(w->to, c->data + c->done, c->len - c->done, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) {
            close_link(w->link, true);
            return false;
        }
        c->done += (size_t)n;
        w->queued -= (size_t)n;
        if (c->done < c->len)
            break;
        w->first = c->next;
        w->last = w->first ? w->last : NULL;
        free(c);
    }
    if (pass_end(w))
        return false;
    watch(w);
    return true;
}

static double due_of(const struct way *w)
{
    const struct proxy_route *r = w->link->route;
    double due = ev_now(r->loop) + r->delay_s;

    if (r->loss_percent && schedule_random(r->random) % 100 < r->loss_percent)
        due += RETRANSMIT_S;
    return w->last && w->last->due > due ? w->last->due : due;
}

static void on_read(struct ev_loop *loop, ev_io *io, int events)
{
    struct way *w = io->data;
    struct chunk *c = malloc(sizeof *c + CHUNK_BYTES);
    ssize_t n = c ? recv(w->from, c->data, CHUNK_BYTES, 0) : -1;

    (void)loop;
    (void)events;
    if (n <= 0) {
        bool again = c && n < 0 && (errno == EAGAIN || errno == EINTR);
        free(c);
        if (again)
            return;
        if (n < 0) {
            close_link(w->link, true);
            return;
        }
        w->ended = true;
        write_due(w);
        return;
    }
    /* Most are small and many wait: no more memory than they need. */
    struct chunk *fit = realloc(c, sizeof *c + (size_t)n);
    c = fit ? fit : c;
    c->next = NULL;
    c->len = (size_t)n;
    c->done = 0;
    c->due = due_of(w);
    if (w->last)
        w->last->next = c;
    else
        w->first = c;
    w->last = c;
    w->queued += (size_t)n;
    write_due(w);
}

static void on_connected(struct proxy_link *l)
{
    int error = 0;
    socklen_t len = sizeof error;

    l->connecting = false;
    if (getsockopt(l->there.to, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error) {
        close_link(l, true);
        return;
    }
    watch(&l->there);
    watch(&l->back);
}

static void on_write(struct ev_loop *loop, ev_io *io, int events)
{
    struct way *w = io->data;

    (void)events;
    if (w->link->connecting) {
        ev_io_stop(loop, io);
        on_connected(w->link);
        return;
    }
    write_due(w);
}

static void on_due(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop;
    (void)events;
    write_due(t->data);
}

static void make_way(struct proxy_link *l, struct way *w, int from, int to)
{
    w->link = l;
    w->from = from;
    w->to = to;
    ev_io_init(&w->on_read, on_read, from, EV_READ);
    ev_io_init(&w->on_write, on_write, to, EV_WRITE);
    ev_init(&w->on_due, on_due);
    w->on_read.data = w->on_write.data = w->on_due.data = w;
}

static int connect_to(const struct address *target)
{
    int fd = socket(target->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int one = 1;

    if (fd >= 0 && target->storage.ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&target->storage, target->len) != 0 && errno != EINPROGRESS) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void proxy_link_open(struct proxy_route *route, int fd)
{
    const struct linger now = {1, 0};
    int to = route->has_target && !route->broken ? connect_to(&route->target) : -1;
    struct proxy_link *l = to >= 0 ? calloc(1, sizeof *l) : NULL;

    if (!l) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(fd);
        if (to >= 0)
            close(to);
        return;
    }
    l->route = route;
    l->connecting = true;
    make_way(l, &l->there, fd, to);
    make_way(l, &l->back, to, fd);
    list_append(&route->links, &l->in_route);
    ev_io_start(route->loop, &l->there.on_write); /* tells when the connection is made */
}

void proxy_links_break(struct proxy_route *route)
{
    list_for_each (pos, tmp, &route->links)
        close_link(container_of(pos, struct proxy_link, in_route), true);
}

void proxy_links_resume(struct proxy_route *route)
{
    double now = ev_now(route->loop);

    list_for_each (pos, tmp, &route->links) {
        struct proxy_link *l = container_of(pos, struct proxy_link, in_route);
        for (struct chunk *c = l->there.first; c; c = c->next)
            c->due = c->due < now ? c->due : now;
        for (struct chunk *c = l->back.first; c; c = c->next)
            c->due = c->due < now ? c->due : now;
        if (l->connecting)
            continue;
        watch(&l->there);
        watch(&l->back);
    }
}
