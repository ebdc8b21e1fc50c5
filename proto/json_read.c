#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/json_common.h"

/* Fields of one message that can be told "given twice"; ours have far fewer. */
#define FIELDS_MAX 256

struct reader {
    char path[256]; /* of the value being read, cut when too long */
    size_t path_len;
    unsigned depth;
    bool failed, no_memory;
    char *error;
    size_t error_size;
};

static ProtobufCMessage *read_message(struct reader *r, const ProtobufCMessageDescriptor *d, const json_t *v);

/* Says what is wrong at the current path; the first word counts. Returns false. */
static bool __attribute__((format(printf, 2, 3))) wrong(struct reader *r, const char *fmt, ...)
{
    if (r->failed)
        return false;
    r->failed = true;
    int n = r->path_len ? snprintf(r->error, r->error_size, "%s: ", r->path) : 0;
    if (n < 0 || (size_t)n >= r->error_size)
        return false;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->error + n, r->error_size - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

static bool no_memory(struct reader *r)
{
    r->no_memory = true;
    return wrong(r, "out of memory");
}

/* Appends to the path; returns the length to go back to. */
static size_t __attribute__((format(printf, 2, 3))) enter(struct reader *r, const char *fmt, ...)
{
    size_t before = r->path_len, room = sizeof r->path - r->path_len;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(r->path + r->path_len, room, fmt, ap);
    va_end(ap);
    if (n > 0)
        r->path_len += (size_t)n < room ? (size_t)n : room - 1;
    return before;
}

static void leave(struct reader *r, size_t before)
{
    r->path_len = before;
    r->path[before] = 0;
}

/* --- scalars
 * ------------------------------------------------------------------------------------------------------------ */

/* Numbers come as JSON numbers, without fraction, or as text (the mapping wants that for 64 bits). */
static bool read_signed(struct reader *r, const json_t *v, int64_t min, int64_t max, int64_t *out)
{
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
    } else if (json_is_real(v)) {
        double d = json_real_value(v);
        if (d != floor(d) || d < -9223372036854775808.0 || d >= 9223372036854775808.0)
            return wrong(r, "expected a whole number");
        *out = (int64_t)d;
    } else if (json_is_string(v)) {
        char *end;
        const char *text = json_string_value(v);
        errno = 0;
        *out = strtoll(text, &end, 10);
        if (errno || end == text || *end || (*text != '-' && (*text < '0' || *text > '9')))
            return wrong(r, "expected a whole number");
    } else {
        return wrong(r, "expected a number");
    }
    if (*out < min || *out > max)
        return wrong(r, "must be between %" PRId64 " and %" PRId64, min, max);
    return true;
}

static bool read_unsigned(struct reader *r, const json_t *v, uint64_t max, uint64_t *out)
{
    int64_t n = 0;
    const char *text = json_string_value(v);
    if (text && *text >= '0' && *text <= '9') {
        char *end;
        errno = 0;
        *out = strtoull(text, &end, 10);
        if (errno || *end)
            return wrong(r, "expected a whole number");
    } else {
        if (!read_signed(r, v, 0, INT64_MAX, &n))
            return false;
        *out = (uint64_t)n;
    }
    return *out <= max || wrong(r, "must be between 0 and %" PRIu64, max);
}

static bool read_real(struct reader *r, const json_t *v, double *out)
{
    if (json_is_number(v)) {
        *out = json_number_value(v);
        return true;
    }
    const char *text = json_string_value(v);
    if (!text)
        return wrong(r, "expected a number");
    if (strcmp(text, "NaN") == 0) {
        *out = NAN;
    } else if (strcmp(text, "Infinity") == 0 || strcmp(text, "-Infinity") == 0) {
        *out = *text == '-' ? -INFINITY : INFINITY;
    } else {
        char *end;
        *out = strtod(text, &end);
        if (end == text || *end || strspn(text, "+-.0123456789eE") != strlen(text))
            return wrong(r, "expected a number");
    }
    return true;
}

static bool read_enum(struct reader *r, const ProtobufCEnumDescriptor *d, const json_t *v, int *out)
{
    int64_t n;
    const char *text = json_string_value(v);
    if (text) {
        const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value_by_name(d, text);
        if (!known)
            return wrong(r, "\"%.64s\" is no %s", text, d->short_name);
        *out = known->value;
        return true;
    }
    if (!json_is_integer(v))
        return wrong(r, "expected a name of %s", d->short_name);
    if (!read_signed(r, v, INT32_MIN, INT32_MAX, &n))
        return false;
    *out = (int)n;
    return true;
}

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
    return c == '/' || c == '_' ? 63 : -1;
}

/* Both alphabets (RFC 4648, 4 and 5), with padding or without. */
static bool read_base64(struct reader *r, const json_t *v, ProtobufCBinaryData *out)
{
    const char *text = json_string_value(v);
    if (!text)
        return wrong(r, "expected base64 text");
    size_t len = json_string_length(v), n = 0;
    for (int padding = 0; padding < 2 && len > 0 && text[len - 1] == '='; padding++)
        len--;
    if (len % 4 == 1)
        return wrong(r, "is not base64");
    uint8_t *data = malloc(len / 4 * 3 + 3);
    if (!data)
        return no_memory(r);
    uint32_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        int digit = base64_value(text[i]);
        if (digit < 0) {
            free(data);
            return wrong(r, "is not base64");
        }
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 > 0)
            data[n++] = (uint8_t)(bits >> (6 - i % 4 * 2));
    }
    free(out->data);
    *out = (ProtobufCBinaryData){n, data};
    return true;
}

static bool read_text(struct reader *r, const json_t *v, char **out)
{
    if (!json_is_string(v))
        return wrong(r, "expected text");
    char *copy = strdup(json_string_value(v));
    if (!copy)
        return no_memory(r);
    *out = copy;
    return true;
}

static bool read_int_value(struct reader *r, ProtobufCType type, const json_t *v, void *out)
{
    int64_t n = 0;
    uint64_t u = 0;
    bool ok;
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        ok = read_unsigned(r, v, UINT32_MAX, &u);
        *(uint32_t *)out = (uint32_t)u;
        return ok;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        ok = read_unsigned(r, v, UINT64_MAX, &u);
        *(uint64_t *)out = u;
        return ok;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        ok = read_signed(r, v, INT64_MIN, INT64_MAX, &n);
        *(int64_t *)out = n;
        return ok;
    default:
        ok = read_signed(r, v, INT32_MIN, INT32_MAX, &n);
        *(int32_t *)out = (int32_t)n;
        return ok;
    }
}

/* Reads into the place of one value. */
static bool read_value(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *v, void *out)
{
    double d = 0;
    switch (f->type) {
    case PROTOBUF_C_TYPE_FLOAT:
        if (!read_real(r, v, &d))
            return false;
        if (isfinite(d) && fabs(d) > 3.4028234663852886e38)
            return wrong(r, "is out of range");
        *(float *)out = (float)d;
        return true;
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_real(r, v, out);
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(v))
            return wrong(r, "expected true or false");
        *(protobuf_c_boolean *)out = json_is_true(v);
        return true;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(r, f->descriptor, v, out);
    case PROTOBUF_C_TYPE_STRING:
        return read_text(r, v, out);
    case PROTOBUF_C_TYPE_BYTES:
        return read_base64(r, v, out);
    case PROTOBUF_C_TYPE_MESSAGE:
        return (*(ProtobufCMessage **)out = read_message(r, f->descriptor, v)) != NULL;
    default:
        return read_int_value(r, f->type, v, out);
    }
}

/* --- fields
 * --------------------------------------------------------------------------------------------------------------- */

/* Makes room for `n` values; the count follows as they are read, so that a half-read message can be freed. */
static uint8_t *make_array(struct reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, size_t n)
{
    uint8_t *values = calloc(n ? n : 1, json_value_size(f->type));
    if (!values)
        no_memory(r);
    else
        JSON_MEMBER(void *, m, f->offset) = values;
    return values;
}

static bool read_array(struct reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const json_t *v)
{
    if (!json_is_array(v))
        return wrong(r, "expected an array");
    size_t n = json_array_size(v), size = json_value_size(f->type);
    uint8_t *values = n ? make_array(r, m, f, n) : NULL;
    for (size_t i = 0; values && i < n; i++) {
        size_t before = enter(r, "[%zu]", i);
        JSON_MEMBER(size_t, m, f->quantifier_offset) = i + 1;
        if (!read_value(r, f, json_array_get(v, i), values + i * size))
            return false;
        leave(r, before);
    }
    return !r->failed;
}

/* A map's key is text, whatever its type. */
static bool read_key(struct reader *r, const ProtobufCFieldDescriptor *f, const char *key, ProtobufCMessage *entry)
{
    void *out = (uint8_t *)entry + f->offset;
    if (f->type == PROTOBUF_C_TYPE_BOOL) {
        bool yes = strcmp(key, "true") == 0;
        *(protobuf_c_boolean *)out = yes;
        return yes || strcmp(key, "false") == 0 || wrong(r, "expected the key true or false");
    }
    json_t *v = json_string(key);
    bool ok = v ? read_value(r, f, v, out) : no_memory(r);
    json_decref(v);
    return ok;
}

static bool read_map(struct reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const json_t *v)
{
    if (!json_is_object(v))
        return wrong(r, "expected an object");
    const ProtobufCMessageDescriptor *d = f->descriptor;
    size_t n = json_object_size(v);
    ProtobufCMessage **entries = n ? (ProtobufCMessage **)make_array(r, m, f, n) : NULL;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)v, key, value)
    {
        if (!entries)
            break;
        size_t before = enter(r, "[\"%.64s\"]", key);
        ProtobufCMessage *entry = calloc(1, d->sizeof_message);
        if (!entry)
            return no_memory(r);
        d->message_init(entry);
        entries[JSON_MEMBER(size_t, m, f->quantifier_offset)++] = entry;
        if (!read_key(r, &d->fields[0], key, entry) ||
            !read_value(r, &d->fields[1], value, (uint8_t *)entry + d->fields[1].offset))
            return false;
        leave(r, before);
    }
    return !r->failed;
}

static bool read_field(struct reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const json_t *v)
{
    if (json_is_null(v))
        return true;
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return json_is_map(m->descriptor, f) ? read_map(r, m, f, v) : read_array(r, m, f, v);
    void *out = (uint8_t *)m + f->offset;
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        if (JSON_MEMBER(uint32_t, m, f->quantifier_offset) != 0)
            return wrong(r, "only one field of its oneof may be given");
        /* The union may hold another member's default. */
        memset(out, 0, json_value_size(f->type));
        JSON_MEMBER(uint32_t, m, f->quantifier_offset) = f->id;
        return read_value(r, f, v, out);
    }
    if (!read_value(r, f, v, out))
        return false;
    if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING &&
        f->type != PROTOBUF_C_TYPE_MESSAGE)
        JSON_MEMBER(protobuf_c_boolean, m, f->quantifier_offset) = 1;
    return true;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *d, const char *name)
{
    char camel[JSON_TEXT_MAX];
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (strcmp(d->fields[i].name, name) == 0 ||
            (json_camel(d->fields[i].name, camel, sizeof camel) && strcmp(camel, name) == 0))
            return &d->fields[i];
    }
    return NULL;
}

static bool read_fields(struct reader *r, ProtobufCMessage *m, const json_t *v)
{
    uint64_t seen[FIELDS_MAX / 64] = {0};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)v, name, value)
    {
        size_t before = enter(r, "%s%.64s", r->path_len ? "." : "", name);
        const ProtobufCFieldDescriptor *f = find_field(m->descriptor, name);
        if (!f)
            return wrong(r, "unknown field");
        size_t i = (size_t)(f - m->descriptor->fields);
        if (i < FIELDS_MAX && (seen[i / 64] >> i % 64 & 1))
            return wrong(r, "given twice");
        if (i < FIELDS_MAX)
            seen[i / 64] |= UINT64_C(1) << i % 64;
        if (!read_field(r, m, f, value))
            return false;
        leave(r, before);
    }
    return true;
}

static bool read_time(struct reader *r, ProtobufCMessage *m, enum json_special special, const json_t *v)
{
    const char *text = json_string_value(v);
    int64_t seconds = 0;
    int32_t nanos = 0;
    if (special == JSON_TIMESTAMP) {
        if (!text || !json_read_timestamp(text, &seconds, &nanos))
            return wrong(r, "expected a time such as \"2026-01-02T03:04:05Z\"");
    } else if (!text || !json_read_duration(text, &seconds, &nanos)) {
        return wrong(r, "expected a duration such as \"3.5s\"");
    }
    JSON_MEMBER(int64_t, m, m->descriptor->fields[0].offset) = seconds;
    JSON_MEMBER(int32_t, m, m->descriptor->fields[1].offset) = nanos;
    return true;
}

static ProtobufCMessage *read_message(struct reader *r, const ProtobufCMessageDescriptor *d, const json_t *v)
{
    enum json_special special = json_special_of(d);
    if (special == JSON_PLAIN && !json_is_object(v)) {
        wrong(r, "expected an object");
        return NULL;
    }
    if (r->depth >= JSON_DEPTH_MAX) {
        wrong(r, "nested deeper than %d", JSON_DEPTH_MAX);
        return NULL;
    }
    ProtobufCMessage *m = calloc(1, d->sizeof_message);
    if (!m) {
        no_memory(r);
        return NULL;
    }
    d->message_init(m);
    r->depth++;
    bool ok = special == JSON_PLAIN ? read_fields(r, m, v) : read_time(r, m, special, v);
    r->depth--;
    if (!ok) {
        protobuf_c_message_free_unpacked(m, NULL);
        return NULL;
    }
    return m;
}

ProtobufCMessage *json_to_message(const ProtobufCMessageDescriptor *descriptor, const char *text, size_t len,
                                  char *error, size_t error_size)
{
    struct reader r = {.error = error, .error_size = error_size};
    json_error_t why = {0};
    bool blank = true;
    for (size_t i = 0; i < len && blank; i++)
        blank = strchr(" \t\r\n", text[i]) && text[i];
    json_t *v = blank ? json_object() : json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    ProtobufCMessage *m = NULL;
    if (v)
        m = read_message(&r, descriptor, v);
    else if (blank || json_error_code(&why) <= json_error_out_of_memory) /* jansson does not always say */
        no_memory(&r);
    else
        wrong(&r, "line %d, column %d: %s", why.line, why.column, why.text);
    json_decref(v);
    if (!m)
        errno = r.no_memory ? ENOMEM : EINVAL;
    return m;
}
