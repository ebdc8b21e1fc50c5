/* From an outcome to its durable record: collects for a few milliseconds, records in Redis, persists in PostgreSQL,
 * then tells the session, which tells the device. Owns: struct acks, flushes under way, the worker's stream of the
 * acknowledgement log. May call: lib/store, proto/ack_log, session (durable). Loop rule: non-blocking; whatever fails
 * is repeated until it works. */
#ifndef MUSTER_WORKERS_ACKS_H
#define MUSTER_WORKERS_ACKS_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/metrics.h"

struct db_clock;
struct acks;
struct live;
struct pg;
struct session_table;

struct ack {
    uint64_t batch;
    uint32_t tenant, seq;
    uint32_t generation; /* of the session that waits, 0 for none */
    uint16_t token;      /* the transport's, given back when durable */
    uint8_t event;       /* enum command_event */
    uint8_t attempts;    /* deliveries so far */
    bool retried;        /* of a batch whose commands may be tried again: results of later deliveries count */
    bool tell;           /* the leader must hear of it, also when it is no outcome */
};

struct acks_stats {
    uint64_t recorded, stored, flushes, retries, waiting;
    uint64_t waiting_bytes;    /* gauge: what came with outcomes that are not durable yet */
    uint64_t events[32];       /* by enum command_event */
    struct histogram flush_us; /* from a flush's first acknowledgement to its commit */
};

struct acks_options {
    int64_t interval_ms;    /* how long acknowledgements collect; five times that when they come in crowds */
    const char *worker;     /* name in ack_stream */
    struct db_clock *clock; /* borrowed: what was recorded when, by which leaders count; NULL: the machine's */
};

#define ACKS_FLUSH_MAX   8192 /* acknowledgements of one flush; more begin the next at once */
#define ACKS_FLUSHES_MAX 8    /* flushes under way; beyond, acknowledgements collect */
/* Of results and device information: 32 KiB from each of a thousand devices while PostgreSQL is away or slow. Then
 * nobody who would bring more is read until some of it is durable. */
#define ACKS_BYTES_MAX (32u * 1024 * 1024)

/* Returns owned, or NULL without memory. Borrows all. */
struct acks *acks_new(struct ev_loop *loop, struct live *live, struct pg *pg, struct session_table *sessions,
                      const struct acks_options *options);
void acks_free(struct acks **acks);
void acks_add(struct acks *acks, const struct ack *ack);
/* The same with what the device said beyond the outcome: encoded muster.v1.CommandResult and
 * muster.v1.DeviceInformation (may be empty). Copies. */
void acks_add_result(struct acks *acks, const struct ack *ack, struct slice result, struct slice information);
/* Sends what has collected on its way now, if there is room. False when something stays behind. */
bool acks_push(struct acks *acks);
/* Redis may have lost what was recorded there (it was away, or had lost the lease): what is being stored is recorded
 * once more before anybody is told that it is durable, so that nothing else becomes of its commands. */
void acks_redis_lost(struct acks *acks);
/* Stores a row of the log as it is (proto/ack_log), past Redis, once: what it says is recorded in time by the usual way
 * too. Copies. */
void acks_store_only(struct acks *acks, struct slice entries);
/* Calls `fn` when everything added so far is durable; flushes at once. */
void acks_barrier(struct acks *acks, void (*fn)(void *arg), void *arg);
const struct acks_stats *acks_stats(const struct acks *acks);
/* Whether ACKS_BYTES_MAX are waiting. */
bool acks_full(const struct acks *acks);

#endif
