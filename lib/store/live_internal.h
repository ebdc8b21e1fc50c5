/* What the files of live share: the struct, key names, arguments of commands, requests under way.
 * Owns: key names. May call: lib/store/redis. Loop rule: as live.h. */
#ifndef MUSTER_STORE_LIVE_INTERNAL_H
#define MUSTER_STORE_LIVE_INTERNAL_H

#include "lib/store/live.h"
#include "lib/store/redis.h"

#define PRESENCE_BYTES (BLOCK_SLOTS * 2)

/* Presence of a block as last seen by this process: a belief that the route script checks. */
struct live_belief {
    uint64_t key; /* tenant << 32 | block, plus one; 0 for a free place */
    uint8_t *presence;
};

struct live {
    struct ev_loop *loop;
    char *url;
    struct redis *moves;  /* everything but the next two */
    struct redis *takes;  /* blocking takes; made at the first one */
    struct redis *events; /* subscription; made at the first one */
    struct live_belief *beliefs;
    size_t belief_count, belief_room; /* room is a power of two */
    char run_id[64];                  /* of the Redis at the other end, asked for once a connection; */
    uint64_t run_id_of;               /* which one */
    char filling[64];                 /* what muster:generation holds while Redis is being filled */
    uint64_t fillings;
    /* live_lead */
    int64_t epoch;
    void (*fenced)(void *arg);
    void *fenced_arg;
    /* live_inbox.c: the name of the connection that takes, and its number at the Redis it has been greeted at last; of
     * one that is being greeted */
    char taker[96];
    long long taker_id, taker_next;
};

/* Arguments of one command: borrowed bytes, or text made in `scratch`. */
#define ARGS_MAX 16
struct args {
    struct slice v[ARGS_MAX];
    int n;
    size_t used;
    char scratch[768];
};
void args_raw(struct args *a, const void *data, size_t len);
void args_slice(struct args *a, struct slice s);
void args_printf(struct args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* {t<tenant>.b<block>}:<suffix> */
void args_block_key(struct args *a, uint32_t tenant, uint32_t block, const char *suffix);
/* {w<worker>}:inbox:<class> */
void args_inbox_key(struct args *a, uint16_t worker, enum live_class class);
/* CLIENT `verb` ID `id`: what is done with one connection. */
void args_client(struct args *a, const char *verb, long long id);
void args_state_key(struct args *a, struct live_place place);
void args_values_key(struct args *a, struct live_place place);
/* Slots as packed u16, kept in `room` (2 bytes each). */
void args_slots(struct args *a, uint8_t *room, const uint16_t *slots, size_t count);
size_t slots_of_bitmap(uint16_t *slots, const struct bitmap *m);

/* A request under way: the caller's callback, and what the reply is read with. */
struct request {
    struct live *live;
    union {
        live_done_fn *done;
        live_int_fn *integer;
        live_bytes_fn *bytes;
        live_route_fn *route;
        live_record_fn *record;
        live_states_fn *states;
        live_attach_fn *attach;
        live_workers_fn *workers;
        live_take_fn *take;
        live_numbers_fn *numbers;
        live_scan_fn *scan;
    } fn;
    void *arg;
    struct live_place place;
    uint64_t number; /* of the request's own use */
    size_t count;
    uint8_t extra[]; /* of the request's own use */
};
/* Returns owned, freed by the reply's function. Without memory the process ends: everything here may be repeated, so a
 * fresh one does better than one that has lost a reply. */
struct request *request_new(struct live *live, void *arg, size_t extra);

void live_send(struct live *live, const struct args *a, redis_done_fn *done, struct request *r);
void live_run(struct live *live, const char *script, int keys, const struct args *a, redis_done_fn *done,
              struct request *r);

/* Replies of the common shapes; each calls fn.done, fn.integer or fn.bytes (if any) and frees the request. */
void reply_done(void *arg, enum err err, const redisReply *reply);
void reply_integer(void *arg, enum err err, const redisReply *reply);
void reply_bytes(void *arg, enum err err, const redisReply *reply);

static inline struct slice reply_slice(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_STRING ? (struct slice){(const uint8_t *)reply->str, (size_t)reply->len}
                                                      : (struct slice){(const uint8_t *)"", 0};
}

/* A worker's number, as the sets of them have it; 0 when it is none. */
uint16_t reply_worker(const redisReply *member);

/* The belief about a block's presence, PRESENCE_BYTES long, or NULL. */
uint8_t *live_belief_get(struct live *live, uint32_t tenant, uint32_t block);
/* Stores `presence` for `count` slots from `first` on; empty: nobody. */
void live_belief_set(struct live *live, uint32_t tenant, uint32_t block, unsigned first, unsigned count,
                     struct slice presence);

#endif
