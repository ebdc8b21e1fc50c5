#include "dispatcher/wave_order.h"

#include <stdlib.h>

void wave_order_free(struct wave_order *o)
{
    target_set_free(&o->canary);
    target_set_free(&o->joined);
    free(o->before);
    *o = (struct wave_order){0};
}

/* Those of the block who stand in the order. */
static struct bitmap ordered(const struct wave_order *o, uint32_t block, const struct bitmap *targets)
{
    struct bitmap slots = *targets;
    const struct target_set *sets[] = {&o->canary, &o->joined};
    for (int i = 0; i < 2; i++) {
        const struct target_block *b = target_set_find(sets[i], block);
        if (b)
            bitmap_and_not(&slots, &b->slots);
    }
    return slots;
}

void wave_order_add(struct wave_order *o, uint32_t block, const struct bitmap *targets)
{
    if (o->count + 2 > o->cap) {
        uint32_t cap = o->cap ? o->cap * 2 : 64;
        uint32_t *before = realloc(o->before, cap * sizeof *before);
        if (!before) {
            o->failed = true;
            return;
        }
        o->before = before;
        o->cap = cap;
    }
    struct bitmap slots = ordered(o, block, targets);
    uint32_t so_far = o->count ? o->before[o->count] : 0, n = bitmap_count(&slots);
    o->before[o->count++] = so_far;
    o->before[o->count] = so_far + n;
    uint32_t canary = target_set_common(&o->canary, block, targets);
    o->canary_devices += canary;
    o->devices += n + canary;
}

/* Devices of this wave and all before that stand in the order. */
static uint32_t limit_of(const struct wave_order *o, const struct rollout *r, uint32_t wave)
{
    if (!r->waves || wave + 1 >= r->waves)
        return UINT32_MAX;
    uint32_t limit = r->wave[wave].limit;
    return limit > o->canary_devices ? limit - o->canary_devices : 0;
}

static unsigned rank_in(const struct bitmap *slots, unsigned slot)
{
    unsigned n = 0;
    for (unsigned i = 0; i < slot / 8; i++)
        n += (unsigned)__builtin_popcount(slots->bytes[i]);
    return n + (unsigned)__builtin_popcount(slots->bytes[slot / 8] & ((1u << slot % 8) - 1));
}

uint32_t wave_order_of(const struct wave_order *o, const struct rollout *r, uint32_t at, uint32_t block,
                       const struct bitmap *targets, unsigned slot)
{
    const struct target_block *canary = target_set_find(&o->canary, block),
                              *joined = target_set_find(&o->joined, block);
    uint32_t last = r->waves ? r->waves - 1 : 0, wave = 0;
    if (canary && bitmap_test(&canary->slots, slot))
        return 0;
    if (joined && bitmap_test(&joined->slots, slot))
        return last;
    struct bitmap slots = ordered(o, block, targets);
    uint32_t place = o->before[at] + rank_in(&slots, slot);
    while (wave < last && place >= limit_of(o, r, wave))
        wave++;
    return wave;
}

void wave_order_out(const struct wave_order *o, const struct rollout *r, uint32_t wave, uint32_t at, uint32_t block,
                    const struct bitmap *targets, struct bitmap *out)
{
    *out = *targets;
    if (!r->waves || wave + 1 >= r->waves)
        return; /* all */
    struct bitmap slots = ordered(o, block, targets);
    const struct target_block *canary = target_set_find(&o->canary, block);
    *out = (struct bitmap){{0}};
    if (canary) {
        *out = *targets;
        bitmap_and(out, &canary->slots);
    }
    uint32_t limit = limit_of(o, r, wave), place = o->before[at];
    if (place + bitmap_count(&slots) <= limit) {
        bitmap_or(out, &slots);
        return;
    }
    for (unsigned slot = bitmap_next(&slots, 0); slot < BLOCK_SLOTS && place < limit;
         slot = bitmap_next(&slots, slot + 1))
        if (place++ < limit)
            bitmap_set(out, slot);
}
