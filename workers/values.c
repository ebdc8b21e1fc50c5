#include "workers/values.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/store/live.h"
#include "proto/fill.h"
#include "workers/batch_cache.h"

#define BUCKETS 1024
#define LOOK_S  30.0 /* how often it looks for what is kept for too long */

/* The values of one batch in one block. */
struct entry {
    struct entry *next; /* in its bucket */
    struct list link;   /* in `kept`, the longest unused first; alone while loading */
    struct value_cache *cache;
    struct live_place place;
    unsigned variables;
    bool loading, dropped; /* dropped: while loading, it is not kept */
    int64_t used_us;       /* of the last tick when somebody asked for it, or it came */
    struct buf waiters;
    uint8_t *bytes; /* owned */
    size_t len;
    struct value_block values;
};

struct waiter {
    values_fn *fn;
    void *arg;
    uint64_t a;
};

struct value_cache {
    struct live *live;
    struct ev_loop *loop;
    struct ev_timer timer;
    struct list kept;
    size_t bytes;
    int64_t now_us; /* of the last tick */
    struct entry *buckets[BUCKETS];
};

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)loop, (void)revents;
    value_cache_tick(timer->data, clock_mono_us());
}

struct value_cache *value_cache_new(struct live *live, struct ev_loop *loop)
{
    struct value_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->live = live;
    cache->loop = loop;
    cache->now_us = clock_mono_us();
    list_init(&cache->kept);
    ev_timer_init(&cache->timer, on_timer, LOOK_S, LOOK_S);
    cache->timer.data = cache;
    ev_timer_start(loop, &cache->timer);
    return cache;
}

static struct entry **bucket_of(struct value_cache *cache, uint64_t batch, uint32_t block)
{
    return &cache->buckets[(batch * 0x9e3779b97f4a7c15ull + block * 0xc2b2ae3d27d4eb4full) >> 54];
}

/* As batch_cache: whoever waits must not be told that a batch is over when it is not. */
static void __attribute__((noreturn)) no_memory(void)
{
    log_error("out_of_memory", "where=values");
    abort();
}

static size_t cost_of(const struct entry *e)
{
    return sizeof *e + e->values.bytes.len + e->values.count * sizeof *e->values.places;
}

static void unlink_entry(struct entry *e)
{
    struct entry **at = bucket_of(e->cache, e->place.batch, e->place.block);
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    if (list_empty(&e->link))
        return;
    list_remove(&e->link);
    e->cache->bytes -= cost_of(e);
}

static void entry_free(struct entry *e)
{
    if (e->bytes)
        explicit_bzero(e->bytes, e->len);
    value_block_free(&e->values);
    buf_free(&e->waiters);
    free(e->bytes);
    free(e);
}

static void forget(struct entry *e)
{
    unlink_entry(e);
    entry_free(e);
}

void value_cache_free(struct value_cache **cache)
{
    struct value_cache *c = *cache;
    if (!c)
        return;
    ev_timer_stop(c->loop, &c->timer);
    for (unsigned i = 0; i < BUCKETS; i++)
        while (c->buckets[i])
            forget(c->buckets[i]);
    free(c);
    *cache = NULL;
}

/* --- loading ------------------------------------------------------------------------------------------------------ */

static enum err read_values(struct entry *e, struct slice value)
{
    e->bytes = malloc(value.len + 1);
    if (!e->bytes)
        no_memory();
    memcpy(e->bytes, value.data, value.len);
    e->len = value.len;
    enum err err = value_block_read(&e->values, (struct slice){e->bytes, value.len}, e->variables);
    if (err == ERR_NOMEM)
        no_memory();
    return err;
}

static void keep(struct entry *e)
{
    struct value_cache *cache = e->cache;
    list_append(&cache->kept, &e->link);
    cache->bytes += cost_of(e);
    e->used_us = cache->now_us;
    while (cache->bytes > VALUES_KEPT_MAX && !list_empty(&cache->kept))
        forget(container_of(cache->kept.next, struct entry, link));
}

static void loaded(void *arg, enum err err, struct slice value)
{
    struct entry *e = arg;
    struct buf waiters = e->waiters;
    struct waiter w;
    e->waiters = (struct buf){0};
    if (!err)
        err = read_values(e, value);
    e->loading = false;
    if (err)
        unlink_entry(e); /* who asks from now on asks anew */
    if (err && err != ERR_NOT_FOUND)
        log_warn("values_unreadable", "batch=%llu block=%u error=%s", (unsigned long long)e->place.batch,
                 e->place.block, err_name(err));
    for (; buf_len(&waiters) >= sizeof w; buf_consume(&waiters, sizeof w)) {
        memcpy(&w, buf_head(&waiters), sizeof w);
        w.fn(w.arg, err ? NULL : &e->values, w.a);
    }
    buf_free(&waiters);
    if (!err && !e->dropped) {
        keep(e);
        return;
    }
    if (!err)
        unlink_entry(e);
    entry_free(e);
}

static struct entry *entry_new(struct value_cache *cache, const struct batch *batch, uint32_t block)
{
    struct entry *e = calloc(1, sizeof *e), **bucket = bucket_of(cache, batch->id, block);
    if (!e)
        no_memory();
    e->cache = cache;
    e->place = (struct live_place){batch->tenant, block, batch->id};
    e->variables = (unsigned)batch->fill->variables;
    e->loading = true;
    list_init(&e->link);
    e->next = *bucket;
    *bucket = e;
    return e;
}

void value_cache_get(struct value_cache *cache, const struct batch *batch, uint32_t block, values_fn *fn, void *arg,
                     uint64_t a)
{
    struct entry *e = *bucket_of(cache, batch->id, block);
    while (e && (e->place.batch != batch->id || e->place.block != block))
        e = e->next;
    if (e && !e->loading) {
        if (!list_empty(&e->link)) {
            list_remove(&e->link);
            list_append(&cache->kept, &e->link);
            e->used_us = cache->now_us;
        }
        fn(arg, &e->values, a);
        return;
    }
    bool fresh = !e;
    if (fresh)
        e = entry_new(cache, batch, block);
    buf_put(&e->waiters, &(struct waiter){fn, arg, a}, sizeof(struct waiter));
    if (e->waiters.failed)
        no_memory();
    if (fresh)
        live_get_values(cache->live, e->place, loaded, e);
}

/* --- forgetting --------------------------------------------------------------------------------------------------- */

void value_cache_drop(struct value_cache *cache, uint64_t batch)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct entry *e = cache->buckets[i], *next; e; e = next) {
            next = e->next;
            if (e->place.batch != batch)
                continue;
            e->dropped = true;
            if (!list_empty(&e->link))
                forget(e);
        }
    }
}

void value_cache_tick(struct value_cache *cache, int64_t now_us)
{
    cache->now_us = now_us;
    while (!list_empty(&cache->kept)) {
        struct entry *oldest = container_of(cache->kept.next, struct entry, link);
        if (now_us - oldest->used_us < VALUES_KEPT_US)
            return;
        forget(oldest);
    }
}

/* --- parts -------------------------------------------------------------------------------------------------------- */

struct value_part {
    unsigned count;
    struct value_place {
        uint16_t slot, len;
        uint32_t at; /* from the part's begin */
    } places[];      /* in the order of slots; the bytes behind */
};

struct value_part *value_part_new(const struct value_block *values, const struct bitmap *slots)
{
    size_t bytes = 0;
    unsigned count = 0;
    struct bitmap both = *slots;
    bitmap_and(&both, &values->slots);
    for (unsigned slot = bitmap_next(&both, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&both, slot + 1), count++)
        bytes += value_block_get(values, slot).len;
    if (!count)
        return NULL;
    size_t at = sizeof(struct value_part) + count * sizeof(struct value_place);
    struct value_part *part = malloc(at + bytes);
    if (!part)
        no_memory();
    part->count = count;
    struct value_place *place = part->places;
    for (unsigned slot = bitmap_next(&both, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&both, slot + 1), place++) {
        struct slice value = value_block_get(values, slot);
        *place = (struct value_place){(uint16_t)slot, (uint16_t)value.len, (uint32_t)at};
        memcpy((uint8_t *)part + at, value.data, value.len);
        at += value.len;
    }
    return part;
}

void value_part_free(struct value_part **part)
{
    if (*part) {
        const struct value_place *last = &(*part)->places[(*part)->count - 1]; /* there is one */
        explicit_bzero(*part, (size_t)last->at + last->len);
    }
    free(*part);
    *part = NULL;
}

struct slice value_part_get(const struct value_part *part, unsigned slot)
{
    unsigned low = 0, high = part ? part->count : 0;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        if (part->places[mid].slot < slot)
            low = mid + 1;
        else
            high = mid;
    }
    if (!part || low == part->count || part->places[low].slot != slot)
        return (struct slice){0};
    return (struct slice){(const uint8_t *)part + part->places[low].at, part->places[low].len};
}
