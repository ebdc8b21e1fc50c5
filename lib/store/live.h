/* The working copy of open batches, presence, inboxes and worker leases in Redis: every atomic move there is.
 * Owns: key names (see schema/KEYS.md), scripts of schema/redis, layouts of their arguments and replies.
 * May call: lib/store/redis, block, state; lib/base. Loop rule: non-blocking; callbacks come from the loop, exactly
 * once, never from inside the call. Errors as in redis.h: ERR_UNAVAILABLE may or may not have been done; every move may
 * be repeated. */
#ifndef MUSTER_STORE_LIVE_H
#define MUSTER_STORE_LIVE_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/store/block.h"

struct live;

/* Same urls as redis_new. Keeps two connections: one for moves, one for blocking takes and subscriptions, as they are
 * used. */
struct live *live_new(struct ev_loop *loop, const char *url);
void live_free(struct live **live);
/* For the connection of a leader's reign, right after live_new. Moves can't be fenced one by one without dearer
 * scripts: the connection is. Each time before it is up, what leaders of lower epochs have still on their way to this
 * Redis is thrown away together with their connections, and from then on they are refused: `fenced` comes then, and the
 * connection stays down. The epoch is the lease's: it never falls, whatever became of the stores. */
void live_lead(struct live *live, int64_t epoch, void (*fenced)(void *arg), void *arg);
bool live_up(const struct live *live);
void live_on_change(struct live *live, void (*fn)(void *arg, bool up), void *arg);

typedef void live_done_fn(void *arg, enum err err);
typedef void live_int_fn(void *arg, enum err err, int64_t value);
typedef void live_bytes_fn(void *arg, enum err err, struct slice value); /* ERR_NOT_FOUND when there is none */

/* Where a batch stands in a block. */
struct live_place {
    uint32_t tenant, block;
    uint64_t batch;
};

/* --- batches ---------------------------------------------------------------------------------------------------- */
/* batch:<id> = encoded muster.internal.v1.BatchSpec. */
void live_put_spec(struct live *live, uint64_t batch, struct slice spec, live_done_fn *done, void *arg);
void live_get_spec(struct live *live, uint64_t batch, live_bytes_fn *done, void *arg);

/* {t.b}:values:<batch>: the values of the batch's devices there, lib/store/value_block.h. */
void live_put_values(struct live *live, struct live_place place, struct slice values, live_done_fn *done, void *arg);
void live_get_values(struct live *live, struct live_place place, live_bytes_fn *done, void *arg);

/* Script route: opens the batch in the block and gives QUEUED slots whose device is online to their workers (ROUTED).
 * `rank` orders the batches of a block (lower first): priority * 2^48 + batch. `states` is a whole state string. Where
 * there is one already (another router was here, or Redis is being rebuilt) the two are joined: terminal states win,
 * then what was sent; what is ROUTED or SENT there stays; whether the others are HELD or QUEUED `states` decides. What
 * is ROUTED or SENT already is given again: the hint may have been lost on its way, or the worker that sent it with its
 * memory, and a worker knows what it has. Fast path: the caller's idea of presence is compared, and the joined string
 * made in C; slow path in Lua. */
struct live_routed {
    uint16_t worker;
    struct bitmap slots;
};
typedef void live_route_fn(void *arg, enum err err, const struct live_routed *routed, size_t count);
void live_route(struct live *live, struct live_place place, uint64_t rank, struct slice states, live_route_fn *done,
                void *arg);
/* The same where some of the batch's commands in the block stand in Redis already; ERR_NOT_FOUND: none do. Those that
 * are STATE_NONE in `states` stay what they are. */
void live_route_some(struct live *live, struct live_place place, uint64_t rank, struct slice states,
                     live_route_fn *done, void *arg);

/* Who holds the block's devices, as this process saw it last: 1,024 × u16, little endian, or NULL. Borrowed until the
 * next call of live. */
const uint8_t *live_presence_seen(struct live *live, uint32_t tenant, uint32_t block);
/* Asks who holds the block's devices, for the caller's idea of it: the next live_route of it goes the fast way. */
void live_learn(struct live *live, uint32_t tenant, uint32_t block, live_done_fn *done, void *arg);

/* Script record: applies events to slots. `before` and `after` have one state byte per entry: equal when the event
 * changed nothing; both 0 when the batch is not open in the block (closed, or Redis lost it). `attempts` 0 keeps the
 * number. */
struct live_event {
    uint16_t slot;
    uint8_t event;    /* enum command_event */
    uint8_t attempts; /* new number of deliveries, if more than recorded */
};
typedef void live_record_fn(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count);
void live_record(struct live *live, struct live_place place, const struct live_event *events, size_t count,
                 live_record_fn *done, void *arg);

/* Script hand_back: EVENT_LOSE for slots of one batch that `worker` could not send to, unless presence says another
 * worker has the device now (that one has them already). */
void live_hand_back(struct live *live, struct live_place place, uint16_t worker, const struct bitmap *slots,
                    live_done_fn *done, void *arg);

/* Script apply: one event (EVENT_CANCEL, EVENT_DROP, EVENT_EXPIRE, EVENT_HOLD) to every slot of the batch in the
 * block, or to the slots in `only` (NULL: all). Gives the whole state string afterwards; ERR_NOT_FOUND when it is not
 * open there. */
void live_apply(struct live *live, struct live_place place, enum command_event event, const struct bitmap *only,
                live_bytes_fn *done, void *arg);
/* Script close: the batch is over in the block: out of `open`, state string and values gone. live_drop_spec: and its
 * batch:<id>, cancel:<id>, confirm:<id>. */
void live_close(struct live *live, struct live_place place, live_done_fn *done, void *arg);
void live_drop_spec(struct live *live, uint64_t batch, live_done_fn *done, void *arg);

/* One step of a walk over all keys, from `cursor` (0: the first step): those of batches found in it, some perhaps
 * twice. `next` is the cursor of the next step, 0 when this was the last. What stands there all the time is found. */
struct live_kept {
    struct live_place place; /* tenant and block only where `in_block` */
    bool in_block;           /* a state string, or values; else what there is once per batch */
};
typedef void live_scan_fn(void *arg, enum err err, const struct live_kept *kept, size_t count, uint64_t next);
void live_scan(struct live *live, uint64_t cursor, live_scan_fn *done, void *arg);

/* State strings of one batch in many blocks, pipelined; `states[i]` is empty where there is none. */
typedef void live_states_fn(void *arg, enum err err, const struct slice *states, size_t count);
void live_states(struct live *live, uint32_t tenant, uint64_t batch, const uint32_t *blocks, size_t count,
                 live_states_fn *done, void *arg);

/* --- devices and workers ---------------------------------------------------------------------------------------- */
/* Script attach: the devices of these slots are connected to `worker`. For each slot, in the order given: the worker
 * that had it before (0: none), and its first open commands in delivery order, `most` of them (1 or more) at most,
 * QUEUED ones now ROUTED, and ROUTED ones SENT where another worker had the device: it may have sent them; HELD ones
 * are left out. */
struct live_pending {
    uint64_t batch;
    uint8_t state; /* state byte before this attach */
};
struct live_attached {
    uint16_t slot;
    uint16_t previous; /* worker */
    const struct live_pending *pending;
    size_t count;
};
typedef void live_attach_fn(void *arg, enum err err, const struct live_attached *attached, size_t count);
void live_attach(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, const uint16_t *slots,
                 size_t count, unsigned most, live_attach_fn *done, void *arg);
/* Script detach: these devices have left `worker`: presence 0 where it still says so, and then what was ROUTED there is
 * QUEUED again. */
void live_detach(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, const uint16_t *slots,
                 size_t count, live_done_fn *done, void *arg);
/* Script reap: presence 0 for every slot of a dead worker in the block; what was ROUTED there is SENT: it may have
 * been. `value` is how many slots it had. */
void live_reap(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, live_int_fn *done, void *arg);
/* Presence of a block: 1,024 × u16 little endian, or empty when nobody ever was there. */
void live_presence(struct live *live, uint32_t tenant, uint32_t block, live_bytes_fn *done, void *arg);
/* Who holds the slot in that; 0: nobody. */
static inline uint16_t live_presence_at(struct slice presence, unsigned slot)
{
    size_t at = 2 * (size_t)slot;
    return at + 2 <= presence.len ? load_u16le(presence.data + at) : 0;
}

/* Worker numbers: a lease on worker:<n>, value `instance` (up to 64 bytes, unique per life of a process).
 * acquire takes a number (db_worker_number) and adds it to the set `workers`, ERR_FENCED when it is in use; renew is
 * ERR_FENCED when the lease is another's, ERR_NOT_FOUND when it is gone (expired, or Redis lost it); reclaim takes the
 * same number again if nobody has it and nobody has called it dead, else ERR_FENCED. */
void live_worker_acquire(struct live *live, uint16_t worker, const char *instance, int64_t ttl_ms, live_done_fn *done,
                         void *arg);
void live_worker_renew(struct live *live, uint16_t worker, const char *instance, int64_t ttl_ms, live_done_fn *done,
                       void *arg);
void live_worker_reclaim(struct live *live, uint16_t worker, const char *instance, int64_t ttl_ms, live_done_fn *done,
                         void *arg);
void live_worker_release(struct live *live, uint16_t worker, const char *instance, live_done_fn *done, void *arg);
/* Numbers in the set `workers`, and whether each has its lease. One that has none is fenced by being told of here: it
 * is dead for good, its slots may be reaped, and its number comes free with live_worker_forget. live_workers_all:
 * ERR_UNAVAILABLE while Redis is not filled, since who is not listed there may still send. live_worker_forget: takes a
 * dead one out, with its inboxes, once its slots are reaped. */
struct live_worker {
    uint16_t number;
    bool alive;
};
typedef void live_workers_fn(void *arg, enum err err, const struct live_worker *workers, size_t count);
void live_workers(struct live *live, live_workers_fn *done, void *arg);
void live_workers_all(struct live *live, live_workers_fn *done, void *arg);
void live_worker_forget(struct live *live, uint16_t worker, live_done_fn *done, void *arg);

/* --- inboxes ---------------------------------------------------------------------------------------------------- */
enum live_class { LIVE_URGENT, LIVE_NORMAL, LIVE_BULK, LIVE_CLASSES };
/* Appends one entry (proto/inbox.h items). `value` is the number of entries now waiting in that inbox. */
void live_inbox_push(struct live *live, uint16_t worker, enum live_class class, struct slice items, live_int_fn *done,
                     void *arg);
/* The same to all in `workers`, dead ones too. */
void live_tell_workers(struct live *live, enum live_class class, struct slice items);
/* `value` is the number of entries waiting there. */
void live_inbox_length(struct live *live, uint16_t worker, enum live_class class, live_int_fn *done, void *arg);
/* As whom takes are made: unique in the life of an installation, up to 80 bytes. Before the first take. */
void live_take_as(struct live *live, const char *name);
/* Takes up to `max` entries with one BLMPOP over the first `classes` inboxes (1: urgent only … 3: all), waiting up to
 * `wait_ms` (5,000 at most). No entries: count 0 and ERR_OK. One take at a time. The entries are gone from Redis:
 * hints, not truth. */
typedef void live_take_fn(void *arg, enum err err, enum live_class class, const struct slice *entries, size_t count);
void live_inbox_take(struct live *live, uint16_t worker, int classes, int max, int64_t wait_ms, live_take_fn *done,
                     void *arg);
/* Looks now whether the take has been given something, as the loop would in its next turn: its `done` comes from inside
 * this call then. */
void live_take_look(struct live *live);
/* Which connection takes: grows from 1, 0 while there is none. Once there is another, the one before it is given
 * nothing any more; what it was given last may have been lost. */
uint64_t live_taker(const struct live *live);

/* --- cancels and events ----------------------------------------------------------------------------------------- */
/* cancel:<batch>: the workers that have confirmed that they can't send it any more. */
void live_cancel_confirm(struct live *live, uint64_t batch, uint16_t worker, live_done_fn *done, void *arg);
typedef void live_numbers_fn(void *arg, enum err err, const uint16_t *numbers, size_t count);
void live_cancel_confirmed(struct live *live, uint64_t batch, live_numbers_fn *done, void *arg);

/* confirm:<batch>, of batch 0 for the gates: how far each worker has confirmed what was told to all under growing
 * numbers. _confirmed: the workers that have confirmed `number` or a later one. */
void live_confirm(struct live *live, uint64_t batch, uint64_t number, uint16_t worker, live_done_fn *done, void *arg);
void live_confirmed(struct live *live, uint64_t batch, uint64_t number, live_numbers_fn *done, void *arg);

/* broken:<batch>: how often the device's connection was lost while the command was sent; `value` is that, with this
 * time. Forgotten an hour after the last one. */
void live_count_loss(struct live *live, uint64_t batch, uint32_t seq, live_int_fn *done, void *arg);

/* Channel muster:events, for dispatchers: short text such as "accepted 17". Fire and forget: a hint, polls repair. */
void live_publish(struct live *live, const char *text);
void live_subscribe(struct live *live, void (*fn)(void *arg, struct slice text), void *arg);

/* The key muster:generation holds the run_id of the Redis that was last filled from PostgreSQL. get gives 1 when it is
 * there and is this Redis's run_id, 0 when Redis was lost or restarted since: begin, rebuild, then set, which is
 * ERR_NOT_FOUND when Redis was emptied again since begin. */
void live_generation_get(struct live *live, live_int_fn *done, void *arg);
void live_generation_begin(struct live *live);
void live_generation_set(struct live *live, live_done_fn *done, void *arg);
/* A Redis that was lost does not know who may still send: for so long live_workers gives one more, that is alive and
 * never says anything. */
#define LIVE_UNKNOWN_WORKER UINT16_MAX
void live_workers_unknown(struct live *live, int64_t lease_ms);

#endif
