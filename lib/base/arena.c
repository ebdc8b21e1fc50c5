#include "lib/base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CHUNK 2048u /* with its header: a usual request fits */
#define CHUNK_MAX   (256u * 1024)
/* From here on an allocation gets memory of its own, so that protobuf-c's scan tables, which double, can be given back.
 */
#define LARGE (32u * 1024)
#define PAGE  4096u

/* A large block starts a page, its content follows the header; cut_small never hands out an address with that offset in
 * a page. So free() can tell the two apart by the address alone. */
struct arena_chunk {
    struct arena_chunk *next, *prev; /* prev: large blocks only */
    size_t size;                     /* all of it, this header included */
    size_t unused;                   /* pads the header to 32 bytes */
};
#define HEADER sizeof(struct arena_chunk)

static bool over_limit(const struct arena *a, size_t more)
{
    return a->limit && (more > a->limit || a->held > a->limit - more);
}

static void *alloc_large(struct arena *a, size_t size)
{
    size_t all = (HEADER + size + PAGE - 1) & ~(size_t)(PAGE - 1);
    if (over_limit(a, all))
        return NULL;
    struct arena_chunk *block = aligned_alloc(PAGE, all);
    if (!block)
        return NULL;
    block->size = all;
    block->prev = NULL;
    block->next = a->large;
    if (a->large)
        a->large->prev = block;
    a->large = block;
    a->held += all;
    return (char *)block + HEADER;
}

static bool add_chunk(struct arena *a, size_t size)
{
    size_t all = a->chunks ? a->chunks->size * 2 : FIRST_CHUNK;
    if (all > CHUNK_MAX)
        all = CHUNK_MAX;
    while (all < size + HEADER + 16)
        all *= 2;
    if (over_limit(a, all))
        return false;
    struct arena_chunk *chunk = malloc(all);
    if (!chunk)
        return false;
    chunk->size = all;
    chunk->next = a->chunks;
    a->chunks = chunk;
    a->used = HEADER;
    a->held += all;
    return true;
}

static void *cut_small(struct arena *a, size_t size)
{
    if (!a->chunks || a->chunks->size - a->used < size + 16) {
        if (!add_chunk(a, size))
            return NULL;
    }
    char *p = (char *)a->chunks + a->used;
    if (((uintptr_t)p & (PAGE - 1)) == HEADER) {
        p += 16;
        a->used += 16;
    }
    a->used += size;
    return p;
}

void *arena_alloc(struct arena *a, size_t size)
{
    void *p = NULL;
    if (size <= SIZE_MAX / 2)
        p = size >= LARGE ? alloc_large(a, size) : cut_small(a, size ? (size + 15) & ~(size_t)15 : 16);
    if (!p)
        a->failed = true;
    return p;
}

char *arena_copy(struct arena *a, const void *data, size_t len)
{
    char *p = arena_alloc(a, len + 1);
    if (p) {
        if (len)
            memcpy(p, data, len);
        p[len] = 0;
    }
    return p;
}

static void *allocator_alloc(void *data, size_t size)
{
    return arena_alloc(data, size);
}

static void allocator_free(void *data, void *p)
{
    struct arena *a = data;
    if (!p || ((uintptr_t)p & (PAGE - 1)) != HEADER)
        return;
    struct arena_chunk *block = (struct arena_chunk *)(void *)((char *)p - HEADER);
    if (block->prev)
        block->prev->next = block->next;
    else
        a->large = block->next;
    if (block->next)
        block->next->prev = block->prev;
    a->held -= block->size;
    free(block);
}

ProtobufCAllocator *arena_allocator(struct arena *a)
{
    a->allocator = (ProtobufCAllocator){allocator_alloc, allocator_free, a};
    return &a->allocator;
}

static struct arena_chunk **tail(struct arena_chunk **list)
{
    while (*list)
        list = &(*list)->next;
    return list;
}

void arena_absorb(struct arena *into, struct arena *from)
{
    /* The chunk in use stays in front. */
    *tail(into->chunks ? &into->chunks->next : &into->chunks) = from->chunks;
    if (into->chunks && into->chunks == from->chunks)
        into->used = from->used;
    if (from->large) {
        struct arena_chunk *last = from->large;
        while (last->next)
            last = last->next;
        last->next = into->large;
        if (into->large)
            into->large->prev = last;
        into->large = from->large;
    }
    into->held += from->held;
    *from = (struct arena){.limit = from->limit};
}

static void free_list(struct arena_chunk *list)
{
    while (list) {
        struct arena_chunk *next = list->next;
        free(list);
        list = next;
    }
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep = NULL;
    for (struct arena_chunk **c = &a->chunks; *c; c = &(*c)->next) {
        if ((*c)->size == FIRST_CHUNK) {
            keep = *c;
            *c = keep->next;
            break;
        }
    }
    free_list(a->chunks);
    free_list(a->large);
    if (keep)
        keep->next = NULL;
    a->chunks = keep;
    a->large = NULL;
    a->used = HEADER;
    a->held = keep ? keep->size : 0;
    a->failed = false;
}

void arena_free(struct arena *a)
{
    free_list(a->chunks);
    free_list(a->large);
    *a = (struct arena){0};
}
