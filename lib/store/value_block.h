/* The values of a batch's devices in one block, as PostgreSQL and Redis keep them.
 * Owns: the layout. May call: lib/store/block, proto/fill, lib/base. Loop rule: none, pure.
 *
 * 8 bytes of header — format version (1), number of variables (u8), first slot (u16, a multiple of 8), bytes of the
 * bitmap (u16), zero (u16), all little endian — then the bitmap of the slots that have values, from the first on, then
 * the values of each of them in order, packed (proto/fill.h). */
#ifndef MUSTER_STORE_VALUE_BLOCK_H
#define MUSTER_STORE_VALUE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/block.h"

#define VALUE_BLOCK_VERSION 1
#define VALUE_BLOCK_HEADER  8

/* Appends a block's header and bitmap; the packed values of each slot are to follow, in order. */
void value_block_begin(struct buf *out, unsigned variables, const struct bitmap *slots);

/* One that was read: where the values of each slot stand. */
struct value_block {
    struct bitmap slots;
    uint16_t ranks[BITMAP_BYTES / 8]; /* slots before each eight bytes of the bitmap */
    uint16_t count;
    struct slice bytes;
    uint32_t *places; /* owned: count + 1 places in `bytes` */
};
/* `bytes` are borrowed as long as it is used. ERR_INVALID: it is none, or of another number of variables; ERR_NOMEM. */
MUST_CHECK enum err value_block_read(struct value_block *v, struct slice bytes, unsigned variables);
void value_block_free(struct value_block *v);
/* The packed values of a slot, borrowed; empty when it has none. */
struct slice value_block_get(const struct value_block *v, unsigned slot);

#endif
