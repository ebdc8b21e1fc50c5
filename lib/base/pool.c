#include "lib/base/pool.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT   sizeof(void *)
#define CHUNK_BYTES 65536 /* below malloc's own threshold for mmap, well above a page */

#if defined(__SANITIZE_ADDRESS__)
#define ALONE true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ALONE true
#endif
#endif
#ifndef ALONE
#define ALONE false
#endif

struct pool_object {
    struct pool_object *next;
};

struct pool_chunk {
    struct pool_chunk *next;
    uint8_t room[];
};

void pool_init(struct pool *pool, size_t size)
{
    *pool = (struct pool){.size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT};
}

static bool grow(struct pool *pool)
{
    struct pool_chunk *chunk = malloc(CHUNK_BYTES);
    if (!chunk)
        return false;
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    size_t count = (CHUNK_BYTES - sizeof *chunk) / pool->size;
    while (count-- > 0) {
        struct pool_object *object = (struct pool_object *)(chunk->room + count * pool->size);
        object->next = pool->spare;
        pool->spare = object;
    }
    return true;
}

static bool is_alone(const struct pool *pool, size_t size)
{
    return ALONE || size > pool->size;
}

void *pool_take(struct pool *pool, size_t size)
{
    if (is_alone(pool, size))
        return calloc(1, size);
    if (!pool->spare && !grow(pool))
        return NULL;
    struct pool_object *object = pool->spare;
    assert(object);
    pool->spare = object->next;
    return memset(object, 0, size);
}

void pool_give(struct pool *pool, void *object, size_t size)
{
    if (is_alone(pool, size)) {
        free(object);
    } else if (object) {
        ((struct pool_object *)object)->next = pool->spare;
        pool->spare = object;
    }
}

void pool_free(struct pool *pool)
{
    struct pool_chunk *chunk;
    while ((chunk = pool->chunks)) {
        pool->chunks = chunk->next;
        free(chunk);
    }
    pool->spare = NULL;
}
