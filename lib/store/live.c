#include "lib/store/live.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/live_internal.h"

#define EVENTS_CHANNEL "muster:events"
#define BELIEFS_FIRST  256
#define CANCEL_LIFE_S  3600 /* of confirmations: a leader that has not seen them by then asks again */

struct live *live_new(struct ev_loop *loop, const char *url)
{
    struct live *live = calloc(1, sizeof *live);
    if (!live)
        return NULL;
    live->loop = loop;
    live->url = strdup(url);
    live->moves = live->url ? redis_new(loop, url) : NULL;
    if (!live->moves)
        live_free(&live);
    return live;
}

/* What is under way ends now, and whoever is told may ask for more: `live` still has the connection until all are. */
static void close_moves(struct redis *redis)
{
    redis_free(&redis);
}

void live_free(struct live **live)
{
    struct live *l = *live;
    if (!l)
        return;
    redis_free(&l->takes);
    redis_free(&l->events);
    close_moves(l->moves);
    for (size_t i = 0; i < l->belief_room; i++)
        free(l->beliefs[i].presence);
    free(l->beliefs);
    free(l->url);
    free(l);
    *live = NULL;
}

bool live_up(const struct live *live)
{
    return redis_up(live->moves);
}

void live_on_change(struct live *live, void (*fn)(void *arg, bool up), void *arg)
{
    redis_on_change(live->moves, fn, arg);
}

/* --- arguments --------------------------------------------------------------------------------------------------- */

void args_raw(struct args *a, const void *data, size_t len)
{
    if (a->n == ARGS_MAX)
        abort(); /* ours to bound */
    a->v[a->n++] = (struct slice){len ? data : "", len};
}

void args_slice(struct args *a, struct slice s)
{
    args_raw(a, s.data, s.len);
}

void args_printf(struct args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *at = a->scratch + a->used;
    int n = vsnprintf(at, sizeof a->scratch - a->used, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof a->scratch - a->used)
        abort(); /* ours to bound */
    a->used += (size_t)n;
    args_raw(a, at, (size_t)n);
}

void args_client(struct args *a, const char *verb, long long id)
{
    args_raw(a, "CLIENT", 6);
    args_raw(a, verb, strlen(verb));
    args_raw(a, "ID", 2);
    args_printf(a, "%lld", id);
}

void args_block_key(struct args *a, uint32_t tenant, uint32_t block, const char *suffix)
{
    args_printf(a, "{t%u.b%u}:%s", tenant, block, suffix);
}

void args_state_key(struct args *a, struct live_place p)
{
    args_printf(a, "{t%u.b%u}:state:%llu", p.tenant, p.block, (unsigned long long)p.batch);
}

void args_values_key(struct args *a, struct live_place p)
{
    args_printf(a, "{t%u.b%u}:values:%llu", p.tenant, p.block, (unsigned long long)p.batch);
}

void args_slots(struct args *a, uint8_t *room, const uint16_t *slots, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_u16le(room + 2 * i, slots[i]);
    args_raw(a, room, 2 * count);
}

size_t slots_of_bitmap(uint16_t *slots, const struct bitmap *m)
{
    size_t n = 0;
    for (unsigned slot = bitmap_next(m, 0); slot < BLOCK_SLOTS; slot = bitmap_next(m, slot + 1))
        slots[n++] = (uint16_t)slot;
    return n;
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

struct request *request_new(struct live *live, void *arg, size_t extra)
{
    struct request *r = calloc(1, sizeof *r + extra);
    if (!r) {
        log_error("out_of_memory", "where=live");
        abort();
    }
    r->live = live;
    r->arg = arg;
    return r;
}

void live_send(struct live *live, const struct args *a, redis_done_fn *done, struct request *r)
{
    redis_command(live->moves, a->n, a->v, done, r);
}

void live_run(struct live *live, const char *script, int keys, const struct args *a, redis_done_fn *done,
              struct request *r)
{
    redis_script(live->moves, script, keys, a->n, a->v, done, r);
}

void reply_done(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    (void)reply;
    if (r->fn.done)
        r->fn.done(r->arg, err);
    free(r);
}

void reply_integer(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    int64_t value = !err && reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0;
    if (r->fn.integer)
        r->fn.integer(r->arg, err, value);
    free(r);
}

void reply_bytes(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    if (!err && reply->type == REDIS_REPLY_NIL)
        err = ERR_NOT_FOUND;
    r->fn.bytes(r->arg, err, reply_slice(reply));
    free(r);
}

uint16_t reply_worker(const redisReply *member)
{
    struct slice digits = reply_slice(member);
    unsigned number = 0;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return 0;
        number = number * 10 + (digits.data[i] - '0');
        if (number > UINT16_MAX)
            return 0;
    }
    return (uint16_t)number;
}

/* --- beliefs about presence -------------------------------------------------------------------------------------- */

static struct live_belief *belief_find(struct live_belief *beliefs, size_t room, uint64_t key)
{
    size_t i = (key * 0x9e3779b97f4a7c15ull >> 20) & (room - 1);
    while (beliefs[i].key && beliefs[i].key != key)
        i = (i + 1) & (room - 1);
    return &beliefs[i];
}

static bool beliefs_grow(struct live *live)
{
    size_t room = live->belief_room ? live->belief_room * 2 : BELIEFS_FIRST;
    struct live_belief *grown = calloc(room, sizeof *grown);
    if (!grown)
        return false;
    for (size_t i = 0; i < live->belief_room; i++)
        if (live->beliefs[i].key)
            *belief_find(grown, room, live->beliefs[i].key) = live->beliefs[i];
    free(live->beliefs);
    live->beliefs = grown;
    live->belief_room = room;
    return true;
}

static uint64_t belief_key(uint32_t tenant, uint32_t block)
{
    return ((uint64_t)tenant << 32 | block) + 1;
}

uint8_t *live_belief_get(struct live *live, uint32_t tenant, uint32_t block)
{
    return live->belief_room ? belief_find(live->beliefs, live->belief_room, belief_key(tenant, block))->presence
                             : NULL;
}

void live_belief_set(struct live *live, uint32_t tenant, uint32_t block, unsigned first, unsigned count,
                     struct slice presence)
{
    if (live->belief_count * 2 >= live->belief_room && !beliefs_grow(live))
        return;
    struct live_belief *b = belief_find(live->beliefs, live->belief_room, belief_key(tenant, block));
    if (!b->presence) {
        uint8_t *bytes = presence.len ? calloc(1, PRESENCE_BYTES) : NULL;
        if (!bytes)
            return;
        owned(bytes);
        b->presence = bytes;
        b->key = belief_key(tenant, block);
        live->belief_count++;
    }
    memset(b->presence + (size_t)first * 2, 0, (size_t)count * 2);
    if (presence.len == (size_t)count * 2)
        memcpy(b->presence + (size_t)first * 2, presence.data, presence.len);
}

/* --- cancels, events, generation --------------------------------------------------------------------------------- */

/* Confirmed once more after the batch was closed, it would stay. */
static void args_limited(struct args *a, const char *kind, uint64_t batch, const char *command)
{
    args_printf(a, "%s:%llu", kind, (unsigned long long)batch);
    args_printf(a, "%d", CANCEL_LIFE_S);
    args_raw(a, command, strlen(command));
}

void live_cancel_confirm(struct live *live, uint64_t batch, uint16_t worker, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_limited(&a, "cancel", batch, "SADD");
    args_printf(&a, "%u", worker);
    live_run(live, "limited", 1, &a, reply_done, r);
}

static void reply_numbers(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    size_t n = !err && reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
    uint16_t *numbers = calloc(n + 1, sizeof *numbers);
    size_t kept = 0;
    for (size_t i = 0; numbers && i < n; i++)
        if ((numbers[kept] = reply_worker(reply->element[i])))
            kept++;
    r->fn.numbers(r->arg, numbers ? err : ERR_NOMEM, numbers, kept);
    free(numbers);
    free(r);
}

void live_cancel_confirmed(struct live *live, uint64_t batch, live_numbers_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.numbers = done;
    args_raw(&a, "SMEMBERS", 8);
    args_printf(&a, "cancel:%llu", (unsigned long long)batch);
    live_send(live, &a, reply_numbers, r);
}

void live_confirm(struct live *live, uint64_t batch, uint64_t number, uint16_t worker, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    if (batch) {
        args_limited(&a, "confirm", batch, "HSET");
    } else {
        args_raw(&a, "HSET", 4);
        args_raw(&a, "confirm:0", 9);
    }
    args_printf(&a, "%u", worker);
    args_printf(&a, "%llu", (unsigned long long)number);
    if (batch)
        live_run(live, "limited", 1, &a, reply_done, r);
    else
        live_send(live, &a, reply_done, r);
}

/* Fields and values in turn. */
static void reply_confirmed(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    size_t n = !err && reply->type == REDIS_REPLY_ARRAY ? reply->elements / 2 : 0, kept = 0;
    uint16_t *numbers = calloc(n + 1, sizeof *numbers);
    for (size_t i = 0; numbers && i < n; i++)
        if (strtoull((const char *)reply_slice(reply->element[2 * i + 1]).data, NULL, 10) >= r->number &&
            (numbers[kept] = reply_worker(reply->element[2 * i])))
            kept++;
    r->fn.numbers(r->arg, numbers ? err : ERR_NOMEM, numbers, kept);
    free(numbers);
    free(r);
}

void live_confirmed(struct live *live, uint64_t batch, uint64_t number, live_numbers_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.numbers = done;
    r->number = number;
    args_raw(&a, "HGETALL", 7);
    args_printf(&a, "confirm:%llu", (unsigned long long)batch);
    live_send(live, &a, reply_confirmed, r);
}

void live_count_loss(struct live *live, uint64_t batch, uint32_t seq, live_int_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    args_limited(&a, "broken", batch, "HINCRBY");
    args_printf(&a, "%u", seq);
    args_raw(&a, "1", 1);
    live_run(live, "limited", 1, &a, reply_integer, r);
}

void live_publish(struct live *live, const char *text)
{
    struct args a = {0};
    args_raw(&a, "PUBLISH", 7);
    args_raw(&a, EVENTS_CHANNEL, strlen(EVENTS_CHANNEL));
    args_raw(&a, text, strlen(text));
    redis_command(live->moves, a.n, a.v, NULL, NULL);
}

void live_subscribe(struct live *live, void (*fn)(void *arg, struct slice text), void *arg)
{
    if (!live->events && !(live->events = redis_new(live->loop, live->url))) {
        log_error("out_of_memory", "where=live_subscribe");
        abort();
    }
    redis_subscribe(live->events, EVENTS_CHANNEL, fn, arg);
}
