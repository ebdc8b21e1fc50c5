#include "bench/sender/sender.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "proto/delivery.h"

/* What a turn writes at most before it looks for answers: one full TLS record. */
#define WRITE_BYTES 16384

/* Read at once: several TLS records' worth, and a kept part of a message. */
#define SCRATCH_BYTES (256u * 1024)

/* With nothing to send, answers gather so long before they are read: a sender that is woken for each one takes the
 * processor from the broker, and its confirmations come to the broker one by one (measured with mosquitto: half the
 * sender's CPU, a tenth more commands/s). */
#define REST_US 1000

/* Reads in one turn before commands go out again; over TLS a read is a record, and a broker gives each answer its own.
 */
#define READS_A_TURN 256

/* A lock with a short message, the command `make bench` gives the devices (muster.v1.Command). */
static const uint8_t lock_command[] = {0x0a, 0x08, 0x0a, 0x06, 'l', 'o', 'c', 'k', 'e', 'd'};

/* How long commands live, as with Muster by default. */
#define EXPIRY_S (7 * 86400)

struct sender {
    struct sender_options o;
    struct link link;
    bool open, ready;
    struct buf out, payload; /* payload: a Delivery; its head is written anew for each device */
    uint8_t *scratch;
    uint64_t round;      /* the batch number in the command ids */
    uint64_t sent;       /* commands ever */
    uint32_t next;       /* device that is sent to next */
    uint32_t answered;   /* devices that have answered in this round */
    uint64_t *answer_of; /* per device: the last round it answered */
    int64_t *sent_us, now_us;
    struct histogram *latency; /* of the round */
};

void sender_ready(struct sender *s)
{
    s->ready = true;
}

enum err sender_answered(struct sender *s, struct slice payload)
{
    struct acknowledgement ack;

    if (acknowledgement_read(&ack, payload) != NULL || ack.id.batch > s->round || ack.id.seq >= s->o.credentials->count)
        return ERR_PROTOCOL;
    /* At least once: of an earlier round, or for the second time, it is nothing new. */
    if (ack.id.batch < s->round || s->answer_of[ack.id.seq] == s->round)
        return ERR_OK;
    if (ack.outcome != 1)
        return ERR_PROTOCOL;
    s->answer_of[ack.id.seq] = s->round;
    s->answered++;
    histogram_add(s->latency, s->now_us - s->sent_us[ack.id.seq]);
    return ERR_OK;
}

/* --- one turn ----------------------------------------------------------------------------------------------------- */

/* Commands go out as far as the window, the devices and one write go. */
static void put_commands(struct sender *s)
{
    const struct credentials *c = s->o.credentials;

    while (s->next < c->count && buf_len(&s->out) < WRITE_BYTES && s->link.out_len == 0 &&
           (s->o.window == 0 || s->next - s->answered < s->o.window)) {
        const struct command_id id = {.batch = s->round, .tenant = 1, .seq = s->next};
        delivery_put_head(buf_head(&s->payload), &id, 1);
        s->sent_us[s->next] = s->now_us;
        s->o.dialect->command(&s->out, c->list[s->next].id, s->sent++, buf_slice(&s->payload));
        s->next++;
    }
}

/* Writes what the turn has gathered; *wrote tells whether that was anything. */
static enum err write_out(struct sender *s, bool *wrote)
{
    size_t len = buf_len(&s->out);

    *wrote = len > 0;
    if (s->out.failed)
        return ERR_NOMEM;
    enum err e = len > 0 ? link_write(&s->link, &s->o.peer, buf_head(&s->out), len) : ERR_OK;
    buf_reset(&s->out);
    return e;
}

/* Fills the connection until it takes no more or the window is full. */
static enum err pump(struct sender *s)
{
    bool wrote = true;
    enum err e = ERR_OK;

    while (e == ERR_OK && wrote && s->link.out_len == 0) {
        if (s->round > 0)
            put_commands(s);
        e = write_out(s, &wrote);
    }
    return e;
}

static enum err read_in(struct sender *s)
{
    bool more, drained = false;
    struct slice in;

    for (int i = 0; !drained && i < READS_A_TURN; i++) {
        enum err e = link_read(&s->link, &s->o.peer, s->scratch, SCRATCH_BYTES, &in, &more);
        if (e != ERR_OK)
            return e;
        drained = in.len == 0 && !more;
        if (in.len == 0)
            continue;
        e = s->o.dialect->data(s, &s->out, &in);
        if (e == ERR_OK && in.len > 0)
            e = link_keep(&s->link, in.data, in.len);
        if (e != ERR_OK)
            return e;
    }
    if (!drained)
        link_wake(&s->link, &s->o.peer);
    return ERR_OK;
}

static enum err on_event(struct sender *s, uint32_t events)
{
    enum err e = ERR_OK;

    if (!s->open) {
        e = link_progress(&s->link, &s->o.peer, &s->open);
        if (e == ERR_OK && s->open)
            s->o.dialect->login(&s->out);
    }
    if (e == ERR_OK && s->open && (events & EPOLLOUT))
        e = link_flush(&s->link, &s->o.peer);
    if (e == ERR_OK && s->open)
        e = read_in(s);
    return e;
}

/* All that the devices and the window allow is on its way, and all that came is read. */
static bool is_only_listening(const struct sender *s)
{
    bool window_full = s->o.window > 0 && s->next - s->answered >= s->o.window;

    return s->round > 0 && !s->link.wants_out && (window_full || s->next == s->o.credentials->count);
}

/* Waits at most until `deadline_us` for something to do, and does it. */
static enum err turn(struct sender *s, int64_t deadline_us)
{
    struct epoll_event ev;

    if (is_only_listening(s))
        usleep(REST_US);
    int64_t left_us = deadline_us - clock_mono_us();
    int wait_ms = left_us <= 0 ? 0 : left_us > 1000000 ? 1000 : (int)(left_us / 1000) + 1;
    int n = epoll_wait(s->o.peer.epoll, &ev, 1, wait_ms);

    s->now_us = clock_mono_us();
    if (n < 0)
        return errno == EINTR ? ERR_OK : ERR_IO;
    if (n == 0)
        return s->now_us >= deadline_us ? ERR_TIMEOUT : ERR_OK;
    enum err e = on_event(s, ev.events);
    return e == ERR_OK ? pump(s) : e;
}

/* --- a sender's life ---------------------------------------------------------------------------------------------- */

static bool allocate(struct sender *s)
{
    uint32_t count = s->o.credentials->count;
    const struct slice command = {lock_command, sizeof lock_command};

    s->scratch = malloc(SCRATCH_BYTES);
    s->answer_of = calloc(count, sizeof *s->answer_of);
    s->sent_us = calloc(count, sizeof *s->sent_us);
    if (buf_reserve(&s->payload, DELIVERY_HEAD))
        buf_commit(&s->payload, DELIVERY_HEAD);
    delivery_put_tail(&s->payload, ((int64_t)time(NULL) + EXPIRY_S) * 1000, command);
    s->o.peer.epoll = epoll_create1(EPOLL_CLOEXEC);
    return s->scratch && s->answer_of && s->sent_us && !s->payload.failed && s->o.peer.epoll >= 0;
}

struct sender *sender_open(const struct sender_options *options)
{
    struct sender *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->o = *options;
    s->link.fd = -1;
    enum err e = allocate(s) ? link_open(&s->link, &s->o.peer) : ERR_NOMEM;
    int64_t deadline_us = clock_mono_us() + s->o.timeout_us;
    if (e == ERR_OK)
        link_wake(&s->link, &s->o.peer); /* it may be connected at once */
    while (e == ERR_OK && !s->ready)
        e = turn(s, deadline_us);
    if (e == ERR_OK)
        return s;
    fprintf(stderr, "muster-sender: logging in at the broker: %s\n", err_name(e));
    sender_free(&s);
    return NULL;
}

void sender_free(struct sender **sender)
{
    struct sender *s = *sender;

    if (!s)
        return;
    link_close(&s->link, false);
    if (s->o.peer.epoll >= 0)
        close(s->o.peer.epoll);
    buf_free(&s->out);
    buf_free(&s->payload);
    free(s->scratch);
    free(s->answer_of);
    free(s->sent_us);
    free(s);
    *sender = NULL;
}

enum err sender_exchange(struct sender *s, struct sender_round *round)
{
    uint32_t count = s->o.credentials->count;
    int64_t began_us = clock_mono_us();

    *round = (struct sender_round){0};
    s->latency = &round->latency;
    s->now_us = began_us;
    s->round++;
    s->next = s->answered = 0;
    enum err e = pump(s);
    while (e == ERR_OK && s->answered < count)
        e = turn(s, began_us + s->o.timeout_us);
    round->seconds = (double)(clock_mono_us() - began_us) / 1e6;
    if (e != ERR_OK)
        fprintf(stderr, "muster-sender: %u of %u devices answered, then: %s\n", s->answered, count, err_name(e));
    return e;
}

bool sender_wait_line(struct sender *s)
{
    struct pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {s->o.peer.epoll, POLLIN, 0}};
    char c;

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return false;
        if (fds[1].revents && turn(s, INT64_MAX / 2) != ERR_OK)
            return false;
        if (fds[0].revents == 0)
            continue;
        if (read(STDIN_FILENO, &c, 1) != 1)
            return false;
        if (c == '\n')
            return true;
    }
}
