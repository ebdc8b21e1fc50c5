#include "dispatcher/open_counts.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 64

void open_counts_init(struct open_counts *c)
{
    *c = (struct open_counts){0};
    list_init(&c->changed);
    list_init(&c->full);
}

void open_counts_free(struct open_counts *c)
{
    for (size_t i = 0; i < c->bucket_count; i++)
        for (struct open_counts_block *b = c->buckets[i], *next; b; b = next) {
            next = b->next;
            list_remove(&b->link);
            free(b);
        }
    free(c->buckets);
    open_counts_init(c);
}

static struct open_counts_block **bucket(const struct open_counts *c, uint32_t tenant, uint32_t block)
{
    uint64_t key = ((uint64_t)tenant << 32 | block) * 0x9e3779b97f4a7c15ull;
    return &c->buckets[(key >> 32) & (c->bucket_count - 1)];
}

static bool grow(struct open_counts *c)
{
    struct open_counts bigger = {.bucket_count = c->bucket_count ? c->bucket_count * 2 : BUCKETS_MIN};
    bigger.buckets = calloc(bigger.bucket_count, sizeof *bigger.buckets);
    if (!bigger.buckets)
        return false;
    for (size_t i = 0; i < c->bucket_count; i++)
        for (struct open_counts_block *b = c->buckets[i], *next; b; b = next) {
            struct open_counts_block **to = bucket(&bigger, b->tenant, b->block);
            next = b->next;
            b->next = *to;
            *to = b;
        }
    free(c->buckets);
    c->buckets = bigger.buckets;
    c->bucket_count = bigger.bucket_count;
    return true;
}

static struct open_counts_block *find(const struct open_counts *c, uint32_t tenant, uint32_t block)
{
    struct open_counts_block *b = NULL;
    if (c->bucket_count)
        for (b = *bucket(c, tenant, block); b && (b->tenant != tenant || b->block != block);)
            b = b->next;
    return b;
}

const struct open_counts_block *open_counts_find(const struct open_counts *c, uint32_t tenant, uint32_t block)
{
    return find(c, tenant, block);
}

struct open_counts_block *open_counts_of(struct open_counts *c, uint32_t tenant, uint32_t block)
{
    if (!c->limit)
        return NULL;
    struct open_counts_block *b = find(c, tenant, block);
    if (b)
        return b;
    if ((c->count >= c->bucket_count && !grow(c)) || !(b = calloc(1, sizeof *b))) {
        c->failed = true;
        return NULL;
    }
    b->tenant = tenant;
    b->block = block;
    list_init(&b->link);
    b->next = *bucket(c, tenant, block);
    *bucket(c, tenant, block) = b;
    c->count++;
    return b;
}

static void changed(struct open_counts *c, struct open_counts_block *b)
{
    list_remove(&b->link);
    list_append(&c->changed, &b->link);
}

void open_counts_add(struct open_counts *c, struct open_counts_block *b, unsigned slot)
{
    if (b->open[slot] == UINT16_MAX || ++b->open[slot] != c->limit)
        return;
    b->full++;
    c->devices++;
    changed(c, b);
}

void open_counts_add_all(struct open_counts *c, struct open_counts_block *b, unsigned first, const uint8_t *targets,
                         size_t bytes)
{
    bool some = false;
    uint16_t *open = &b->open[first];
    for (size_t i = 0; i < bytes; i++, open += 8) {
        /* As many as have one command less than the limit become full: that is rare, and looked at again. */
        for (unsigned k = 0; k < 8; k++) {
            uint16_t one = targets[i] >> k & 1 && open[k] != UINT16_MAX;
            open[k] = (uint16_t)(open[k] + one);
            some |= one && open[k] == c->limit;
        }
    }
    open = &b->open[first];
    uint16_t full = b->full;
    for (size_t i = 0; some && i < bytes * 8; i++)
        b->full = (uint16_t)(b->full + (targets[i / 8] >> i % 8 & 1 && open[i] == c->limit));
    c->devices += (uint64_t)(b->full - full);
    if (some)
        changed(c, b);
}

void open_counts_take(struct open_counts *c, struct open_counts_block *b, unsigned slot)
{
    if (b->open[slot] == UINT16_MAX || b->open[slot] == 0 || b->open[slot]-- != c->limit)
        return;
    b->full--;
    c->devices--;
    changed(c, b);
}

struct open_counts_block *open_counts_next(struct open_counts *c, int64_t before_us, int64_t now_us)
{
    struct list *l = list_pop(&c->changed);
    if (!l && !list_empty(&c->full) && container_of(c->full.next, struct open_counts_block, link)->told_us < before_us)
        l = list_pop(&c->full);
    if (!l)
        return NULL;
    struct open_counts_block *b = container_of(l, struct open_counts_block, link);
    b->told_us = now_us;
    if (b->full)
        list_append(&c->full, &b->link);
    return b;
}

void open_counts_full(const struct open_counts *c, const struct open_counts_block *b, struct bitmap *out)
{
    memset(out, 0, sizeof *out);
    for (unsigned slot = 0; b->full && slot < BLOCK_SLOTS; slot++)
        if (b->open[slot] >= c->limit)
            bitmap_set(out, slot);
}
