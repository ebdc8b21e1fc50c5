/* Arithmetic of blocks: bitmaps over 1,024 slots, and state strings.
 * Owns: the layouts below. May call: lib/base/buf. Loop rule: none, pure.
 *
 * State string (Redis value `{t.b}:state:<batch>`): 4 bytes header — format version (1), zero, first slot (u16, little
 * endian) — then one state byte per slot from the first addressed to the last. At most 4 + 1,024 bytes. */
#ifndef MUSTER_STORE_BLOCK_H
#define MUSTER_STORE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/store/state.h"

#define BLOCK_SLOTS          1024u
#define BITMAP_BYTES         (BLOCK_SLOTS / 8)
#define STATE_STRING_VERSION 1
#define STATE_STRING_HEADER  4

static inline uint32_t block_of(uint32_t seq)
{
    return seq / BLOCK_SLOTS;
}
static inline uint16_t slot_of(uint32_t seq)
{
    return (uint16_t)(seq % BLOCK_SLOTS);
}
static inline uint32_t block_seq(uint32_t block, unsigned slot)
{
    return block * BLOCK_SLOTS + slot;
}

/* Bit n is bit n%8 (least significant first) of byte n/8. */
struct bitmap {
    uint8_t bytes[BITMAP_BYTES];
};
static inline void bitmap_set(struct bitmap *m, unsigned slot)
{
    m->bytes[slot / 8] = (uint8_t)(m->bytes[slot / 8] | 1u << slot % 8);
}
static inline void bitmap_clear(struct bitmap *m, unsigned slot)
{
    m->bytes[slot / 8] = (uint8_t)(m->bytes[slot / 8] & ~(1u << slot % 8));
}
static inline bool bitmap_test(const struct bitmap *m, unsigned slot)
{
    return m->bytes[slot / 8] >> slot % 8 & 1;
}
void bitmap_or(struct bitmap *into, const struct bitmap *with);
void bitmap_and_not(struct bitmap *into, const struct bitmap *with);
void bitmap_and(struct bitmap *into, const struct bitmap *with);
void bitmap_xor(struct bitmap *into, const struct bitmap *with);
/* The bits of every byte in the other order: between this layout and that of PostgreSQL's bit strings. */
void bitmap_reverse_bytes(struct bitmap *m);
unsigned bitmap_count(const struct bitmap *m);
/* Keeps the first `most` of them. Returns how many are left. */
uint32_t bitmap_cut(struct bitmap *m, uint32_t most);
/* First set slot at or after `from`, or BLOCK_SLOTS when there is none. */
unsigned bitmap_next(const struct bitmap *m, unsigned from);
/* Last set slot, or BLOCK_SLOTS when empty. */
unsigned bitmap_last(const struct bitmap *m);
/* The part that batch_block.targets keeps: *first gets a multiple of 8; returns the bytes, borrowed from `m`; empty
 * when none. */
struct slice bitmap_trim(const struct bitmap *m, uint16_t *first);
/* The reverse; false when first or length are out of bounds. */
MUST_CHECK bool bitmap_untrim(struct bitmap *m, unsigned first, struct slice bytes);

/* A state string, borrowed. */
struct state_string {
    uint16_t first, count;
    const uint8_t *states;
};
/* False when `bytes` is no state string: wrong version, length or bounds. Values of single bytes are not checked. */
MUST_CHECK bool state_string_parse(struct state_string *s, struct slice bytes);
/* Appends a state string for the slots set in `targets` (not empty), each in state byte `initial`. */
void state_string_put(struct buf *out, const struct bitmap *targets, uint8_t initial);
/* State byte of a slot; 0 outside the span. */
static inline uint8_t state_string_get(const struct state_string *s, unsigned slot)
{
    return slot >= s->first && slot < (unsigned)s->first + s->count ? s->states[slot - s->first] : 0;
}
/* When a command came to its state, as stored: milliseconds since its batch was accepted, 1 … 2^32 - 1 (0: no time). */
static inline uint32_t block_time_since(int64_t accepted_ms, int64_t at_ms)
{
    int64_t since;
    if (__builtin_sub_overflow(at_ms, accepted_ms, &since))
        since = at_ms < accepted_ms ? 1 : UINT32_MAX;
    return since < 1 ? 1 : since > UINT32_MAX ? UINT32_MAX : (uint32_t)since;
}
/* The reverse. */
static inline int64_t block_time_at(int64_t accepted_ms, uint32_t since)
{
    int64_t at_ms;
    return __builtin_add_overflow(accepted_ms, (int64_t)since, &at_ms) ? INT64_MAX : at_ms;
}
/* Adds, for each state number, how many of `n` state bytes have it. Bytes with a state outside the enum are not
 * counted. */
void state_count(uint32_t counts[STATE_COUNT], const uint8_t *states, size_t n);
/* How many of `n` state bytes are of a command that its device has got (state_given). */
uint32_t state_count_given(const uint8_t *states, size_t n);

#endif
