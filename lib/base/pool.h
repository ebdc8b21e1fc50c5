/* Small objects of one size, side by side: what lives as long as a connection does not lie scattered between what its
 * handshake took and freed, so that the system gets those pages back.
 * Owns: struct pool. May call: the C library. Loop rule: none, pure.
 *
 * Room once taken is kept for the next objects. Under AddressSanitizer each object has memory of its own, so that a use
 * after its end is seen. */
#ifndef MUSTER_BASE_POOL_H
#define MUSTER_BASE_POOL_H

#include <stddef.h>

struct pool {
    size_t size; /* bytes of an object */
    struct pool_chunk *chunks;
    struct pool_object *spare;
};

/* For objects of `size` bytes or fewer. */
void pool_init(struct pool *pool, size_t size);
/* Returns owned, zeroed memory for `size` bytes, aligned as a pointer, or NULL. Larger ones than the pool's come from
 * malloc.
 */
void *pool_take(struct pool *pool, size_t size);
/* Gives back what was taken with the same size; NULL is harmless. */
void pool_give(struct pool *pool, void *object, size_t size);
/* Frees the room of all objects, which must have been given back. */
void pool_free(struct pool *pool);

#endif
