/* Bump allocator: many small allocations that die together, such as a decoded message.
 * Owns: struct arena. May call: the C library. Loop rule: none, pure. */
#ifndef MUSTER_BASE_ARENA_H
#define MUSTER_BASE_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* Zero-initialised is empty, valid and without limit. Must not be moved while a pointer of arena_allocator is in use.
 */
struct arena {
    struct arena_chunk *chunks; /* newest first; small allocations are cut from it */
    struct arena_chunk *large;  /* allocations with memory of their own, given back when they are freed */
    size_t used;                /* of chunks->size */
    size_t held;                /* bytes taken from the system */
    size_t limit;               /* of `held`; 0: none */
    bool failed;                /* sticky: memory or the limit ran out */
    ProtobufCAllocator allocator;
};

/* Returns borrowed memory of `size` bytes aligned to 16, or NULL (and sets failed). */
void *arena_alloc(struct arena *a, size_t size);
/* Copies `len` bytes and adds a NUL; NULL without memory. */
char *arena_copy(struct arena *a, const void *data, size_t len);
/* For protobuf_c_message_unpack. Its free gives back large blocks (the decoder's scratch) and ignores small ones. */
ProtobufCAllocator *arena_allocator(struct arena *a);
/* Moves all of `from` into `into`, which then lives as long as `into`; `from` is empty afterwards. */
void arena_absorb(struct arena *into, struct arena *from);
/* Forgets all allocations; keeps one small chunk for the next use. */
void arena_reset(struct arena *a);
/* Frees everything. */
void arena_free(struct arena *a);

#endif
