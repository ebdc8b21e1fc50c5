#include "lib/store/block.h"

void bitmap_or(struct bitmap *into, const struct bitmap *with)
{
    for (unsigned i = 0; i < BITMAP_BYTES; i++)
        into->bytes[i] |= with->bytes[i];
}

void bitmap_and_not(struct bitmap *into, const struct bitmap *with)
{
    for (unsigned i = 0; i < BITMAP_BYTES; i++)
        into->bytes[i] = (uint8_t)(into->bytes[i] & ~with->bytes[i]);
}

void bitmap_and(struct bitmap *into, const struct bitmap *with)
{
    for (unsigned i = 0; i < BITMAP_BYTES; i++)
        into->bytes[i] &= with->bytes[i];
}

void bitmap_xor(struct bitmap *into, const struct bitmap *with)
{
    for (unsigned i = 0; i < BITMAP_BYTES; i++)
        into->bytes[i] ^= with->bytes[i];
}

void bitmap_reverse_bytes(struct bitmap *m)
{
    for (unsigned i = 0; i < BITMAP_BYTES; i += 8) {
        uint64_t w = load_u64le(m->bytes + i);
        w = (w >> 4 & 0x0f0f0f0f0f0f0f0full) | (w & 0x0f0f0f0f0f0f0f0full) << 4;
        w = (w >> 2 & 0x3333333333333333ull) | (w & 0x3333333333333333ull) << 2;
        w = (w >> 1 & 0x5555555555555555ull) | (w & 0x5555555555555555ull) << 1;
        store_u64le(m->bytes + i, w);
    }
}

unsigned bitmap_count(const struct bitmap *m)
{
    unsigned n = 0;
    for (unsigned i = 0; i < BITMAP_BYTES; i += 8)
        n += (unsigned)__builtin_popcountll(load_u64le(m->bytes + i));
    return n;
}

unsigned bitmap_next(const struct bitmap *m, unsigned from)
{
    while (from < BLOCK_SLOTS) {
        uint64_t word = load_u64le(m->bytes + from / 64 * 8) >> from % 64;
        if (word)
            return from + (unsigned)__builtin_ctzll(word);
        from = (from / 64 + 1) * 64;
    }
    return BLOCK_SLOTS;
}

uint32_t bitmap_cut(struct bitmap *m, uint32_t most)
{
    uint32_t n = bitmap_count(m);
    if (n <= most)
        return n;
    unsigned slot = bitmap_next(m, 0);
    for (uint32_t i = 0; i < most; i++)
        slot = bitmap_next(m, slot + 1);
    for (; slot < BLOCK_SLOTS; slot = bitmap_next(m, slot + 1))
        bitmap_clear(m, slot);
    return most;
}

unsigned bitmap_last(const struct bitmap *m)
{
    for (unsigned i = BITMAP_BYTES; i-- > 0;)
        if (m->bytes[i])
            return i * 8 + 31 - (unsigned)__builtin_clz(m->bytes[i]);
    return BLOCK_SLOTS;
}

struct slice bitmap_trim(const struct bitmap *m, uint16_t *first)
{
    unsigned a = bitmap_next(m, 0), z = bitmap_last(m);
    if (a == BLOCK_SLOTS) {
        *first = 0;
        return (struct slice){m->bytes, 0};
    }
    *first = (uint16_t)(a / 8 * 8);
    return (struct slice){m->bytes + a / 8, z / 8 - a / 8 + 1};
}

bool bitmap_untrim(struct bitmap *m, unsigned first, struct slice bytes)
{
    if (first % 8 || first / 8 + bytes.len > BITMAP_BYTES)
        return false;
    memset(m, 0, sizeof *m);
    if (bytes.len)
        memcpy(m->bytes + first / 8, bytes.data, bytes.len);
    return true;
}

bool state_string_parse(struct state_string *s, struct slice bytes)
{
    if (bytes.len <= STATE_STRING_HEADER || bytes.len > STATE_STRING_HEADER + BLOCK_SLOTS)
        return false;
    uint16_t first = load_u16le(bytes.data + 2);
    size_t count = bytes.len - STATE_STRING_HEADER;
    if (bytes.data[0] != STATE_STRING_VERSION || bytes.data[1] != 0 || first + count > BLOCK_SLOTS)
        return false;
    *s = (struct state_string){first, (uint16_t)count, bytes.data + STATE_STRING_HEADER};
    return true;
}

void state_string_put(struct buf *out, const struct bitmap *targets, uint8_t initial)
{
    unsigned first = bitmap_next(targets, 0), last = bitmap_last(targets);
    if (first == BLOCK_SLOTS)
        return;
    size_t n = STATE_STRING_HEADER + last - first + 1;
    uint8_t *p = buf_reserve(out, n);
    if (!p)
        return;
    memset(p, 0, n);
    p[0] = STATE_STRING_VERSION;
    store_u16le(p + 2, (uint16_t)first);
    for (unsigned slot = first; slot < BLOCK_SLOTS; slot = bitmap_next(targets, slot + 1))
        p[STATE_STRING_HEADER + slot - first] = initial;
    buf_commit(out, n);
}

/* Whole blocks tend to be in one state: eight bytes alike are counted at once. For the rest four tables, so that bytes
 * of one state do not wait for the same counter. */
void state_count(uint32_t counts[STATE_COUNT], const uint8_t *states, size_t n)
{
    uint32_t c[4][16] = {{0}};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t eight;
        memcpy(&eight, states + i, sizeof eight);
        if (eight == states[i] * 0x0101010101010101u) {
            c[0][states[i] & 15] += 8;
            continue;
        }
        for (unsigned k = 0; k < 8; k++)
            c[k % 4][states[i + k] & 15]++;
    }
    for (; i < n; i++)
        c[0][states[i] & 15]++;
    for (unsigned s = 0; s < STATE_COUNT; s++)
        counts[s] += c[0][s] + c[1][s] + c[2][s] + c[3][s];
}

uint32_t state_count_given(const uint8_t *states, size_t n)
{
    uint32_t given = 0;
    for (size_t i = 0; i < n; i++)
        given += state_given(states[i]);
    return given;
}
