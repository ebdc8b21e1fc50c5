#include "dispatcher/breakdown_count.h"

#include <string.h>

#include "dispatcher/present.h"

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

/* Milliseconds; commands live 40 days, and times of a block 49. */
static const uint64_t bucket_ends[BREAKDOWN_BUCKETS] = {
    1,       2,       5,           10,          20,          50,          100,       200,        500,
    SECOND,  2000,    5 * SECOND,  10 * SECOND, 20 * SECOND, 50 * SECOND, MINUTE,    2 * MINUTE, 5 * MINUTE,
    600000,  1200000, 30 * MINUTE, HOUR,        2 * HOUR,    4 * HOUR,    8 * HOUR,  12 * HOUR,  DAY,
    2 * DAY, 4 * DAY, 7 * DAY,     14 * DAY,    28 * DAY,    50 * DAY,    UINT64_MAX};

void breakdown_basis_free(struct breakdown_basis *b)
{
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++)
        target_set_free(&b->platforms[p]);
    wave_order_free(&b->order);
}

/* --- counting ----------------------------------------------------------------------------------------------------- */

static void count(uint32_t counts[STATE_COUNT], const struct view_block *block, const struct bitmap *slots)
{
    for (unsigned slot = bitmap_next(slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(slots, slot + 1)) {
        enum command_state state = state_of(block->states[slot]);
        if (state < STATE_COUNT)
            counts[state]++;
    }
}

/* Whoever is on no platform now, since he is not registered any more, counts to the first. */
static void count_platforms(struct breakdown *b, const struct breakdown_basis *basis, const struct view_block *block)
{
    struct bitmap rest = block->targets;
    for (unsigned p = 1; p < ROLLOUT_PLATFORMS; p++) {
        const struct target_block *there = target_set_find(&basis->platforms[p], block->block);
        if (!there)
            continue;
        struct bitmap slots = rest;
        bitmap_and(&slots, &there->slots);
        bitmap_and_not(&rest, &slots);
        count(b->platform[p], block, &slots);
    }
    count(b->platform[0], block, &rest);
}

static void count_waves(struct breakdown *b, const struct breakdown_basis *basis, uint32_t at,
                        const struct view_block *block)
{
    struct bitmap before = {{0}}, out, own;
    for (uint32_t wave = 0; wave < basis->plan.waves; wave++) {
        wave_order_out(&basis->order, &basis->plan, wave, at, block->block, &block->targets, &out);
        own = out;
        bitmap_and_not(&own, &before);
        before = out;
        count(b->wave[wave], block, &own);
    }
    if (!basis->plan.waves)
        count(b->wave[0], block, &block->targets);
}

static void took(struct breakdown *b, uint64_t ms)
{
    unsigned at = 0;
    while (ms > bucket_ends[at])
        at++;
    b->bucket[at]++;
    histogram_add(&b->took, (int64_t)ms);
    if (ms > b->slowest_ms)
        b->slowest_ms = ms;
}

static void count_latency(struct breakdown *b, const struct view_block *block)
{
    for (unsigned slot = bitmap_next(&block->targets, 0); slot < BLOCK_SLOTS;
         slot = bitmap_next(&block->targets, slot + 1)) {
        enum command_state state = state_of(block->states[slot]);
        if ((state == STATE_SUCCEEDED || state == STATE_FAILED || state == STATE_REJECTED) && block->times[slot])
            took(b, block->times[slot]);
    }
}

void breakdown_add(struct breakdown *b, const struct breakdown_basis *basis, uint32_t at,
                   const struct view_block *block)
{
    count(b->counts, block, &block->targets);
    count_platforms(b, basis, block);
    count_waves(b, basis, at, block);
    count_latency(b, block);
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

static uint32_t sum(const uint32_t counts[STATE_COUNT])
{
    uint32_t n = 0;
    for (unsigned s = 0; s < STATE_COUNT; s++)
        n += counts[s];
    return n;
}

static void *new_list(struct arena *a, size_t n)
{
    return arena_alloc(a, n * sizeof(void *));
}

static void present_platforms(struct arena *a, const struct breakdown *b, Muster__V1__Batch *batch)
{
    batch->platforms = new_list(a, ROLLOUT_PLATFORMS);
    for (unsigned p = 0; batch->platforms && p < ROLLOUT_PLATFORMS; p++) {
        uint32_t devices = sum(b->platform[p]);
        Muster__V1__PlatformProgress *out = devices ? arena_alloc(a, sizeof *out) : NULL;
        if (!out)
            continue;
        muster__v1__platform_progress__init(out);
        out->platform = (Muster__V1__Platform)p;
        out->devices = devices;
        out->progress = present_progress(a, b->platform[p]);
        batch->platforms[batch->n_platforms++] = out;
    }
}

static void present_waves(struct arena *a, const struct breakdown *b, Muster__V1__Batch *batch)
{
    batch->waves = new_list(a, ROLLOUT_WAVES);
    for (uint32_t w = 0; batch->waves && w < b->waves; w++) {
        Muster__V1__WaveProgress *out = arena_alloc(a, sizeof *out);
        if (!out)
            return;
        muster__v1__wave_progress__init(out);
        out->wave = w + 1;
        out->devices = sum(b->wave[w]);
        out->released = w < b->waves_out;
        out->progress = present_progress(a, b->wave[w]);
        batch->waves[batch->n_waves++] = out;
    }
}

static uint64_t quantile(const struct breakdown *b, double q)
{
    uint64_t ms = (uint64_t)histogram_quantile(&b->took, q);
    return ms < b->slowest_ms ? ms : b->slowest_ms;
}

static void present_latency(struct arena *a, const struct breakdown *b, Muster__V1__Batch *batch)
{
    Muster__V1__Latency *out = arena_alloc(a, sizeof *out);
    if (!out)
        return;
    muster__v1__latency__init(out);
    out->commands = (uint32_t)b->took.count;
    out->p50_ms = quantile(b, 0.5);
    out->p90_ms = quantile(b, 0.9);
    out->p99_ms = quantile(b, 0.99);
    out->max_ms = b->slowest_ms;
    out->buckets = new_list(a, BREAKDOWN_BUCKETS);
    for (unsigned i = 0; out->buckets && i < BREAKDOWN_BUCKETS; i++) {
        Muster__V1__LatencyBucket *bucket = b->bucket[i] ? arena_alloc(a, sizeof *bucket) : NULL;
        if (!bucket)
            continue;
        muster__v1__latency_bucket__init(bucket);
        bucket->up_to_ms = bucket_ends[i];
        bucket->commands = b->bucket[i];
        out->buckets[out->n_buckets++] = bucket;
    }
    batch->latency = out;
}

void breakdown_present(struct arena *a, const struct breakdown *b, unsigned wishes, Muster__V1__Batch *batch)
{
    batch->progress = present_progress(a, b->counts);
    batch->platforms = NULL;
    batch->waves = NULL;
    batch->latency = NULL;
    batch->n_platforms = batch->n_waves = 0;
    if (wishes & BREAKDOWN_PLATFORMS)
        present_platforms(a, b, batch);
    if (wishes & BREAKDOWN_WAVES)
        present_waves(a, b, batch);
    if (wishes & BREAKDOWN_LATENCY)
        present_latency(a, b, batch);
}
