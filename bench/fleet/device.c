#include "bench/fleet/device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "bench/fleet/peer.h"
#include "bench/fleet/process.h"

/* Time for connect, handshake, CONNACK and SUBACK together; a worker under a storm of 10,000 handshakes needs some. */
#define LOGIN_US 60000000

/* Reads in one turn before the other devices have theirs. */
#define READS_A_TURN 16

/* The backoff doubles at most this often. */
#define DOUBLINGS_MAX 5

void device_init(struct device *d, struct process *p, uint32_t index, const char *id, const char *token)
{
    *d = (struct device){.id = id, .token = token, .index = index, .link.fd = -1};
    d->number = behaviour_device(&p->options->behaviour, id);
    d->silent = behaviour_is_silent(&p->options->behaviour, d->number);
    list_init(&d->waiting);
}

void device_clear(struct device *d)
{
    link_close(&d->link, false);
    SSL_SESSION_free(d->session);
    commands_clear(&d->commands);
    free(d->answers);
    d->answers = NULL;
}

static uint32_t timer_of(const struct device *d, const struct process *p)
{
    return (uint32_t)(d - p->devices);
}

/* When to look after the device next. */
static void plan(struct device *d, struct process *p)
{
    int64_t due = d->state != DEVICE_READY ? d->deadline_us : p->peer->due ? p->peer->due(d, p) : INT64_MAX;

    if (due == INT64_MAX)
        timers_clear(p->timers, timer_of(d, p));
    else
        timers_set(p->timers, timer_of(d, p), due);
}

static int64_t backoff_us(const struct device *d, struct process *p)
{
    int64_t mean = p->options->backoff_us << (d->failures < DOUBLINGS_MAX ? d->failures : DOUBLINGS_MAX);

    return mean / 2 + (int64_t)(process_random(p) % (uint64_t)(mean + 1)); /* a half to one and a half of it */
}

/* Which of the others, counted from the one that failed: by chance, so that one worker's devices spread over all. */
static uint32_t other_target(struct process *p)
{
    uint32_t others = p->options->target_count - 1;

    return others ? 1 + (uint32_t)(process_random(p) % others) : 0;
}

void device_drop(struct device *d, struct process *p, int stat, bool abort)
{
    enum device_state was = d->state;

    if (stat >= 0)
        process_count(p, (enum tally)stat, 1);
    if (was == DEVICE_READY) {
        process_count(p, STAT_READY, (uint64_t)-1);
    } else {
        process_count(p, STAT_FAILURES, 1);
        d->target_shift = (uint8_t)(d->target_shift + other_target(p));
        d->failures = (uint8_t)(d->failures + (d->failures < UINT8_MAX));
    }
    if (was != DEVICE_CONNECTING)
        process_count(p, STAT_CONNECTED, (uint64_t)-1);
    link_close(&d->link, abort);
    d->state = DEVICE_IDLE;
    d->in_flight = 0;
    for (uint32_t i = 0; i < d->answer_count; i++)
        d->answers[i].packet_id = 0;
    timers_set(p->timers, timer_of(d, p), p->now_us + backoff_us(d, p));
    if (was != DEVICE_READY)
        process_handshake_over(p);
}

void device_set_ready(struct device *d, struct process *p)
{
    d->state = DEVICE_READY;
    d->failures = 0;
    process_count(p, STAT_READY, 1);
    process_count(p, STAT_CONNECTS, 1);
    process_count(p, STAT_RECONNECTS, d->was_ready);
    d->was_ready = true;
    process_handshake_over(p);
    if (!p->all_ready && p->stats->v[STAT_CONNECTS] - p->stats->v[STAT_RECONNECTS] == p->count) {
        p->all_ready = true;
        process_notify(p);
    }
}

void device_launch(struct device *d, struct process *p)
{
    struct sockaddr_in source;
    struct link_peer peer = process_peer(p, d, &source);

    p->handshakes++;
    d->state = DEVICE_CONNECTING;
    d->deadline_us = p->now_us + LOGIN_US;
    if (link_open(&d->link, &peer) != ERR_OK)
        device_drop(d, p, -1, false);
    else if (!p->tls && !d->link.connecting)
        device_event(d, p, EPOLLOUT); /* connected at once, and no handshake to wait for */
    else
        plan(d, p);
}

/* Sends the turn's output and acts on how the turn ended. False: the link is gone. */
static bool end_turn(struct device *d, struct process *p, const struct link_peer *peer, enum turn turn)
{
    static const int stats[] = {
        [TURN_CRASH] = STAT_CRASHES, [TURN_BAD] = STAT_BAD, [TURN_REFUSED] = STAT_REFUSED, [TURN_GONE] = STAT_LOST};
    size_t len = buf_len(&p->out);

    if (turn == TURN_ON && len > 0 && !p->out.failed) {
        d->last_sent_us = p->now_us;
        process_count(p, STAT_BYTES_OUT, len);
        if (link_write(&d->link, peer, buf_head(&p->out), len) != ERR_OK)
            turn = TURN_GONE;
    }
    bool failed = p->out.failed;
    buf_reset(&p->out);
    if (turn == TURN_ON && !failed)
        return true;
    device_drop(d, p,
                failed                                          ? -1
                : d->state == DEVICE_READY || turn != TURN_GONE ? stats[turn]
                                                                : -1,
                turn == TURN_CRASH);
    return false;
}

/* Goes on with connecting; true when the link is open (and was used to log in). */
static bool progress(struct device *d, struct process *p, const struct link_peer *peer)
{
    bool open;

    if (link_progress(&d->link, peer, &open) != ERR_OK) {
        device_drop(d, p, -1, false);
        return false;
    }
    if (!open)
        return false;
    process_count(p, STAT_CONNECTED, 1);
    d->state = DEVICE_LOGIN;
    if (!end_turn(d, p, peer, p->peer->open(d, p)))
        return false;
    if (link_has_pending(&d->link))
        link_wake(&d->link, peer);
    plan(d, p);
    return true;
}

/* Reads and answers once. False: nothing more to read now, or the link is gone. */
static bool read_once(struct device *d, struct process *p, const struct link_peer *peer)
{
    struct slice in;
    bool more;

    if (link_read(&d->link, peer, p->scratch, SCRATCH_BYTES, &in, &more) != ERR_OK) {
        device_drop(d, p, d->state == DEVICE_READY ? STAT_LOST : -1, false);
        return false;
    }
    if (in.len == 0)
        return more;
    process_count(p, STAT_BYTES_IN, in.len);
    enum device_state was = d->state;
    enum turn turn = p->peer->data(d, p, &in);
    if (turn == TURN_ON && in.len > 0 && link_keep(&d->link, in.data, in.len) != ERR_OK)
        turn = TURN_BAD;
    if (!end_turn(d, p, peer, turn))
        return false;
    if (d->state != was)
        plan(d, p);
    return more;
}

void device_event(struct device *d, struct process *p, uint32_t events)
{
    struct sockaddr_in source;
    struct link_peer peer = process_peer(p, d, &source);

    if (d->state == DEVICE_IDLE)
        return;
    if (d->state == DEVICE_CONNECTING) {
        progress(d, p, &peer);
        return;
    }
    if ((events & EPOLLOUT) && link_flush(&d->link, &peer) != ERR_OK) {
        device_drop(d, p, d->state == DEVICE_READY ? STAT_LOST : -1, false);
        return;
    }
    int reads = 0;
    while (read_once(d, p, &peer))
        if (++reads == READS_A_TURN) {
            link_wake(&d->link, &peer);
            return;
        }
}

void device_timer(struct device *d, struct process *p)
{
    struct sockaddr_in source;
    struct link_peer peer = process_peer(p, d, &source);

    if (d->state == DEVICE_IDLE) {
        if (p->handshakes < p->options->handshakes) {
            device_launch(d, p);
        } else if (!d->queued) {
            d->queued = true;
            list_append(&p->waiting, &d->waiting);
        }
        return;
    }
    if (d->state != DEVICE_READY) {
        if (p->now_us >= d->deadline_us)
            device_drop(d, p, -1, false);
        else
            plan(d, p);
        return;
    }
    if (p->peer->timer && end_turn(d, p, &peer, p->peer->timer(d, p)))
        plan(d, p);
}

void device_churn(struct device *d, struct process *p, bool orderly)
{
    struct sockaddr_in source;
    struct link_peer peer = process_peer(p, d, &source);

    if (orderly && p->peer->goodbye) {
        p->peer->goodbye(&p->out);
        /* Best effort: the connection closes right after. */
        if (link_write(&d->link, &peer, buf_head(&p->out), buf_len(&p->out)) != ERR_OK)
            orderly = false;
        buf_reset(&p->out);
    }
    device_drop(d, p, STAT_CHURNED, !orderly);
}
