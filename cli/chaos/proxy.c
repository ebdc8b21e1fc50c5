#include "cli/chaos/proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/chaos/proxy_link.h"

/* Connections taken in one turn. */
#define ACCEPTS_A_TURN 64

struct proxy {
    struct ev_loop *loop;
    int control, peer; /* the listening socket, and who commands */
    ev_io on_control, on_packet;
    struct proxy_route routes[PROXY_ROUTES_MAX];
    int count;
    uint64_t random;
};

static void on_accept(struct ev_loop *loop, ev_io *io, int events)
{
    struct proxy_route *r = io->data;
    const int one = 1;

    (void)loop;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = accept4(r->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        proxy_link_open(r, fd);
    }
}

static struct proxy_route *find(struct proxy *p, const char *name)
{
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->routes[i].name, name) == 0)
            return &p->routes[i];
    return NULL;
}

static bool set_target(struct proxy_route *r, const char *target)
{
    r->has_target = strcmp(target, "-") != 0 && address_parse(target, &r->target);
    return r->has_target || strcmp(target, "-") == 0;
}

static bool add_route(struct proxy *p, const char *name, const char *target, char out[PROXY_PACKET_MAX])
{
    struct proxy_route *r = &p->routes[p->count];

    if (p->count == PROXY_ROUTES_MAX || find(p, name))
        return false;
    *r = (struct proxy_route){.loop = p->loop, .random = &p->random};
    snprintf(r->name, sizeof r->name, "%s", name);
    list_init(&r->links);
    if (!set_target(r, target) || (r->listener = address_listen("127.0.0.1:0")) < 0)
        return false;
    ev_io_init(&r->on_accept, on_accept, r->listener, EV_READ);
    r->on_accept.data = r;
    ev_io_start(p->loop, &r->on_accept);
    p->count++;
    snprintf(out, PROXY_PACKET_MAX, "ok 127.0.0.1:%d", address_port_of(r->listener));
    return true;
}

static bool change_route(struct proxy_route *r, const char *verb, const char *value)
{
    if (strcmp(verb, "target") == 0)
        return set_target(r, value);
    if (strcmp(verb, "stall") == 0) {
        r->stalled = true;
    } else if (strcmp(verb, "break") == 0) {
        r->broken = true;
        proxy_links_break(r);
    } else if (strcmp(verb, "delay") == 0) {
        r->delay_s = atof(value) / 1000;
    } else if (strcmp(verb, "lose") == 0) {
        r->loss_percent = (unsigned)atoi(value);
    } else if (strcmp(verb, "heal") == 0) {
        r->stalled = r->broken = false;
        r->delay_s = 0;
        r->loss_percent = 0;
    } else {
        return false;
    }
    proxy_links_resume(r); /* their watchers follow what the route says now */
    return true;
}

static void obey(struct proxy *p, const char *packet, char out[PROXY_PACKET_MAX])
{
    char verb[16] = "", name[32] = "", value[256] = "";
    int words = sscanf(packet, "%15s %31s %255s", verb, name, value);
    struct proxy_route *r = words >= 2 ? find(p, name) : NULL;

    snprintf(out, PROXY_PACKET_MAX, "ok");
    bool done = strcmp(verb, "add") == 0 ? add_route(p, name, value, out) : r && change_route(r, verb, value);
    if (!done)
        snprintf(out, PROXY_PACKET_MAX, "no");
}

static void on_packet(struct ev_loop *loop, ev_io *io, int events)
{
    struct proxy *p = io->data;
    char packet[PROXY_PACKET_MAX], out[PROXY_PACKET_MAX];
    ssize_t n = recv(p->peer, packet, sizeof packet - 1, 0);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        ev_io_stop(loop, io);
        close(p->peer);
        p->peer = -1;
        return;
    }
    packet[n] = '\0';
    obey(p, packet, out);
    if (send(p->peer, out, strlen(out), MSG_NOSIGNAL) < 0)
        fprintf(stderr, "muster chaos proxy: %s\n", strerror(errno));
}

static void on_control(struct ev_loop *loop, ev_io *io, int events)
{
    struct proxy *p = io->data;
    int fd = accept4(p->control, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    if (p->peer >= 0) {
        ev_io_stop(loop, &p->on_packet);
        close(p->peer);
    }
    p->peer = fd;
    ev_io_init(&p->on_packet, on_packet, fd, EV_READ);
    p->on_packet.data = p;
    ev_io_start(loop, &p->on_packet);
}

static bool open_control(struct proxy *p, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof a.sun_path)
        return false;
    strcpy(a.sun_path, path);
    unlink(path);
    p->control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return p->control >= 0 && bind(p->control, (struct sockaddr *)&a, sizeof a) == 0 && listen(p->control, 4) == 0;
}

int chaos_proxy_run(struct invocation *inv)
{
    const char *control = NULL;
    struct proxy *p = calloc(1, sizeof *p);
    int64_t seed = 1;
    const struct arg_flag flags[] = {
        {"control", ARG_TEXT, &control, "PATH", "unix socket to be commanded by", 0, 0},
        {"seed", ARG_INT, &seed, "N", "which packets are lost", 0, INT64_MAX},
        {0},
    };
    struct args a = {.positional = "", .flags = flags, .notes = "A part of muster chaos, which starts it."};
    struct rlimit limit;

    args_parse(inv, &a);
    if (!p || !control)
        args_refuse(inv, "needs --control");
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    p->loop = ev_default_loop(EVFLAG_AUTO);
    p->peer = -1;
    p->random = (uint64_t)seed;
    if (!open_control(p, control)) {
        fprintf(stderr, "muster chaos proxy: --control %s: %s\n", control, strerror(errno));
        free(p);
        return EXIT_NOT_ALL;
    }
    ev_io_init(&p->on_control, on_control, p->control, EV_READ);
    p->on_control.data = p;
    ev_io_start(p->loop, &p->on_control);
    printf("ready listen=%s\n", control);
    fflush(stdout);
    ev_run(p->loop, 0); /* until it is killed with its parent, or by it */
    free(p);
    return EXIT_DONE;
}
