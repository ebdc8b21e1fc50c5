/* Variable-length integers, and the wire types they stand in (Protocol Buffers encoding,
 * https://protobuf.dev/programming-guides/encoding/).
 * Owns: nothing. May call: lib/base/buf. Loop rule: none, pure. */
#ifndef MUSTER_PROTO_VARINT_H
#define MUSTER_PROTO_VARINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

#define VARINT_MAX 10 /* bytes */

/* Bytes of its encoding, 1 to VARINT_MAX. */
static inline size_t varint_size(uint64_t v)
{
    return v < 0x80 ? 1 : ((size_t)(63 - __builtin_clzll(v)) / 7 + 1);
}

/* Returns where it ends. */
static inline uint8_t *varint_write(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static inline void varint_put(struct buf *out, uint64_t v)
{
    uint8_t bytes[VARINT_MAX];
    buf_put(out, bytes, (size_t)(varint_write(bytes, v) - bytes));
}

/* False when it is cut, or longer than VARINT_MAX. */
static inline bool varint_take(struct slice *s, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte;
        if (!slice_u8(s, &byte))
            return false;
        *v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

#endif
