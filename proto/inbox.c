#include "proto/inbox.h"

#include <string.h>

#define AS_BITMAP 0xffff

static void put_slots(struct buf *out, const uint8_t *slots)
{
    unsigned n = 0;
    for (unsigned i = 0; i < INBOX_BITMAP_BYTES; i++)
        n += (unsigned)__builtin_popcount(slots[i]);
    if (n > INBOX_SLOTS_MAX) {
        buf_put_u16le(out, AS_BITMAP);
        buf_put(out, slots, INBOX_BITMAP_BYTES);
        return;
    }
    buf_put_u16le(out, (uint16_t)n);
    for (unsigned i = 0; i < INBOX_BITMAP_BYTES; i++)
        for (unsigned byte = slots[i]; byte; byte &= byte - 1)
            buf_put_u16le(out, (uint16_t)(i * 8 + (unsigned)__builtin_ctz(byte)));
}

static bool read_slots(struct slice *s, uint8_t *slots)
{
    struct slice bytes;
    uint16_t n;
    memset(slots, 0, INBOX_BITMAP_BYTES);
    if (!slice_u16le(s, &n))
        return false;
    if (n == AS_BITMAP) {
        if (!slice_bytes(s, INBOX_BITMAP_BYTES, &bytes))
            return false;
        memcpy(slots, bytes.data, INBOX_BITMAP_BYTES);
        return true;
    }
    for (unsigned i = 0; i < n; i++) {
        uint16_t slot;
        if (!slice_u16le(s, &slot) || slot >= INBOX_BITMAP_BYTES * 8)
            return false;
        slots[slot / 8] = (uint8_t)(slots[slot / 8] | 1u << slot % 8);
    }
    return true;
}

void inbox_put(struct buf *out, const struct inbox_item *item)
{
    buf_put_u8(out, (uint8_t)item->kind);
    switch (item->kind) {
    case INBOX_RELEASE:
    case INBOX_AGAIN:
        buf_put_u64le(out, item->number);
        /* fall through */
    case INBOX_ROUTE:
        buf_put_u64le(out, item->batch);
        buf_put_u32le(out, item->tenant);
        buf_put_u32le(out, item->block);
        put_slots(out, item->slots);
        break;
    case INBOX_CANCEL:
        buf_put_u64le(out, item->batch);
        break;
    case INBOX_HOLD:
        buf_put_u64le(out, item->batch);
        buf_put_u64le(out, item->number);
        break;
    case INBOX_SPEC:
        buf_put_u64le(out, item->batch);
        buf_put_u32le(out, (uint32_t)item->spec.len);
        buf_put(out, item->spec.data, item->spec.len);
        break;
    case INBOX_GATE:
    case INBOX_REPORT:
        buf_put_u64le(out, item->number);
        break;
    case INBOX_CHECK:
        buf_put_u32le(out, item->tenant);
        buf_put_u32le(out, item->block);
        break;
    case INBOX_TAKEOVER:
    case INBOX_REVOKE:
        buf_put_u32le(out, item->tenant);
        buf_put_u32le(out, item->seq);
        if (item->kind == INBOX_REVOKE)
            buf_put_u64le(out, (uint64_t)item->issued_before_ms);
        break;
    }
}

static bool read_body(struct slice *s, struct inbox_item *item)
{
    uint64_t when;
    uint32_t len;
    switch (item->kind) {
    case INBOX_RELEASE:
    case INBOX_AGAIN:
        if (!slice_u64le(s, &item->number))
            return false;
        /* fall through */
    case INBOX_ROUTE:
        return slice_u64le(s, &item->batch) && slice_u32le(s, &item->tenant) && slice_u32le(s, &item->block) &&
               read_slots(s, item->slots);
    case INBOX_CANCEL:
        return slice_u64le(s, &item->batch);
    case INBOX_HOLD:
        return slice_u64le(s, &item->batch) && slice_u64le(s, &item->number);
    case INBOX_SPEC:
        return slice_u64le(s, &item->batch) && slice_u32le(s, &len) && slice_bytes(s, len, &item->spec);
    case INBOX_GATE:
    case INBOX_REPORT:
        return slice_u64le(s, &item->number);
    case INBOX_CHECK:
        return slice_u32le(s, &item->tenant) && slice_u32le(s, &item->block);
    case INBOX_TAKEOVER:
        return slice_u32le(s, &item->tenant) && slice_u32le(s, &item->seq);
    case INBOX_REVOKE:
        if (!slice_u32le(s, &item->tenant) || !slice_u32le(s, &item->seq) || !slice_u64le(s, &when))
            return false;
        item->issued_before_ms = (int64_t)when;
        return true;
    }
    return false;
}

int inbox_next(struct slice *s, struct inbox_item *item)
{
    uint8_t kind;
    if (s->len == 0)
        return 0;
    if (!slice_u8(s, &kind))
        return -1;
    *item = (struct inbox_item){.kind = (enum inbox_kind)kind};
    return read_body(s, item) ? 1 : -1;
}
