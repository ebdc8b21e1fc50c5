#include "dispatcher/target_set.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

void target_set_free(struct target_set *set)
{
    free(set->blocks);
    *set = (struct target_set){0};
}

/* Index of the first block that is not below `block`. */
static size_t lower_bound(const struct target_set *set, uint32_t block)
{
    size_t low = 0, high = set->count;
    if (high && set->blocks[high - 1].block < block)
        return high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (set->blocks[mid].block < block)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct target_block *insert(struct target_set *set, size_t at, uint32_t block)
{
    if (set->count == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 16;
        struct target_block *blocks = realloc(set->blocks, cap * sizeof *blocks);
        if (!blocks) {
            set->failed = true;
            return NULL;
        }
        set->blocks = blocks;
        set->cap = cap;
    }
    memmove(&set->blocks[at + 1], &set->blocks[at], (set->count - at) * sizeof *set->blocks);
    set->count++;
    set->blocks[at] = (struct target_block){.block = block};
    return &set->blocks[at];
}

void target_set_add(struct target_set *set, uint32_t block, const struct bitmap *slots)
{
    if (bitmap_next(slots, 0) == BLOCK_SLOTS)
        return;
    size_t at = lower_bound(set, block);
    bool there = at < set->count && set->blocks[at].block == block;
    struct target_block *b = there ? &set->blocks[at] : insert(set, at, block);
    if (b)
        bitmap_or(&b->slots, slots);
}

/* Numbers are dense, so a table with a place for every block up to the highest is small: 4 bytes per 1,024 devices. */
void target_set_fill(struct target_set *set, const int64_t *seqs, size_t n)
{
    int64_t highest = -1;
    for (size_t i = 0; i < n; i++)
        if (seqs[i] > highest && seqs[i] <= UINT32_MAX)
            highest = seqs[i];
    if (highest < 0)
        return;
    size_t size = (size_t)block_of((uint32_t)highest) + 1;
    uint32_t *place = calloc(size, sizeof *place);
    if (!place) {
        set->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (seqs[i] >= 0 && seqs[i] <= highest)
            place[block_of((uint32_t)seqs[i])] = 1;
    for (size_t block = 0; block < size && !set->failed; block++)
        if (place[block]) {
            place[block] = (uint32_t)set->count;
            insert(set, set->count, (uint32_t)block);
        }
    for (size_t i = 0; i < n && !set->failed; i++)
        if (seqs[i] >= 0 && seqs[i] <= highest)
            bitmap_set(&set->blocks[place[block_of((uint32_t)seqs[i])]].slots, slot_of((uint32_t)seqs[i]));
    free(place);
}

uint32_t target_set_count(const struct target_set *set)
{
    uint32_t n = 0;
    for (size_t i = 0; i < set->count; i++)
        n += bitmap_count(&set->blocks[i].slots);
    return n;
}

const struct target_block *target_set_find(const struct target_set *set, uint32_t block)
{
    size_t at = lower_bound(set, block);
    return at < set->count && set->blocks[at].block == block ? &set->blocks[at] : NULL;
}

uint32_t target_set_common(const struct target_set *set, uint32_t block, const struct bitmap *slots)
{
    const struct target_block *b = target_set_find(set, block);
    if (!b)
        return 0;
    struct bitmap outside = b->slots;
    bitmap_and_not(&outside, slots);
    return bitmap_count(&b->slots) - bitmap_count(&outside);
}

void target_set_subtract(struct target_set *set, const struct target_set *others)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++) {
        struct target_block *b = &set->blocks[i];
        const struct target_block *out = target_set_find(others, b->block);
        if (out)
            bitmap_and_not(&b->slots, &out->slots);
        if (bitmap_next(&b->slots, 0) < BLOCK_SLOTS)
            set->blocks[kept++] = *b;
    }
    set->count = kept;
}

void target_set_digest(const struct target_set *set, int32_t tenant, char out[TARGET_DIGEST_TEXT])
{
    static const char title[] = "muster target 1";
    crypto_hash_sha256_state h;
    uint8_t number[4], digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_init(&h);
    crypto_hash_sha256_update(&h, (const uint8_t *)title, sizeof title);
    store_u32le(number, (uint32_t)tenant);
    crypto_hash_sha256_update(&h, number, sizeof number);
    for (size_t i = 0; i < set->count; i++) {
        store_u32le(number, set->blocks[i].block);
        crypto_hash_sha256_update(&h, number, sizeof number);
        crypto_hash_sha256_update(&h, set->blocks[i].slots.bytes, BITMAP_BYTES);
    }
    crypto_hash_sha256_final(&h, digest);
    sodium_bin2hex(out, TARGET_DIGEST_TEXT, digest, sizeof digest);
}

/* Open addressing at most half full; entries are index + 1. */
size_t id_set_unique(const char *const *ids, size_t n, bool keep_last, uint32_t *kept)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    uint32_t *table = calloc(size, sizeof *table);
    if (!table)
        return SIZE_MAX;
    unsigned char key[crypto_shorthash_KEYBYTES], hash[crypto_shorthash_BYTES];
    crypto_shorthash_keygen(key);
    size_t count = 0;
    for (size_t k = 0; k < n; k++) {
        size_t i = keep_last ? n - 1 - k : k;
        crypto_shorthash(hash, (const unsigned char *)ids[i], strlen(ids[i]), key);
        size_t at = load_u64le(hash) & (size - 1);
        while (table[at] && strcmp(ids[table[at] - 1], ids[i]) != 0)
            at = (at + 1) & (size - 1);
        if (!table[at]) {
            table[at] = (uint32_t)i + 1;
            kept[count++] = (uint32_t)i;
        }
    }
    free(table);
    for (size_t k = 0; keep_last && k < count / 2; k++) {
        uint32_t swap = kept[k];
        kept[k] = kept[count - 1 - k];
        kept[count - 1 - k] = swap;
    }
    return count;
}
