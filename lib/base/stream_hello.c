/* Servers' handshakes: who waits for one, whose turn it is, and how much of the loop's time strangers have. A peer that
 * has not sent a whole TLS record costs its socket and nothing else, however many there are. */
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "lib/base/clock.h"
#include "lib/base/stream_internal.h"

#define RECORD_HEAD 5  /* type, version, length (RFC 8446, 5.1) */
#define HANDSHAKE   22 /* the type of a record with a ClientHello */
#define RECORD_MAX  (16384 + RECORD_HEAD)
#define PEEKS_MAX   2

void stream_hellos_init(struct stream_hub *hub)
{
    for (unsigned n = 0; n < STREAM_LINES; n++)
        list_init(&hub->hellos[n]);
    if (getrandom(&hub->line_seed, sizeof hub->line_seed, GRND_NONBLOCK) != sizeof hub->line_seed)
        hub->line_seed = (uint64_t)clock_mono_us();
}

/* --- lines -------------------------------------------------------------------------------------------------------- */

/* Of IPv6 the first half: who has one address there has all of that. */
uint8_t stream_line_of(const struct stream_hub *hub, const struct sockaddr_storage *address)
{
    uint64_t where = 0, mixed;
    if (address->ss_family == AF_INET)
        where = ((const struct sockaddr_in *)address)->sin_addr.s_addr;
    else if (address->ss_family == AF_INET6)
        for (unsigned n = 0; n < 8; n++)
            where = where << 8 | ((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr[n];
    /* The finalizer of splitmix64 (Steele, Lea and Flood, 2014). */
    mixed = where ^ hub->line_seed;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return (uint8_t)((mixed ^ mixed >> 31) % STREAM_LINES);
}

/* The first of the next line; there is one. */
static struct stream *next_hello(struct stream_hub *hub)
{
    do {
        hub->line = (hub->line + 1) % STREAM_LINES;
    } while (list_empty(&hub->hellos[hub->line]));
    return container_of(list_pop(&hub->hellos[hub->line]), struct stream, turn);
}

/* --- the first record --------------------------------------------------------------------------------------------- */

/* How many bytes must be there before it is worth a look, as far as can be seen from those that are; 0: enough are, or
 * it is no record with a ClientHello, of which OpenSSL says what is wrong. */
static int bytes_to_wait_for(const struct stream *s)
{
    uint8_t head[RECORD_HEAD];
    int unread;
    ssize_t n = recv(s->io.fd, head, sizeof head, MSG_PEEK);
    if (n <= 0 || head[0] != HANDSHAKE || ioctl(s->io.fd, FIONREAD, &unread) < 0)
        return 0;
    int wanted = n < RECORD_HEAD ? RECORD_HEAD : RECORD_HEAD + (head[3] << 8 | head[4]);
    return wanted <= RECORD_MAX && unread < wanted ? wanted : 0;
}

/* Has the kernel tell us of a record that has come in part once the whole is there, or the peer has gone. It does so
 * for TCP only, and need not be believed: a look at the head and one at the whole, and the record is taken as it is. */
static bool wait_for_record(struct stream *s)
{
    int wanted = s->peeks < PEEKS_MAX ? bytes_to_wait_for(s) : 0;
    s->partial = wanted > 0 && setsockopt(s->io.fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted) == 0;
    s->peeks += s->partial;
    if (s->peeks > 0 && !s->partial)
        setsockopt(s->io.fd, SOL_SOCKET, SO_RCVLOWAT, &(int){1}, sizeof(int));
    return s->partial;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

/* Of long lines only the head is watched on: to be told of the others again and again costs more than to be told once.
 * How long they wait is not the peer's doing. */
void stream_queue_hello(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    /* None may begin for a while: to be told again and again would keep the loop from sleeping. */
    if (s->queued && hub->handshakes >= STREAM_HANDSHAKES_MAX) {
        s->parked = true;
        stream_update_events(s);
    }
    if (!list_empty(&s->turn) || wait_for_record(s))
        return;
    s->queued = true;
    list_append(&hub->hellos[s->line], &s->turn);
    s->parked = ++hub->hello_count > STREAM_HELLOS_WATCHED;
    hub->stats.handshakes_waited += s->parked;
    if (!s->closing)
        stream_clear_deadline(s);
    stream_update_events(s);
}

/* Whether one more may be under way; closes the one whose peer has taken longest, if that was too long. */
static bool may_begin(struct stream_hub *hub)
{
    struct list *shaking = &hub->deadlines[STREAM_UNTIL_SHAKEN];
    if (hub->handshakes < STREAM_HANDSHAKES_MAX || list_empty(shaking))
        return true;
    struct stream *first = container_of(shaking->next, struct stream, link);
    if (clock_mono_us() / 1000 < first->deadline - first->handshake_ms + STREAM_HANDSHAKE_PATIENCE)
        return false;
    hub->stats.handshakes_dropped++;
    stream_fail(first, ERR_LIMIT);
    return true;
}

/* --- time --------------------------------------------------------------------------------------------------------- */

void stream_pushed(struct stream_hub *hub)
{
    if (hub->pushed)
        return;
    int64_t now = clock_mono_us();
    if (now - hub->pushed_us >= STREAM_ANSWER_US)
        hub->pushing_us = now;
    hub->pushed_us = now;
    hub->pushed = true;
}

static bool decide(struct stream_hub *hub)
{
    int64_t now = clock_mono_us();
    int64_t since = hub->pushing_us > hub->strangers_us ? hub->pushing_us : hub->strangers_us;
    if (now - hub->pushed_us < STREAM_ANSWER_US && now - since < STREAM_PUT_OFF_US)
        return false;
    hub->strangers_us = now;
    return true;
}

bool stream_time_for_strangers(struct stream_hub *hub)
{
    if (hub->strangers == STREAM_STRANGERS_UNDECIDED)
        hub->strangers = decide(hub) ? STREAM_STRANGERS_NOW : STREAM_STRANGERS_LATER;
    return hub->strangers == STREAM_STRANGERS_NOW;
}

bool stream_may_shake(struct stream_hub *hub)
{
    return hub->handshakes_us < STREAM_HANDSHAKES_US && stream_time_for_strangers(hub);
}

void stream_handshake_step(struct stream *s)
{
    struct stream_hub *hub = s->hub; /* the stream is there until the turn's end, but who knows */
    int64_t began = clock_mono_us();
    stream_read_once(s);
    hub->handshakes_us += clock_mono_us() - began;
}

static void begin(struct stream *s)
{
    s->hub->hello_count--;
    s->queued = s->parked = false;
    stream_update_events(s);
    if (s->resume || s->doomed)
        stream_mark_turn(s);
    stream_handshake_step(s);
}

void stream_begin_handshakes(struct stream_hub *hub)
{
    while (hub->hello_count > 0 && stream_may_shake(hub) && may_begin(hub))
        begin(next_hello(hub));
    hub->handshakes_us = 0;
    hub->strangers = STREAM_STRANGERS_UNDECIDED;
    if (hub->pushed)
        hub->pushed_us = clock_mono_us();
    hub->pushed = false;
}
