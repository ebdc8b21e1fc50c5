/* The worker: everything its parts share.
 * Owns: struct worker, which stands in main and is passed down; in what order its parts are made and freed. May call:
 * every part of workers/. Loop rule: one loop, never blocks. */
#ifndef MUSTER_WORKERS_WORKER_H
#define MUSTER_WORKERS_WORKER_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/metrics.h"
#include "lib/base/pool.h"
#include "workers/lately.h"
#include "workers/window.h"

struct acks;
struct answer_self;
struct answers;
struct attach;
struct batch_cache;
struct credentials;
struct db_clock;
struct gates;
struct inbox;
struct lease;
struct live;
struct mqtt_server;
struct pg;
struct routed;
struct seen;
struct session;
struct session_table;
struct strays;
struct stream_hub;
struct value_cache;

struct worker_options {
    int64_t in_flight;        /* commands sent and not answered, per device */
    int64_t held_max;         /* commands in all sessions' hands; beyond, only urgent ones are taken from the inbox */
    int64_t lease_ms;         /* how long the worker's number holds without renewal */
    int64_t flush_ms;         /* how long acknowledgements collect */
    int64_t not_now_ms;       /* when a command that was NOT_NOW is delivered again on the same connection */
    int64_t quarantine_after; /* losses of the connection while a command was sent, after which it ends; 0: never */
    int64_t seen_ms;          /* how often it is written which devices were seen */
    int64_t keepalive_max_s;  /* longest keepalive granted; 0: what the device asks */
    bool answer_self;         /* measure the queue path: no sockets, every command succeeds at once */
    int64_t answer_shares, answer_share; /* of answer_self: only blocks that leave this remainder are answered for */
};

struct worker_stats {
    uint64_t pushed, answered, taken_over, fenced, refused, protocol_errors, handed_back, quarantined;
    uint64_t sessions; /* gauge, set at each scrape */
    struct histogram push_ack_us, submit_push_us;
};

struct worker {
    struct ev_loop *loop;
    struct stream_hub *hub;
    struct live *live;
    struct pg *pg;
    struct worker_options options;
    char instance[64]; /* unique per life of the process: host, pid, random */
    struct session_table *sessions;
    struct pool held_pool;  /* of sessions' first commands */
    struct db_clock *clock; /* by this is decided what is over; NULL: the machine's */
    struct batch_cache *batches;
    struct value_cache *values;
    struct answers *answers;
    struct acks *acks;
    struct attach *attach;
    struct strays *strays;
    struct inbox *inbox;
    struct routed *routed;
    struct gates *gates;
    struct window window;
    struct lately lately[2]; /* what tenants were sent: urgent commands, others */
    struct lease *lease;
    struct credentials *credentials;
    struct seen *seen;        /* NULL: not noted */
    struct mqtt_server *mqtt; /* NULL with options.answer_self, and the reverse */
    struct answer_self *answer_self;
    void (*stopped)(struct worker *w); /* the drain is over */
    uint32_t generations;              /* of sessions; 0 is never given */
    uint32_t takes;                    /* from the inbox, so far */
    uint32_t holds;                    /* changes of holds it was told of, so far */
    uint64_t held;                     /* commands in all sessions' hands */
    uint32_t look_s;                   /* how often commands are looked for that take too long; 0: none does */
    bool draining;
    bool unvouched; /* Redis is there, and nobody has said yet that what it holds is not of the past */
    struct ev_timer ask_again;
    struct watch { /* commands sent and not yet seen answered, oldest first: struct sent */
        struct buf sent;
        struct buf later; /* sessions to attach again: struct sent with batch 0 */
        struct ev_timer timer;
        unsigned ticks;
    } watch;
    struct worker_stats stats;
};

/* --- parts.c --- */
/* Makes every part, for the loop, stores, instance and options that are set; begins to ask for a number. False without
 * memory; worker_unmake frees what there is. */
MUST_CHECK bool worker_make(struct worker *w);
/* Frees every part and the stores: what is under way ends without effect. */
void worker_unmake(struct worker *w);

/* --- watch.c --- */
#define SENT_RECORD_MS 1000 /* a command unanswered for so long is recorded as SENT */
void worker_watch_start(struct worker *w);
void worker_watch_stop(struct worker *w);
/* Records SENT when the command is still unanswered after SENT_RECORD_MS. */
void worker_watch_sent(struct worker *w, const struct session *s, uint64_t batch, uint32_t now_ms);
/* Attaches the session again after options.not_now_ms, to deliver what it put off. */
void worker_retry_later(struct worker *w, const struct session *s);

#endif
