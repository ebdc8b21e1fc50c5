/* What stream.c, stream_deadline.c, stream_listener.c and the kinds of TLS records (stream_tls.c, stream_lean.c) share;
 * for no one else. Owns: struct stream, struct stream_hub. May call: OpenSSL, libev. Loop rule: as stream.h. */
#ifndef MUSTER_BASE_STREAM_INTERNAL_H
#define MUSTER_BASE_STREAM_INTERNAL_H

#include <netinet/in.h>
#include <openssl/ssl.h>

#include "lib/base/buf.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/base/stream.h"
#include "lib/base/tls_channel.h"

/* One recv per stream and turn, at most this many bytes: no peer holds the loop for long. */
#define STREAM_READ_MAX 65536
/* What all streams together read in a turn, about, and what one may read at least however many there are: what follows
 * from it, such as hundreds of calls, must not make the others wait for long. */
#define STREAM_READ_TURN (128 * 1024)
#define STREAM_READ_MIN  4096
/* A TLS record begun in an earlier turn may complete in this one: its bytes come on top (RFC 8446, 5.2). */
#define STREAM_PLAIN_MAX (STREAM_READ_MAX + TLS_RECORD_MAX)
/* Output of one stream in one turn. */
#define STREAM_FLUSH_MAX (256 * 1024)
/* Streams whose output is sent in one turn; the rest go on after a look at the sockets. So many that the look is cheap,
 * so few that a push to all does not run far ahead of the answers: a connection that was just written to is read with
 * its memory still in the processor's cache. */
#define STREAM_FLUSHES_PER_TURN 64
/* Of these, for those in a hurry while others wait. */
#define STREAM_HURRIED_PER_TURN 48
/* Streams read or written between two looks at what comes otherwise: 0.2 ms. A look that finds nothing is one system
 * call, beside some eighty that these make. */
#define STREAM_LOOK_EVERY 16
/* Time for handshakes in one turn, one step at least: each takes up to 0.4 ms, and nobody must wait for a crowd that
 * connects. A loop with nothing else to do makes such turns all the time, a busy one gives them a share.
 * Handshakes under way go before new ones, which wait in line: else a whole crowd would be half-way through at a time,
 * with 20 KB each. */
#define STREAM_HANDSHAKES_US 300
/* After a push its answer may be here in so long, and is not made to wait for a stranger's handshake or for accept(2).
 * Where pushes never cease strangers are put off for so long. */
#define STREAM_ANSWER_US  800
#define STREAM_PUT_OFF_US 1000
/* Who wants a handshake waits in one of so many lines, by the address they come from, and these take turns: however
 * many come from a few addresses, others wait only for those. */
#define STREAM_LINES 256
/* Of lines so long together only the head is watched on. */
#define STREAM_HELLOS_WATCHED 32
/* Handshakes under way, 20 KB each; beyond, others wait in line until one of them is done, or has kept us waiting for
 * so long that it is closed. Crowds of peers 0.3 s away need about so many. */
#define STREAM_HANDSHAKES_MAX     1024
#define STREAM_HANDSHAKE_PATIENCE 5000 /* ms */
/* So many handshakes at a time leave memory behind that is worth giving back, if it is not done all the time. */
#define STREAM_CROWD        64
#define STREAM_GIVE_BACK_MS 60000
/* Of each kind of deadline, streams closed in one turn because their time is over; each takes some 20 µs. */
#define STREAM_EXPIRIES_PER_TURN 8
/* Ciphertext the kernel did not take: one record's worth, and the answers to a peer's key updates. More is an attack.
 */
#define STREAM_WIRE_MAX 65536
/* Empty buffers kept for the next writes. */
#define STREAM_SPARES_MAX          256
#define STREAM_CONNECT_TIMEOUT_MS  10000
#define STREAM_SHUTDOWN_TIMEOUT_MS 5000
/* After the last byte and the FIN, input is thrown away for so long: closing with unread input would make the kernel
 * send a reset, which can destroy that last byte on its way. */
#define STREAM_LINGER_MS 1000

enum stream_state {
    STREAM_CONNECTING, /* waiting for connect(2) */
    STREAM_HANDSHAKE,  /* TLS only */
    STREAM_OPEN,
    STREAM_LINGER, /* all is sent, FIN too; input is thrown away until the peer closes */
    STREAM_CLOSED, /* stands in hub->closed until the turn ends */
};

/* What must be done by a stream's deadline. Each has a list of its own, since all in it have about the same time. */
enum stream_deadline {
    STREAM_UNTIL_CONNECTED,
    STREAM_UNTIL_HELLO,  /* the peer's first TLS record */
    STREAM_UNTIL_SHAKEN, /* a server's handshake under way */
    STREAM_UNTIL_SENT,   /* what stream_shutdown found pending */
    STREAM_UNTIL_GONE,   /* the peer has closed too */
    STREAM_DEADLINES,
};

/* How a TLS stream's bytes become records and back. Each may close the stream; none touches it after that. */
struct stream_records {
    /* Takes the bytes of hub->raw, all of them. */
    void (*receive)(struct stream *s);
    /* Seals and sends from s->out. Returns false when the connection is broken. */
    bool (*flush)(struct stream *s);
    /* Says that nothing follows, once. */
    void (*notify_close)(struct stream *s);
    void (*free)(struct stream *s);
};
extern const struct stream_records stream_openssl_records, stream_lean_records;

/* What a stream has besides when it is TLS. */
struct stream_tls {
    struct tls *context;
    union {
        SSL *ssl;                 /* made with the first byte, so that a silent connection costs little */
        struct tls_channel *lean; /* from the end of the handshake on, if is_lean */
    };
    struct buf *wire; /* encrypted and not yet sent */
    struct buf *part; /* lean: the beginning of a record */
};

/* An idle stream has neither `in`, `out`, `wire` nor `part`: 20,000 of these and their SSL objects must fit a small
 * machine. */
struct stream {
    ev_io io; /* its data is the handler's `arg` */
    struct stream_hub *hub;
    const struct stream_handler *handler;
    struct list link; /* in hub->open, one of hub->deadlines, or hub->closed */
    struct list turn; /* in hub->turn or ->hurried while there is something to do at the end of the turn */
    struct buf *in;   /* received and not yet used up */
    struct buf *out;  /* written and not yet sent (for TLS: not yet encrypted) */
    int64_t deadline; /* ms of CLOCK_MONOTONIC, while in one of hub->deadlines */
    uint8_t state;    /* enum stream_state */
    uint8_t doomed;   /* enum err: close with this at the end of the turn */
    bool paused : 1;  /* on_data is not called */
    bool resume : 1;  /* there is input to hand over at the end of the turn */
    bool full : 1;    /* output went over its limit; on_drain is due */
    bool closing : 1; /* stream_shutdown was called */
    bool client : 1;
    bool secure : 1;         /* TLS */
    bool queued : 1;         /* in one of hub->hellos */
    bool parked : 1;         /* is not watched until its turn in there */
    bool shaking : 1;        /* counted in hub->handshakes */
    bool alpn : 1;           /* the context's protocol was agreed */
    bool guarded : 1;        /* a part of the output may leave only while the hub's guard says so */
    bool held : 1;           /* which it did not */
    bool is_lean : 1;        /* the records are lean */
    bool partial : 1;        /* of its first record a part has come; we are told when the whole is there */
    uint8_t peeks : 2;       /* how often that was found */
    uint8_t line;            /* of hub->hellos */
    uint16_t handshake_ms;   /* server: how long the peer may take for its first record, and for the rest */
    struct stream_tls tls[]; /* one if it is secure */
};

/* Whether who only comes has time in this turn, once somebody has asked. */
enum stream_strangers { STREAM_STRANGERS_UNDECIDED, STREAM_STRANGERS_NOW, STREAM_STRANGERS_LATER };

struct stream_hub {
    struct ev_loop *loop;
    struct pool plain_streams, secure_streams;
    struct list open, closed, turn;
    struct list deadlines[STREAM_DEADLINES]; /* the first of each first */
    struct list hurried;                     /* by `turn`: what leaves before the others of `turn` */
    struct list hellos[STREAM_LINES];        /* by `turn`: servers' streams whose first bytes are there to be read */
    unsigned line;                           /* whose turn it was */
    uint64_t line_seed;                      /* so that nobody can choose whose line they stand in */
    unsigned hello_count, stream_count;
    unsigned reads;         /* in this turn, that brought something */
    size_t read_share;      /* what one may read in this turn, from the number of reads in the last */
    ev_prepare prepare;     /* the end of a turn */
    ev_prepare hurry;       /* never started, only fed: what is in a hurry is sent, before what others say is read */
    unsigned hurried_count; /* sent by that in this turn */
    void (*look)(void *arg);
    void *look_arg;
    unsigned looked_ago;    /* streams since */
    ev_idle idle;           /* runs while `turn` could not be finished, so that the loop does not sleep */
    ev_timer timer;         /* the first of all `deadlines` */
    struct slice raw;       /* of `received`: what the TLS stream being read has not taken yet */
    bool starved;           /* OpenSSL has asked for more than `raw` held */
    bool (*may)(void *arg); /* the guard; NULL: none */
    void *may_arg;
    int64_t handshakes_us; /* what they took in this turn */
    int64_t pushed_us;     /* when something guarded was sent last, CLOCK_MONOTONIC; */
    int64_t pushing_us;    /* and since when it never ceased */
    int64_t strangers_us;  /* when strangers had time last */
    bool pushed;           /* in this turn */
    enum stream_strangers strangers;
    struct stream_stats stats;
    int64_t given_back_ms;                /* when memory was, last; 0: never */
    unsigned handshakes, handshakes_peak; /* under way, with SSL objects; the most since memory was last given back */
    unsigned spare_count;
    struct buf *spare[STREAM_SPARES_MAX];
    char peer_text[INET6_ADDRSTRLEN + 16], alpn_text[256];
    uint8_t received[STREAM_READ_MAX];
    uint8_t plain[STREAM_PLAIN_MAX];
};

/* Makes a stream on `fd`, which it takes (also when it fails, and then returns NULL). */
struct stream *stream_new(struct stream_hub *hub, int fd, struct tls *tls, enum stream_state state, int events);
/* Puts `s` among those with that deadline, ordered. */
void stream_set_deadline(struct stream *s, enum stream_deadline what, int64_t ms_from_now);
/* It has all the time it wants. */
void stream_clear_deadline(struct stream *s);
/* Of hub->timer. */
void stream_on_timer(struct ev_loop *loop, ev_timer *w, int revents);
/* Closes and calls on_close. */
void stream_fail(struct stream *s, enum err why);
/* Has come to STREAM_OPEN. */
void stream_opened(struct stream *s);
/* Sends a bound amount of the pending output. */
void stream_flush(struct stream *s);
/* Hands input over; `data` may be empty to hand over what was kept. */
void stream_deliver(struct stream *s, const uint8_t *data, size_t len);
/* At the end of the turn there is something to do. */
void stream_mark_turn(struct stream *s);
/* Asks the loop for what the state needs. */
void stream_update_events(struct stream *s);
/* Receives, and hands up what came. */
void stream_read_once(struct stream *s);

/* stream_hello.c: servers' handshakes, and who waits for one. */
void stream_hellos_init(struct stream_hub *hub);
/* The line of a peer's address. */
uint8_t stream_line_of(const struct stream_hub *hub, const struct sockaddr_storage *address);
/* The first bytes of a handshake have come: it waits in line until the turn's end, however long that takes. */
void stream_queue_hello(struct stream *s);
/* Something guarded is sent: its answer is awaited. */
void stream_pushed(struct stream_hub *hub);
/* Whether who only comes has time in this turn. */
bool stream_time_for_strangers(struct stream_hub *hub);
/* And handshakes have not had theirs. */
bool stream_may_shake(struct stream_hub *hub);
/* Goes on with one under way. */
void stream_handshake_step(struct stream *s);
/* The end of a turn: begins as many as those under way have left time for. */
void stream_begin_handshakes(struct stream_hub *hub);

/* Pooled buffers. */
struct buf *stream_take_buf(struct stream_hub *hub);
void stream_return_buf(struct stream_hub *hub, struct buf **b);

/* Appends to a lazily made buffer; false without memory. */
bool stream_append(struct stream_hub *hub, struct buf **b, const void *data, size_t len);

/* NULL for plain. */
static inline const struct stream_records *stream_records(const struct stream *s)
{
    return !s->secure ? NULL : s->is_lean ? &stream_lean_records : &stream_openssl_records;
}

/* Whether records wait for the kernel to take them. */
static inline bool stream_wire_waits(const struct stream *s)
{
    return s->secure && s->tls->wire;
}

/* Sends records behind the stream's `wire`, which keeps what the kernel does not take. False when the connection is
 * broken. */
bool stream_send_records(struct stream *s, const uint8_t *data, size_t len);
/* The protocol of RFC 7301 that connections of the context may agree on. */
struct slice stream_tls_alpn(const struct tls *tls);

#endif
