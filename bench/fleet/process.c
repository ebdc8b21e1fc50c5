#include "bench/fleet/process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "bench/fleet/peer.h"
#include "bench/fleet/record.h"

#define EVENTS_A_TURN 128

/* Random picks of a device to disconnect before churn gives up for this time. */
#define CHURN_PICKS 8

/* Churn that fell further behind than this (the start, a stall) is not made up for. */
#define CHURN_BEHIND_US 100000

struct link_peer process_peer(struct process *p, struct device *d, struct sockaddr_in *source)
{
    const struct options *o = p->options;
    const struct target *t = &o->targets[(d->index + d->target_shift) % o->target_count];
    struct link_peer peer = {.epoll = p->epoll,
                             .owner = d,
                             .address = (const struct sockaddr *)&t->address,
                             .len = t->len,
                             .tls = p->tls,
                             .greeting = o->nats,
                             .ciphers = p->ciphers,
                             .server_name = o->server_name,
                             .session = d->session};

    if (!o->bind_source || t->address.ss_family != AF_INET)
        return peer;
    *source = (struct sockaddr_in){.sin_family = AF_INET};
    source->sin_addr.s_addr = htonl(ntohl(o->source.s_addr) + d->index % p->source_count);
    peer.source = (const struct sockaddr *)source;
    peer.source_len = sizeof *source;
    return peer;
}

void process_handshake_over(struct process *p)
{
    p->handshakes--;
}

void process_notify(struct process *p)
{
    const uint64_t one = 1;

    /* An eventfd that is full wakes the supervisor all the same. */
    if (write(p->notify, &one, sizeof one) < 0 && errno != EAGAIN)
        p->stop = true;
}

/* A TLS ticket came: the device's next handshake resumes with it. Takes the session. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct device *d = SSL_get_app_data(ssl);

    SSL_SESSION_free(d->session);
    d->session = session;
    return 1;
}

static void dump(struct process *p)
{
    if (p->options->record && record_write(p->options->record, p) != ERR_OK)
        __atomic_add_fetch(&p->stats->dump_failures, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&p->stats->dumps, 1, __ATOMIC_RELEASE);
    process_notify(p);
}

/* Every connected device has its turn as soon as the timers are looked at. */
static void let_go(struct process *p)
{
    p->held = false;
    for (uint32_t i = 0; i < p->count; i++)
        if (p->devices[i].state == DEVICE_READY)
            timers_set(p->timers, i, p->now_us);
}

/* A crowd: every connection breaks now, and each device comes back at a moment of its own within RECONNECT_US. */
static void reconnect_all(struct process *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        struct device *d = &p->devices[i];
        if (d->state == DEVICE_READY)
            device_churn(d, p, false);
        if (d->state == DEVICE_IDLE)
            timers_set(p->timers, i, p->now_us + (int64_t)(process_random(p) % RECONNECT_US));
    }
}

static void on_signals(struct process *p)
{
    struct signalfd_siginfo info;

    while (read(p->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGUSR1)
            dump(p);
        else if (info.ssi_signo == SIGUSR2)
            let_go(p);
        else if (info.ssi_signo == SIGHUP)
            reconnect_all(p);
        else
            p->stop = true;
    }
}

static void disconnect_one(struct process *p)
{
    for (int i = 0; i < CHURN_PICKS; i++) {
        struct device *d = &p->devices[process_random(p) % p->count];
        if (d->state == DEVICE_READY) {
            device_churn(d, p, process_random(p) & 1);
            return;
        }
    }
}

static void churn(struct process *p)
{
    const struct options *o = p->options;
    int64_t gap_us = (int64_t)(1e6 * o->devices / (o->churn * p->count));

    if (!p->all_ready)
        return;
    if (p->next_churn_us < p->now_us - CHURN_BEHIND_US)
        p->next_churn_us = p->now_us;
    for (; p->next_churn_us <= p->now_us; p->next_churn_us += gap_us + 1)
        disconnect_one(p);
}

static void launch_waiting(struct process *p)
{
    while (p->handshakes < p->options->handshakes && !list_empty(&p->waiting)) {
        struct device *d = container_of(list_pop(&p->waiting), struct device, waiting);
        d->queued = false;
        device_launch(d, p);
    }
}

/* Milliseconds until something is due, rounded up; -1 for never. */
static int time_to_wait(const struct process *p)
{
    int64_t due = timers_first(p->timers);

    if (p->all_ready && p->next_churn_us < due)
        due = p->next_churn_us;
    if (due == INT64_MAX)
        return -1;
    int64_t us = due - clock_mono_us();
    return us <= 0 ? 0 : us > 1000000 ? 1000 : (int)((us + 999) / 1000);
}

static void turn(struct process *p)
{
    struct epoll_event events[EVENTS_A_TURN];
    uint32_t item;
    int n = epoll_wait(p->epoll, events, EVENTS_A_TURN, time_to_wait(p));

    for (int i = 0; i < n; i++) {
        p->now_us = clock_mono_us();
        if (events[i].data.ptr)
            device_event(events[i].data.ptr, p, events[i].events);
        else
            on_signals(p);
    }
    p->now_us = clock_mono_us();
    while (timers_take(p->timers, p->now_us, &item))
        device_timer(&p->devices[item], p);
    if (p->options->churn > 0)
        churn(p);
    launch_waiting(p);
}

static int open_signals(int epoll)
{
    struct epoll_event ev = {.events = EPOLLIN};
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGHUP);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Devices connect one after the other, at the given rate or as fast as the bound on handshakes lets them. */
static void start_devices(struct process *p, const struct process_start *start)
{
    const struct options *o = p->options;
    double gap_us = o->rate ? 1e6 * start->of / o->rate : 0;

    for (uint32_t i = 0; i < p->count; i++) {
        const struct credential *c = &start->credentials->list[p->first + i];
        device_init(&p->devices[i], p, p->first + i, c->id, c->token);
        timers_set(p->timers, i, p->now_us + (int64_t)(gap_us * i));
    }
}

static bool set_up(struct process *p, const struct process_start *start)
{
    const struct options *o = p->options;
    uint64_t all = o->devices;

    p->first = (uint32_t)(all * (uint64_t)start->number / (uint64_t)start->of);
    p->count = (uint32_t)(all * (uint64_t)(start->number + 1) / (uint64_t)start->of) - p->first;
    p->source_count = (o->devices + o->per_source - 1) / o->per_source;
    p->random = behaviour_mix(o->behaviour.seed ^ (uint64_t)start->number << 48);
    p->now_us = p->began_us = clock_mono_us();
    p->began_wall_ms = clock_wall_ms();
    p->next_churn_us = o->churn > 0 ? p->now_us : INT64_MAX;
    list_init(&p->waiting);
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->signals = open_signals(p->epoll);
    p->timers = timers_new(p->count);
    p->devices = calloc(p->count, sizeof *p->devices);
    p->scratch = malloc(SCRATCH_BYTES);
    p->tls = o->tls ? link_context(o->ca, o->insecure, o->resume ? on_session : NULL) : NULL;
    p->ciphers = p->tls && o->lean ? link_lean_records(p->tls) : NULL;
    return p->epoll >= 0 && p->signals >= 0 && p->timers && p->devices && p->scratch && (p->tls || !o->tls) &&
           (p->ciphers || !o->tls || !o->lean);
}

void process_run(const struct process_start *start)
{
    struct process p = {.options = start->options,
                        .stats = start->stats,
                        .number = start->number,
                        .notify = start->notify,
                        .held = start->options->hold};

    p.peer = p.options->nats ? &nats_peer : p.options->floor ? &floor_peer : &mqtt_peer;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!set_up(&p, start))
        _exit(1);
    start_devices(&p, start);
    while (!p.stop)
        turn(&p);
    if (p.options->record)
        dump(&p);
    _exit(0);
}
