#include "bench/fleet/timers.h"

#include <assert.h>
#include <stdlib.h>

#define NOWHERE UINT32_MAX

struct place {
    int64_t due_us;
    uint32_t item;
};

struct timers {
    struct place *heap;
    uint32_t *where; /* index in the heap by item, or NOWHERE */
    uint32_t used, count;
};

struct timers *timers_new(uint32_t count)
{
    struct timers *t = calloc(1, sizeof *t);

    if (!t)
        return NULL;
    t->heap = malloc((count ? count : 1) * sizeof *t->heap);
    t->where = malloc((count ? count : 1) * sizeof *t->where);
    t->count = count;
    if (!t->heap || !t->where) {
        timers_free(&t);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++)
        t->where[i] = NOWHERE;
    return t;
}

void timers_free(struct timers **timers)
{
    if (!*timers)
        return;
    free((*timers)->heap);
    free((*timers)->where);
    free(*timers);
    *timers = NULL;
}

static void put(struct timers *t, uint32_t at, struct place p)
{
    t->heap[at] = p;
    t->where[p.item] = at;
}

static void sift_up(struct timers *t, uint32_t at, struct place p)
{
    while (at > 0 && t->heap[(at - 1) / 4].due_us > p.due_us) {
        put(t, at, t->heap[(at - 1) / 4]);
        at = (at - 1) / 4;
    }
    put(t, at, p);
}

static void sift_down(struct timers *t, uint32_t at, struct place p)
{
    for (;;) {
        uint32_t first = at * 4 + 1, least = first;
        if (first >= t->used)
            break;
        for (uint32_t i = first + 1; i < first + 4 && i < t->used; i++)
            if (t->heap[i].due_us < t->heap[least].due_us)
                least = i;
        if (t->heap[least].due_us >= p.due_us)
            break;
        put(t, at, t->heap[least]);
        at = least;
    }
    put(t, at, p);
}

void timers_set(struct timers *timers, uint32_t item, int64_t due_us)
{
    assert(item < timers->count);
    uint32_t at = timers->where[item];
    struct place p = {due_us, item};

    if (at == NOWHERE)
        sift_up(timers, timers->used++, p);
    else if (due_us < timers->heap[at].due_us)
        sift_up(timers, at, p);
    else
        sift_down(timers, at, p);
}

void timers_sooner(struct timers *timers, uint32_t item, int64_t due_us)
{
    assert(item < timers->count);
    uint32_t at = timers->where[item];

    if (at == NOWHERE || due_us < timers->heap[at].due_us)
        timers_set(timers, item, due_us);
}

void timers_clear(struct timers *timers, uint32_t item)
{
    assert(item < timers->count);
    uint32_t at = timers->where[item];

    if (at == NOWHERE)
        return;
    timers->where[item] = NOWHERE;
    struct place last = timers->heap[--timers->used];
    if (last.item == item)
        return;
    if (at > 0 && timers->heap[(at - 1) / 4].due_us > last.due_us)
        sift_up(timers, at, last);
    else
        sift_down(timers, at, last);
}

int64_t timers_first(const struct timers *timers)
{
    return timers->used ? timers->heap[0].due_us : INT64_MAX;
}

bool timers_take(struct timers *timers, int64_t now_us, uint32_t *item)
{
    if (timers_first(timers) > now_us)
        return false;
    *item = timers->heap[0].item;
    timers_clear(timers, *item);
    return true;
}
