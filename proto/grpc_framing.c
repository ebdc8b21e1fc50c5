#include "proto/grpc_framing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A claimed length is not believed at once: room beyond this grows as bytes come. */
#define RESERVE_MAX (256u * 1024)
/* A body buffer larger than this is given back after its message. */
#define KEEP_MAX (16u * 1024)

static enum grpc_deframe refuse(struct grpc_deframer *d, enum status_code code, const char *why)
{
    d->code = code;
    d->why = why;
    buf_free(&d->body);
    return GRPC_DEFRAME_BAD;
}

static enum grpc_deframe read_prefix(struct grpc_deframer *d)
{
    const uint8_t *p = d->prefix;
    if (p[0] == 1)
        return refuse(d, STATUS_INTERNAL, "compressed message without an agreed grpc-encoding");
    if (p[0] != 0)
        return refuse(d, STATUS_INTERNAL, "bad compressed flag in the message prefix");
    d->length = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    if (d->length > d->max)
        return refuse(d, STATUS_RESOURCE_EXHAUSTED, "message is larger than the limit");
    if (!buf_reserve(&d->body, d->length < RESERVE_MAX ? d->length : RESERVE_MAX))
        return refuse(d, STATUS_RESOURCE_EXHAUSTED, "out of memory");
    return GRPC_DEFRAME_DONE;
}

enum grpc_deframe grpc_deframe(struct grpc_deframer *d, struct slice *in)
{
    if (d->why)
        return GRPC_DEFRAME_BAD;
    if (d->prefix_len < GRPC_PREFIX_SIZE) {
        size_t want = GRPC_PREFIX_SIZE - (size_t)d->prefix_len;
        size_t n = in->len < want ? in->len : want;
        if (n)
            memcpy(d->prefix + d->prefix_len, in->data, n);
        d->prefix_len = (uint8_t)(d->prefix_len + n);
        in->data += n;
        in->len -= n;
        if (d->prefix_len < GRPC_PREFIX_SIZE)
            return GRPC_DEFRAME_MORE;
        if (read_prefix(d) == GRPC_DEFRAME_BAD)
            return GRPC_DEFRAME_BAD;
    }
    size_t want = d->length - buf_len(&d->body);
    size_t n = in->len < want ? in->len : want;
    buf_put(&d->body, in->data, n);
    if (d->body.failed)
        return refuse(d, STATUS_RESOURCE_EXHAUSTED, "out of memory");
    in->data += n;
    in->len -= n;
    return n == want ? GRPC_DEFRAME_DONE : GRPC_DEFRAME_MORE;
}

void grpc_deframer_next(struct grpc_deframer *d)
{
    d->prefix_len = 0;
    if (d->body.cap > KEEP_MAX)
        buf_free(&d->body);
    else
        buf_reset(&d->body);
}

/* Room for prefix and message; the prefix is written. NULL (and out->failed) when there is none. */
static uint8_t *begin_frame(struct buf *out, size_t size)
{
    if (size > UINT32_MAX) {
        out->failed = true;
        return NULL;
    }
    uint8_t *p = buf_reserve(out, GRPC_PREFIX_SIZE + size);
    if (!p)
        return NULL;
    p[0] = 0;
    p[1] = (uint8_t)(size >> 24);
    p[2] = (uint8_t)(size >> 16);
    p[3] = (uint8_t)(size >> 8);
    p[4] = (uint8_t)size;
    return p + GRPC_PREFIX_SIZE;
}

void grpc_frame_message(struct buf *out, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *p = begin_frame(out, size);
    if (!p)
        return;
    protobuf_c_message_pack(message, p);
    buf_commit(out, GRPC_PREFIX_SIZE + size);
}

void grpc_frame_bytes(struct buf *out, struct slice message)
{
    uint8_t *p = begin_frame(out, message.len);
    if (!p)
        return;
    memcpy(p, message.data, message.len);
    buf_commit(out, GRPC_PREFIX_SIZE + message.len);
}

/* Finest first. */
static const struct {
    char unit;
    int64_t ns;
} units[] = {
    {'n', 1}, {'u', 1000}, {'m', 1000000}, {'S', 1000000000}, {'M', 60000000000}, {'H', 3600000000000},
};
#define UNITS (sizeof units / sizeof *units)

bool grpc_timeout_parse(const char *text, int64_t *ns)
{
    int64_t value = 0;
    int digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9'; digits++) {
        if (digits == 8)
            return false;
        value = value * 10 + (text[digits] - '0');
    }
    if (digits == 0 || text[digits] == 0 || text[digits + 1] != 0)
        return false;
    for (size_t i = 0; i < UNITS; i++) {
        if (units[i].unit == text[digits]) {
            /* 99,999,999 h are 3.6e20 ns: more than int64_t holds, and longer than anything lives. */
            *ns = value > INT64_MAX / units[i].ns ? INT64_MAX : value * units[i].ns;
            return true;
        }
    }
    return false;
}

void grpc_timeout_format(int64_t ns, char out[GRPC_TIMEOUT_SIZE])
{
    if (ns < 0)
        ns = 0;
    for (size_t i = 0; i < UNITS; i++) {
        int64_t value = ns / units[i].ns + (ns % units[i].ns != 0);
        if (value <= 99999999) {
            snprintf(out, GRPC_TIMEOUT_SIZE, "%u%c", (unsigned)value, units[i].unit);
            return;
        }
    }
}

static const char hex[] = "0123456789ABCDEF";

void grpc_percent_encode(struct buf *out, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (*s >= 0x20 && *s <= 0x7E && *s != '%')
            buf_put_u8(out, *s);
        else
            buf_put(out, (char[]){'%', hex[*s >> 4], hex[*s & 15]}, 3);
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

void grpc_percent_decode(const char *text, size_t len, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < size; i++) {
        int high, low;
        if (text[i] == '%' && i + 2 < len && (high = hex_value(text[i + 1])) >= 0 &&
            (low = hex_value(text[i + 2])) >= 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = text[i];
        }
    }
    if (size)
        out[n] = 0;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void grpc_base64_encode(struct buf *out, const void *data, size_t len)
{
    const uint8_t *s = data;
    uint8_t *p = buf_reserve(out, (len + 2) / 3 * 4);
    if (!p)
        return;
    uint8_t *start = p;
    for (; len >= 3; len -= 3, s += 3) {
        *p++ = (uint8_t)alphabet[s[0] >> 2];
        *p++ = (uint8_t)alphabet[(s[0] << 4 | s[1] >> 4) & 63];
        *p++ = (uint8_t)alphabet[(s[1] << 2 | s[2] >> 6) & 63];
        *p++ = (uint8_t)alphabet[s[2] & 63];
    }
    if (len) {
        *p++ = (uint8_t)alphabet[s[0] >> 2];
        *p++ = (uint8_t)alphabet[(s[0] << 4 | (len == 2 ? s[1] >> 4 : 0)) & 63];
        if (len == 2)
            *p++ = (uint8_t)alphabet[(s[1] << 2) & 63];
    }
    buf_commit(out, (size_t)(p - start));
}

/* The URL alphabet of RFC 4648, 5, is accepted too: some clients use it. */
static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    if (c == '/' || c == '_')
        return 63;
    return -1;
}

bool grpc_base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    if (len % 4 == 0)
        for (int pad = 0; pad < 2 && len > 0 && text[len - 1] == '='; pad++)
            len--;
    if (len % 4 == 1)
        return false;
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int value = base64_value(text[i]);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
        }
    }
    *out_len = n;
    return (bits & ((1u << have) - 1)) == 0;
}

bool grpc_key_is_binary(const char *key, size_t len)
{
    return len >= 4 && memcmp(key + len - 4, "-bin", 4) == 0;
}

bool grpc_content_type_ok(const char *value, size_t len)
{
    static const char base[] = "application/grpc", sub[] = "+proto";
    size_t n = sizeof base - 1;
    if (len < n || strncasecmp(value, base, n) != 0)
        return false;
    if (len >= n + sizeof sub - 1 && strncasecmp(value + n, sub, sizeof sub - 1) == 0)
        n += sizeof sub - 1;
    return len == n || value[n] == ';' || value[n] == ' ';
}
