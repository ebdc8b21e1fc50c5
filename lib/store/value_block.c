#include "lib/store/value_block.h"

#include <stdlib.h>
#include <string.h>

#include "proto/fill.h"

#define RANK_SLOTS 64 /* slots of one entry of `ranks` */

void value_block_begin(struct buf *out, unsigned variables, const struct bitmap *slots)
{
    uint16_t first;
    struct slice bitmap = bitmap_trim(slots, &first);
    buf_put_u8(out, VALUE_BLOCK_VERSION);
    buf_put_u8(out, (uint8_t)variables);
    buf_put_u16le(out, bitmap.len ? first : 0);
    buf_put_u16le(out, (uint16_t)bitmap.len);
    buf_put_u16le(out, 0);
    buf_put(out, bitmap.data, bitmap.len);
}

/* Slots of the bitmap before this one. */
static unsigned rank(const struct value_block *v, unsigned slot)
{
    unsigned word = slot / RANK_SLOTS;
    uint64_t bits = load_u64le(v->slots.bytes + word * 8) & ((1ull << slot % RANK_SLOTS) - 1);
    return v->ranks[word] + (unsigned)__builtin_popcountll(bits);
}

static bool read_header(struct value_block *v, struct slice *rest, unsigned variables)
{
    uint8_t version, count;
    uint16_t first, len, zero;
    struct slice bitmap;
    if (!slice_u8(rest, &version) || version != VALUE_BLOCK_VERSION || !slice_u8(rest, &count) || count != variables ||
        !slice_u16le(rest, &first) || !slice_u16le(rest, &len) || !slice_u16le(rest, &zero) ||
        !slice_bytes(rest, len, &bitmap))
        return false;
    return bitmap_untrim(&v->slots, first, bitmap);
}

enum err value_block_read(struct value_block *v, struct slice bytes, unsigned variables)
{
    struct slice rest = bytes, one;
    memset(v, 0, sizeof *v);
    v->bytes = bytes;
    if (variables < 1 || variables > FILL_VARIABLES_MAX || bytes.len > UINT32_MAX || !read_header(v, &rest, variables))
        return ERR_INVALID;
    for (unsigned word = 0; word < BITMAP_BYTES / 8; word++) {
        v->ranks[word] = v->count;
        v->count = (uint16_t)(v->count + __builtin_popcountll(load_u64le(v->slots.bytes + word * 8)));
    }
    v->places = malloc((v->count + 1u) * sizeof *v->places);
    if (!v->places)
        return ERR_NOMEM;
    for (unsigned i = 0; i < v->count; i++) {
        v->places[i] = (uint32_t)(bytes.len - rest.len);
        if (!fill_take(&rest, variables, &one)) {
            value_block_free(v);
            return ERR_INVALID;
        }
    }
    v->places[v->count] = (uint32_t)(bytes.len - rest.len);
    if (rest.len) {
        value_block_free(v);
        return ERR_INVALID;
    }
    return ERR_OK;
}

void value_block_free(struct value_block *v)
{
    free(v->places);
    memset(v, 0, sizeof *v);
}

struct slice value_block_get(const struct value_block *v, unsigned slot)
{
    if (slot >= BLOCK_SLOTS || !v->count || !bitmap_test(&v->slots, slot))
        return (struct slice){0};
    unsigned i = rank(v, slot);
    return (struct slice){v->bytes.data + v->places[i], v->places[i + 1] - v->places[i]};
}
