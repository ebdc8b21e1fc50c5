/* Growable byte buffer with a read position, and bounds-checked readers and writers of integers.
 * Owns: struct buf, struct slice. May call: the C library. Loop rule: none, pure. */
#ifndef MUSTER_BASE_BUF_H
#define MUSTER_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Borrowed bytes. */
struct slice {
    const uint8_t *data;
    size_t len;
};

/* Unread bytes are data[start .. end). Zero-initialised is empty and valid.
 * `failed` is sticky: set when an allocation fails; later puts do nothing; check once at the end.
 * `secret` is set by the owner, for good: memory goes back zeroed, also when the buffer grows. */
struct buf {
    uint8_t *data;
    size_t start, end, cap;
    bool failed, secret;
};

static inline size_t buf_len(const struct buf *b)
{
    return b->end - b->start;
}
static inline uint8_t *buf_head(const struct buf *b)
{
    return b->data + b->start;
}
static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->data ? b->data + b->start : (const uint8_t *)"", b->end - b->start};
}

/* Frees the memory and leaves `b` empty. */
void buf_free(struct buf *b);
/* Forgets content and failure, keeps the memory. */
void buf_reset(struct buf *b);
/* Makes room for `n` more bytes and returns where they go, or NULL (and sets failed). Advance with buf_commit. */
uint8_t *buf_reserve(struct buf *b, size_t n);
static inline void buf_commit(struct buf *b, size_t n)
{
    b->end += n;
}
/* Drops `n` bytes (at most buf_len) from the front. */
void buf_consume(struct buf *b, size_t n);
/* Drops what is behind the first `n` bytes (at most buf_len). */
static inline void buf_truncate(struct buf *b, size_t n)
{
    b->end = b->start + n;
}

void buf_put(struct buf *b, const void *data, size_t n);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16be(struct buf *b, uint16_t v);
void buf_put_u32be(struct buf *b, uint32_t v);
void buf_put_u16le(struct buf *b, uint16_t v);
void buf_put_u32le(struct buf *b, uint32_t v);
void buf_put_u64le(struct buf *b, uint64_t v);
void buf_put_str(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Returns owned: the content as a NUL-terminated string, or NULL when the buffer has failed; leaves `b` empty. */
char *buf_take_str(struct buf *b);

/* Readers take from the front of `s`; false when it is too short, `s` then unchanged. */
MUST_CHECK bool slice_u8(struct slice *s, uint8_t *v);
MUST_CHECK bool slice_u16be(struct slice *s, uint16_t *v);
MUST_CHECK bool slice_u32be(struct slice *s, uint32_t *v);
MUST_CHECK bool slice_u16le(struct slice *s, uint16_t *v);
MUST_CHECK bool slice_u32le(struct slice *s, uint32_t *v);
MUST_CHECK bool slice_u64le(struct slice *s, uint64_t *v);
MUST_CHECK bool slice_bytes(struct slice *s, size_t n, struct slice *out);

/* Little-endian loads and stores at any alignment. */
static inline uint16_t load_u16le(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t load_u32le(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t load_u64le(const uint8_t *p)
{
    return load_u32le(p) | (uint64_t)load_u32le(p + 4) << 32;
}
static inline void store_u16le(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline void store_u32le(uint8_t *p, uint32_t v)
{
    store_u16le(p, (uint16_t)v);
    store_u16le(p + 2, (uint16_t)(v >> 16));
}
static inline void store_u64le(uint8_t *p, uint64_t v)
{
    store_u32le(p, (uint32_t)v);
    store_u32le(p + 4, (uint32_t)(v >> 32));
}

#endif
