#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/utf8.h"
#include "proto/json.h"
#include "proto/json_common.h"

struct writer {
    struct buf out;
    bool pretty;
    bool bad; /* nested too deep, or a time out of range */
    unsigned depth;
};

static void write_message(struct writer *w, const ProtobufCMessage *m);

static void new_line(struct writer *w)
{
    if (!w->pretty)
        return;
    buf_put_u8(&w->out, '\n');
    for (unsigned i = 0; i < w->depth; i++)
        buf_put(&w->out, "  ", 2);
}

/* Between the values of an object or array, and before the first. */
static void separate(struct writer *w, bool *first)
{
    if (!*first)
        buf_put_u8(&w->out, ',');
    *first = false;
    new_line(w);
}

static void open_bracket(struct writer *w, char c)
{
    buf_put_u8(&w->out, (uint8_t)c);
    w->depth++;
}

static void close_bracket(struct writer *w, char c, bool empty)
{
    w->depth--;
    if (!empty)
        new_line(w);
    buf_put_u8(&w->out, (uint8_t)c);
}

static void write_text(struct writer *w, const char *text)
{
    const unsigned char *s = (const unsigned char *)(text ? text : "");
    buf_put_u8(&w->out, '"');
    while (*s) {
        static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
        const char *e = strchr(escapes, *s);
        size_t n = utf8_sequence(s, 4);
        if (e && (e - escapes) % 2 == 0) {
            buf_put(&w->out, (char[]){'\\', e[1]}, 2);
        } else if (*s < 0x20 || *s == 0x7f) {
            buf_printf(&w->out, "\\u%04x", *s);
        } else {
            buf_put(&w->out, n ? (const void *)s : "\xef\xbf\xbd", n ? n : 3);
        }
        s += n ? n : 1;
    }
    buf_put_u8(&w->out, '"');
}

static void write_base64(struct writer *w, const ProtobufCBinaryData *b)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    buf_put_u8(&w->out, '"');
    for (size_t i = 0; i < b->len; i += 3) {
        size_t n = b->len - i < 3 ? b->len - i : 3;
        unsigned v =
            (unsigned)b->data[i] << 16 | (n > 1 ? (unsigned)b->data[i + 1] << 8 : 0) | (n > 2 ? b->data[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], n > 1 ? digits[v >> 6 & 63] : '=',
                        n > 2 ? digits[v & 63] : '='};
        buf_put(&w->out, four, 4);
    }
    buf_put_u8(&w->out, '"');
}

/* The shortest decimal that reads back as the same value; `digits` is what always suffices (9 for float, 17 for
 * double). Without a point a negative zero would be read as the integer 0. */
static void write_real(struct writer *w, double v, bool single)
{
    char text[40];
    if (isnan(v) || isinf(v)) {
        buf_put_str(&w->out, isnan(v) ? "\"NaN\"" : v > 0 ? "\"Infinity\"" : "\"-Infinity\"");
        return;
    }
    for (int digits = single ? 6 : 15; digits <= (single ? 9 : 17); digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (single ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v)
            break;
    }
    buf_put_str(&w->out, v == 0 && signbit(v) ? "-0.0" : text);
}

static void write_enum(struct writer *w, const ProtobufCEnumDescriptor *d, int v)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(d, v);
    if (known)
        buf_printf(&w->out, "\"%s\"", known->name);
    else
        buf_printf(&w->out, "%d", v);
}

static void write_value(struct writer *w, const ProtobufCFieldDescriptor *f, const void *value)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        buf_printf(&w->out, "%" PRId32, *(const int32_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        buf_printf(&w->out, "%" PRIu32, *(const uint32_t *)value);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        buf_printf(&w->out, "\"%" PRId64 "\"", *(const int64_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        buf_printf(&w->out, "\"%" PRIu64 "\"", *(const uint64_t *)value);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        write_real(w, (double)*(const float *)value, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        write_real(w, *(const double *)value, false);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        buf_put_str(&w->out, *(const protobuf_c_boolean *)value ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        write_enum(w, f->descriptor, *(const int *)value);
        break;
    case PROTOBUF_C_TYPE_STRING:
        write_text(w, *(char *const *)value);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        write_base64(w, value);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        write_message(w, *(ProtobufCMessage *const *)value);
        break;
    }
}

/* Map keys are always text; integers of 64 bits and strings are in quotes already. */
static void write_key(struct writer *w, const ProtobufCFieldDescriptor *f, const void *value)
{
    bool quoted =
        f->type == PROTOBUF_C_TYPE_STRING || (f->type != PROTOBUF_C_TYPE_BOOL && json_value_size(f->type) == 8);
    if (!quoted)
        buf_put_u8(&w->out, '"');
    write_value(w, f, value);
    buf_put_str(&w->out, quoted ? ":" : "\":");
    if (w->pretty)
        buf_put_u8(&w->out, ' ');
}

static void write_map(struct writer *w, const ProtobufCMessageDescriptor *d, ProtobufCMessage *const *entries, size_t n)
{
    bool first = true;
    open_bracket(w, '{');
    for (size_t i = 0; i < n; i++) {
        separate(w, &first);
        write_key(w, &d->fields[0], (const uint8_t *)entries[i] + d->fields[0].offset);
        write_value(w, &d->fields[1], (const uint8_t *)entries[i] + d->fields[1].offset);
    }
    close_bracket(w, '}', first);
}

static void write_array(struct writer *w, const ProtobufCFieldDescriptor *f, const uint8_t *values, size_t n)
{
    bool first = true;
    open_bracket(w, '[');
    for (size_t i = 0; i < n; i++) {
        separate(w, &first);
        write_value(w, f, values + i * json_value_size(f->type));
    }
    close_bracket(w, ']', first);
}

static bool is_default(const ProtobufCFieldDescriptor *f, const void *value)
{
    static const uint8_t zeros[8];
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        return !*(char *const *)value || !**(char *const *)value;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)value)->len == 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return !*(void *const *)value;
    default:
        return memcmp(value, zeros, json_value_size(f->type)) == 0;
    }
}

/* Whether a field is to be shown. */
static bool is_present(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const uint8_t *value = (const uint8_t *)m + f->offset;
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return JSON_MEMBER(size_t, m, f->quantifier_offset) > 0;
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return JSON_MEMBER(uint32_t, m, f->quantifier_offset) == f->id &&
               (f->type != PROTOBUF_C_TYPE_MESSAGE || *(void *const *)value);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void *const *)value != NULL;
    if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type == PROTOBUF_C_TYPE_STRING)
        return *(void *const *)value && *(void *const *)value != f->default_value;
    if (f->label == PROTOBUF_C_LABEL_OPTIONAL)
        return JSON_MEMBER(protobuf_c_boolean, m, f->quantifier_offset) != 0;
    return f->label == PROTOBUF_C_LABEL_REQUIRED || !is_default(f, value);
}

static void write_field(struct writer *w, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const uint8_t *value = (const uint8_t *)m + f->offset;
    char name[JSON_TEXT_MAX];
    buf_printf(&w->out, "\"%s\":%s", json_camel(f->name, name, sizeof name) ? name : f->name, w->pretty ? " " : "");
    if (f->label != PROTOBUF_C_LABEL_REPEATED) {
        write_value(w, f, value);
        return;
    }
    size_t n = JSON_MEMBER(size_t, m, f->quantifier_offset);
    if (json_is_map(m->descriptor, f))
        write_map(w, f->descriptor, *(ProtobufCMessage *const *const *)value, n);
    else
        write_array(w, f, *(const uint8_t *const *)value, n);
}

/* google.protobuf.Timestamp and Duration: seconds = 1 (int64) and nanos = 2 (int32). */
static void write_time(struct writer *w, const ProtobufCMessage *m, enum json_special special)
{
    char text[JSON_TEXT_MAX];
    int64_t seconds = JSON_MEMBER(int64_t, m, m->descriptor->fields[0].offset);
    int32_t nanos = JSON_MEMBER(int32_t, m, m->descriptor->fields[1].offset);
    if (special == JSON_TIMESTAMP ? json_write_timestamp(seconds, nanos, text)
                                  : json_write_duration(seconds, nanos, text))
        buf_printf(&w->out, "\"%s\"", text);
    else
        w->bad = true;
}

static void write_message(struct writer *w, const ProtobufCMessage *m)
{
    if (!m) {
        buf_put_str(&w->out, "{}");
        return;
    }
    enum json_special special = json_special_of(m->descriptor);
    if (special != JSON_PLAIN) {
        write_time(w, m, special);
        return;
    }
    /* Arrays and objects each add one to the depth. */
    if (w->depth >= 2 * JSON_DEPTH_MAX) {
        w->bad = true;
        return;
    }
    bool first = true;
    open_bracket(w, '{');
    for (unsigned i = 0; i < m->descriptor->n_fields && !w->bad; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (!is_present(m, f))
            continue;
        separate(w, &first);
        write_field(w, m, f);
    }
    close_bracket(w, '}', first);
}

char *json_from_message(const ProtobufCMessage *message, bool pretty)
{
    struct writer w = {.pretty = pretty};
    write_message(&w, message);
    if (pretty)
        buf_put_u8(&w.out, '\n');
    errno = w.bad ? EINVAL : ENOMEM;
    if (!w.bad)
        return buf_take_str(&w.out);
    buf_free(&w.out);
    return NULL;
}
