#include "dispatcher/schedule.h"

#include <stdlib.h>
#include <string.h>

void schedule_free(struct schedule *s)
{
    for (size_t i = 0; i < s->count; i++)
        target_set_free(&s->zones[i].devices);
    free(s->zones);
    *s = (struct schedule){0};
}

bool schedule_make(struct schedule *s, size_t zones)
{
    *s = (struct schedule){.zones = calloc(zones ? zones : 1, sizeof *s->zones), .count = zones};
    return s->zones != NULL;
}

struct schedule_turn schedule_turn(struct schedule *s, int64_t now_ms)
{
    struct schedule_turn t = {.next_ms = INT64_MAX};
    for (size_t i = 0; i < s->count; i++) {
        struct schedule_zone *z = &s->zones[i];
        bool open = z->opens_ms <= now_ms && now_ms < z->closes_ms;
        t.more = t.more || (open && !z->open);
        t.less = t.less || (!open && z->open);
        t.any = t.any || open;
        z->open = open;
        int64_t next = now_ms < z->opens_ms ? z->opens_ms : z->closes_ms;
        if (z->closes_ms && next < t.next_ms)
            t.next_ms = next;
    }
    return t;
}

void schedule_follow(struct schedule *s, const struct schedule *old, const size_t *same)
{
    for (size_t i = 0; i < s->count; i++)
        s->zones[i].open = same[i] < old->count && old->zones[same[i]].open;
}

void schedule_closed(const struct schedule *s, uint32_t block, struct bitmap *out)
{
    struct bitmap zoned = {{0}}, open = {{0}};
    for (size_t i = 1; i < s->count; i++) {
        const struct target_block *b = target_set_find(&s->zones[i].devices, block);
        if (!b)
            continue;
        bitmap_or(&zoned, &b->slots);
        if (s->zones[i].open)
            bitmap_or(&open, &b->slots);
    }
    bool rest_open = s->count && s->zones[0].open;
    memset(out->bytes, rest_open ? 0 : 0xff, sizeof out->bytes);
    if (rest_open)
        bitmap_or(out, &zoned);
    bitmap_and_not(out, &open);
}
