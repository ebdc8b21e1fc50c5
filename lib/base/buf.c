#include "lib/base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_data(struct buf *b)
{
    if (b->secret && b->data)
        explicit_bzero(b->data, b->cap);
    free(b->data);
}

void buf_free(struct buf *b)
{
    free_data(b);
    *b = (struct buf){.secret = b->secret};
}

void buf_reset(struct buf *b)
{
    b->start = b->end = 0;
    b->failed = false;
}

/* Doubles, so that n puts cost O(n); first slides the unread bytes down when that alone makes the room. */
uint8_t *buf_reserve(struct buf *b, size_t n)
{
    if (b->failed)
        return NULL;
    if (b->cap - b->end >= n && b->data)
        return b->data + b->end;
    assert(b->start <= b->end && (b->data || b->end == 0));
    size_t len = buf_len(b);
    if (b->start > 0 && b->cap - len >= n && b->start >= len) {
        memmove(b->data, b->data + b->start, len);
    } else {
        size_t cap = b->cap ? b->cap : 64;
        while (cap - len < n) {
            if (cap > SIZE_MAX / 2) {
                b->failed = true;
                return NULL;
            }
            cap *= 2;
        }
        uint8_t *data = malloc(cap);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        if (len)
            memcpy(data, b->data + b->start, len);
        free_data(b);
        b->data = data;
        b->cap = cap;
    }
    b->start = 0;
    b->end = len;
    return b->data + b->end;
}

void buf_consume(struct buf *b, size_t n)
{
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

void buf_put(struct buf *b, const void *data, size_t n)
{
    if (n == 0)
        return;
    uint8_t *p = buf_reserve(b, n);
    if (!p)
        return;
    memcpy(p, data, n);
    b->end += n;
}

void buf_put_u8(struct buf *b, uint8_t v)
{
    buf_put(b, &v, 1);
}

void buf_put_u16be(struct buf *b, uint16_t v)
{
    buf_put(b, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

void buf_put_u32be(struct buf *b, uint32_t v)
{
    buf_put(b, (uint8_t[]){(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v}, 4);
}

void buf_put_u16le(struct buf *b, uint16_t v)
{
    uint8_t p[2];
    store_u16le(p, v);
    buf_put(b, p, sizeof p);
}

void buf_put_u32le(struct buf *b, uint32_t v)
{
    uint8_t p[4];
    store_u32le(p, v);
    buf_put(b, p, sizeof p);
}

void buf_put_u64le(struct buf *b, uint64_t v)
{
    uint8_t p[8];
    store_u64le(p, v);
    buf_put(b, p, sizeof p);
}

void buf_put_str(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    uint8_t *p = n < 0 ? NULL : buf_reserve(b, (size_t)n + 1);
    if (p) {
        vsnprintf((char *)p, (size_t)n + 1, fmt, again);
        b->end += (size_t)n;
    } else {
        b->failed = true;
    }
    va_end(again);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

char *buf_take_str(struct buf *b)
{
    buf_put_u8(b, 0);
    char *s = NULL;
    if (!b->failed && (s = malloc(buf_len(b))))
        memcpy(s, buf_head(b), buf_len(b));
    buf_free(b);
    return s;
}

bool slice_bytes(struct slice *s, size_t n, struct slice *out)
{
    if (s->len < n)
        return false;
    *out = (struct slice){s->data, n};
    s->data += n;
    s->len -= n;
    return true;
}

bool slice_u8(struct slice *s, uint8_t *v)
{
    struct slice p;
    if (!slice_bytes(s, 1, &p))
        return false;
    *v = p.data[0];
    return true;
}

bool slice_u16be(struct slice *s, uint16_t *v)
{
    struct slice p;
    if (!slice_bytes(s, 2, &p))
        return false;
    *v = (uint16_t)(p.data[0] << 8 | p.data[1]);
    return true;
}

bool slice_u32be(struct slice *s, uint32_t *v)
{
    struct slice p;
    if (!slice_bytes(s, 4, &p))
        return false;
    *v = (uint32_t)p.data[0] << 24 | (uint32_t)p.data[1] << 16 | (uint32_t)p.data[2] << 8 | p.data[3];
    return true;
}

bool slice_u16le(struct slice *s, uint16_t *v)
{
    struct slice p;
    if (!slice_bytes(s, 2, &p))
        return false;
    *v = load_u16le(p.data);
    return true;
}

bool slice_u32le(struct slice *s, uint32_t *v)
{
    struct slice p;
    if (!slice_bytes(s, 4, &p))
        return false;
    *v = load_u32le(p.data);
    return true;
}

bool slice_u64le(struct slice *s, uint64_t *v)
{
    struct slice p;
    if (!slice_bytes(s, 8, &p))
        return false;
    *v = load_u64le(p.data);
    return true;
}
