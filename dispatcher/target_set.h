/* A set of devices of one tenant as bitmaps, block by block, and the set of ids it is made from.
 * Owns: struct target_set, struct id_set. May call: lib/store/block, lib/base. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_TARGET_SET_H
#define MUSTER_DISPATCHER_TARGET_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/store/block.h"

struct target_block {
    uint32_t block;
    struct bitmap slots;
};

/* Zero-initialised is empty and valid. Blocks are in order and not empty. */
struct target_set {
    struct target_block *blocks;
    size_t count, cap;
    bool failed; /* sticky: memory ran out */
};

void target_set_free(struct target_set *set);
/* Adds the devices of one block. Cheap when blocks come in order. */
void target_set_add(struct target_set *set, uint32_t block, const struct bitmap *slots);
/* Fills an empty set with these numbers, in any order, repeated or not; negative ones are passed over. */
void target_set_fill(struct target_set *set, const int64_t *seqs, size_t n);
uint32_t target_set_count(const struct target_set *set);
/* The block, or NULL. */
const struct target_block *target_set_find(const struct target_set *set, uint32_t block);
/* How many of `slots` of this block are in the set. */
uint32_t target_set_common(const struct target_set *set, uint32_t block, const struct bitmap *slots);

/* Takes the devices of `others` out; blocks that become empty go. */
void target_set_subtract(struct target_set *set, const struct target_set *others);
/* SHA-256 over tenant and devices, as hexadecimal text: the tenant, then each block's number (both u32, little endian)
 * and its 128 bytes, in order. Alike for the same devices, however they were found. */
#define TARGET_DIGEST_TEXT 65 /* with the final NUL */
void target_set_digest(const struct target_set *set, int32_t tenant, char out[TARGET_DIGEST_TEXT]);

/* Takes repeated ids out of a list, keeping the first (or with `keep_last` the last) of each in its order: fills `kept`
 * (room for n) with their indexes. Returns how many, or SIZE_MAX without memory. Nobody can choose ids that make it
 * slow: keyed hash. */
size_t id_set_unique(const char *const *ids, size_t n, bool keep_last, uint32_t *kept);

#endif
