#include "workers/batch_cache.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/arena.h"
#include "lib/base/log.h"
#include "lib/store/live.h"
#include "lib/store/state.h"
#include "muster/internal/v1/batch.pb-c.h"
#include "muster/v1/delivery.pb-c.h"
#include "proto/delivery.h"
#include "proto/fill.h"

#define BUCKETS 4096

struct batch_cache {
    struct live *live;
    struct list idle;
    unsigned idle_count;
    uint32_t doubts;    /* batch_cache_doubt, so often */
    uint32_t loads;     /* so far */
    uint64_t forgotten; /* the highest number of a batch that was known once and is not any more */
    struct batch *buckets[BUCKETS];
};

struct waiter {
    batch_fn *fn;
    void *arg;
    uint64_t a, b;
};

struct batch_cache *batch_cache_new(struct live *live)
{
    struct batch_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->live = live;
    list_init(&cache->idle);
    return cache;
}

static struct batch **bucket_of(struct batch_cache *cache, uint64_t id)
{
    return &cache->buckets[id * 0x9e3779b97f4a7c15ull >> 52];
}

struct batch *batch_cache_find(struct batch_cache *cache, uint64_t id)
{
    for (struct batch *b = *bucket_of(cache, id); b; b = b->next)
        if (b->id == id)
            return b;
    return NULL;
}

static void batch_forget(struct batch_cache *cache, struct batch *batch)
{
    struct batch **at = bucket_of(cache, batch->id);
    while (*at != batch)
        at = &(*at)->next;
    *at = batch->next;
    list_remove(&batch->idle);
    buf_free(&batch->command);
    buf_free(&batch->tail);
    buf_free(&batch->waiters);
    buf_free(&batch->defaults);
    free(batch->json);
    free(batch->fill);
    free(batch);
}

void batch_cache_free(struct batch_cache **cache)
{
    struct batch_cache *c = *cache;
    if (!c)
        return;
    for (unsigned i = 0; i < BUCKETS; i++)
        while (c->buckets[i])
            batch_forget(c, c->buckets[i]);
    free(c);
    *cache = NULL;
}

static struct batch *batch_add(struct batch_cache *cache, uint64_t id)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return NULL;
    batch->id = id;
    batch->load = BATCH_LOADING;
    batch->refs = 1;
    batch->defaults.secret = true;
    list_init(&batch->idle);
    batch->next = *bucket_of(cache, id);
    *bucket_of(cache, id) = batch;
    return batch;
}

uint32_t batch_cache_loads(const struct batch_cache *cache)
{
    return cache->loads;
}

void batch_ref(struct batch *batch)
{
    batch->refs++;
}

/* A canceled batch that is over here is remembered like any other: its entries may still come out of an inbox. */
void batch_unref(struct batch_cache *cache, struct batch *batch)
{
    if (--batch->refs > 0)
        return;
    list_append(&cache->idle, &batch->idle);
    if (++cache->idle_count > BATCH_IDLE_MAX) {
        struct batch *oldest = container_of(cache->idle.next, struct batch, idle);
        if (oldest->id > cache->forgotten)
            cache->forgotten = oldest->id;
        batch_forget(cache, oldest);
        cache->idle_count--;
    }
}

static void batch_reuse(struct batch_cache *cache, struct batch *batch)
{
    if (batch->refs++ == 0) {
        list_remove(&batch->idle);
        cache->idle_count--;
    }
}

static void batch_set_hold(struct batch *batch, uint64_t number)
{
    if (number > batch->hold)
        batch->hold = number;
}

/* Whoever waits for a batch must not be told that it is over when it is not: a worker that starts anew does better. */
static void __attribute__((noreturn)) no_memory(void)
{
    log_error("out_of_memory", "where=batch_cache");
    abort();
}

/* False when it is none that can be filled. */
static bool read_places(struct batch *batch, const Muster__Internal__V1__BatchSpec *spec)
{
    struct fill_error error;
    if (!spec->n_variables)
        return true;
    struct fill *fill = malloc(sizeof *fill);
    if (!fill)
        no_memory();
    if (!fill_parse(fill, (struct slice){spec->command.data, spec->command.len}, (const char *const *)spec->variables,
                    spec->n_variables, &error)) {
        free(fill);
        return false;
    }
    free(batch->fill); /* it was read before */
    batch->fill = fill;
    buf_reset(&batch->defaults);
    buf_put(&batch->defaults, spec->default_values.data, spec->default_values.len);
    if (spec->default_values.len)
        explicit_bzero(spec->default_values.data, spec->default_values.len);
    return true;
}

/* What its device may say of it, and it is tried again: bit n for muster.v1.Outcome n. */
static unsigned retried_of(const struct batch *batch)
{
    return (batch->retry_after >> STATE_FAILED & 1) << MUSTER__V1__OUTCOME__OUTCOME_FAILED |
           (batch->retry_after >> STATE_REJECTED & 1) << MUSTER__V1__OUTCOME__OUTCOME_REJECTED;
}

static bool batch_read(struct batch *batch, struct slice bytes)
{
    struct arena arena = {0};
    Muster__Internal__V1__BatchSpec *spec =
        muster__internal__v1__batch_spec__unpack(arena_allocator(&arena), bytes.len, bytes.data);
    if (arena.failed)
        no_memory();
    if (!spec || !read_places(batch, spec)) {
        arena_free(&arena);
        return false;
    }
    batch->tenant = spec->tenant;
    batch->priority = (uint8_t)spec->priority;
    batch->created_ms = spec->created_ms;
    batch->expires_ms = spec->expires_ms;
    batch->deliver_by_ms = spec->deliver_by_ms ? spec->deliver_by_ms : INT64_MAX;
    batch->execution_ms = spec->execution_ms;
    batch->head_ms = spec->head_of_line_ms;
    batch->retry_after = spec->retry_after;
    batch->retry_attempts =
        (uint8_t)(spec->retry_attempts > STATE_ATTEMPTS_MAX ? STATE_ATTEMPTS_MAX : spec->retry_attempts);
    batch->keyed = spec->keyed;
    batch->canceled = batch->canceled || spec->canceled;
    batch_set_hold(batch, spec->hold);
    buf_free(&batch->command);
    buf_free(&batch->tail);
    buf_put(&batch->command, spec->command.data, spec->command.len);
    delivery_put_retried(&batch->tail, retried_of(batch));
    batch->retried_len = (uint8_t)buf_len(&batch->tail);
    if (batch->fill)
        delivery_put_front(&batch->tail, batch->expires_ms);
    else
        delivery_put_tail(&batch->tail, batch->expires_ms, (struct slice){spec->command.data, spec->command.len});
    arena_free(&arena);
    if (batch->command.failed || batch->tail.failed || batch->defaults.failed)
        no_memory();
    return true;
}

struct loading {
    struct batch_cache *cache;
    struct batch *batch;
    uint32_t doubts; /* of the cache, when it was asked for */
};

static void batch_start_load(struct batch_cache *cache, struct batch *batch);

static void batch_loaded(void *arg, enum err err, struct slice value)
{
    struct loading *l = arg;
    struct batch *batch = l->batch;
    struct batch_cache *cache = l->cache;
    bool old = l->doubts != cache->doubts;
    free(l);
    batch->load = BATCH_MISSING;
    /* A hint that came since may be of a Redis that has been filled meanwhile. */
    if (err != ERR_CLOSED && (old || (err == ERR_NOT_FOUND && batch->joined))) {
        batch_start_load(cache, batch);
        return;
    }
    if (!err && batch_read(batch, value)) {
        batch->load = BATCH_READY;
        batch->loaded = ++cache->loads;
    } else if (err != ERR_NOT_FOUND)
        log_warn("batch_unreadable", "batch=%llu error=%s", (unsigned long long)batch->id, err_name(err));
    struct buf waiters = batch->waiters;
    batch->waiters = (struct buf){0};
    struct waiter w;
    for (; buf_len(&waiters) >= sizeof w; buf_consume(&waiters, sizeof w)) {
        memcpy(&w, buf_head(&waiters), sizeof w);
        if (batch->load == BATCH_READY)
            batch_ref(batch);
        w.fn(w.arg, batch->load == BATCH_READY ? batch : NULL, w.a, w.b);
    }
    buf_free(&waiters);
    batch_unref(cache, batch);
}

static void batch_start_load(struct batch_cache *cache, struct batch *batch)
{
    struct loading *l = malloc(sizeof *l);
    if (!l)
        no_memory();
    *l = (struct loading){cache, batch, cache->doubts};
    batch->load = BATCH_LOADING;
    batch->joined = false;
    live_get_spec(cache->live, batch->id, batch_loaded, l);
}

void batch_cache_get(struct batch_cache *cache, uint64_t id, batch_fn *fn, void *arg, uint64_t a, uint64_t b)
{
    struct batch *batch = batch_cache_find(cache, id);
    bool fresh = !batch;
    if (fresh)
        batch = batch_add(cache, id);
    else
        batch_reuse(cache, batch);
    if (!batch)
        no_memory();
    if (batch->load == BATCH_READY) {
        fn(arg, batch, a, b);
        return;
    }
    buf_put(&batch->waiters, &(struct waiter){fn, arg, a, b}, sizeof(struct waiter));
    if (batch->waiters.failed)
        no_memory();
    if (fresh || batch->load == BATCH_MISSING)
        batch_start_load(cache, batch); /* keeps the reference until loaded */
    else {
        batch->joined = true;
        batch->refs--;
    }
}

void batch_cache_told(struct batch_cache *cache, uint64_t id, struct slice spec)
{
    if (id <= cache->forgotten || batch_cache_find(cache, id))
        return;
    struct batch *batch = batch_add(cache, id);
    if (!batch)
        no_memory();
    batch->load = BATCH_MISSING;
    if (batch_read(batch, spec)) {
        batch->load = BATCH_READY;
        batch->loaded = ++cache->loads;
    }
    batch_unref(cache, batch);
}

/* Known or not: without a reference. */
static struct batch *batch_note(struct batch_cache *cache, uint64_t id)
{
    struct batch *batch = batch_cache_find(cache, id);
    if (!batch && (batch = batch_add(cache, id))) {
        batch->load = BATCH_MISSING;
        batch_unref(cache, batch);
    }
    return batch;
}

struct batch *batch_cache_cancel(struct batch_cache *cache, uint64_t id)
{
    struct batch *batch = batch_note(cache, id);
    if (batch)
        batch->canceled = true;
    return batch;
}

struct batch *batch_cache_hold(struct batch_cache *cache, uint64_t id, uint64_t number)
{
    struct batch *batch = batch_note(cache, id);
    if (batch)
        batch_set_hold(batch, number);
    return batch;
}

uint32_t batch_cache_doubts(const struct batch_cache *cache)
{
    return cache->doubts;
}

void batch_cache_doubt(struct batch_cache *cache)
{
    cache->doubts++;
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct batch *b = cache->buckets[i]; b; b = b->next)
            if (b->load == BATCH_READY)
                b->load = BATCH_MISSING;
}
