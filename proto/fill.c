#include "proto/fill.h"

#include <stdio.h>
#include <string.h>

#include "muster/v1/command.pb-c.h"
#include "proto/varint.h"

#define BRACES 2 /* at each end of a place */

/* --- packed values ------------------------------------------------------------------------------------------------ */

void fill_pack(struct buf *out, const struct slice *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        varint_put(out, values[i].len);
        buf_put(out, values[i].data, values[i].len);
    }
}

static bool take_value(struct slice *s, struct slice *value)
{
    uint64_t len;
    return varint_take(s, &len) && len <= FILL_VALUE_MAX && slice_bytes(s, (size_t)len, value);
}

bool fill_unpack(struct slice packed, struct slice *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!take_value(&packed, &values[i]))
            return false;
    return packed.len == 0;
}

bool fill_take(struct slice *packed, size_t n, struct slice *one)
{
    struct slice rest = *packed, value;
    for (size_t i = 0; i < n; i++)
        if (!take_value(&rest, &value))
            return false;
    *one = (struct slice){packed->data, packed->len - rest.len};
    *packed = rest;
    return true;
}

/* --- finding the places ------------------------------------------------------------------------------------------- */

static bool name_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool fill_name_ok(const char *name)
{
    size_t len = 0;
    while (name_byte((uint8_t)name[len]))
        len++;
    return len > 0 && len <= FILL_NAME_MAX && !name[len];
}

struct parsing {
    struct fill *f;
    const uint8_t *begin; /* of the template */
    const char *const *names;
    struct fill_error *error;
    const char *kind; /* name of the command's field */
};

static bool fail(struct parsing *p, const char *field, const char *what)
{
    snprintf(p->error->field, sizeof p->error->field, "command%s%s%s%s", p->kind ? "." : "", p->kind ? p->kind : "",
             field ? "." : "", field ? field : "");
    snprintf(p->error->what, sizeof p->error->what, "%s", what);
    return false;
}

struct field {
    unsigned number, wire;
    uint32_t len_at;      /* WIRE_BYTES: of its length in the template */
    struct slice content; /* WIRE_BYTES */
};

/* Takes the next field; false at something that is none. */
static bool take_field(const struct parsing *p, struct slice *s, struct field *out)
{
    uint64_t tag, len;
    struct slice skipped;
    if (!varint_take(s, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
        return false;
    *out = (struct field){.number = (unsigned)(tag >> 3), .wire = (unsigned)(tag & 7)};
    out->len_at = (uint32_t)(s->data - p->begin);
    switch (out->wire) {
    case WIRE_VARINT:
        return varint_take(s, &len);
    case WIRE_FIXED64:
        return slice_bytes(s, 8, &skipped);
    case WIRE_FIXED32:
        return slice_bytes(s, 4, &skipped);
    case WIRE_BYTES:
        return varint_take(s, &len) && len <= s->len && slice_bytes(s, (size_t)len, &out->content);
    default:
        return false;
    }
}

/* Texts and bytes, but what must have one certain form. */
static bool takes_values(const ProtobufCMessageDescriptor *message, const ProtobufCFieldDescriptor *field)
{
    if (message == &muster__v1__custom_command__descriptor && strcmp(field->name, "type") == 0)
        return false;
    return !(message == &muster__v1__install_application_command__descriptor && strcmp(field->name, "sha256") == 0);
}

/* The length of the name behind two braces at `s` that two more end, or 0. */
static size_t place_at(struct slice s)
{
    size_t len = 0;
    if (s.len < 2 * BRACES + 1 || s.data[0] != '{' || s.data[1] != '{')
        return 0;
    while (BRACES + len < s.len && name_byte(s.data[BRACES + len]))
        len++;
    bool ends = BRACES + len + 1 < s.len && s.data[BRACES + len] == '}' && s.data[BRACES + len + 1] == '}';
    return ends && len <= FILL_NAME_MAX ? len : 0;
}

static size_t find_name(const struct parsing *p, const uint8_t *name, size_t len)
{
    size_t i = 0;
    while (i < p->f->variables && (strncmp(p->names[i], (const char *)name, len) != 0 || p->names[i][len]))
        i++;
    return i;
}

static bool scan_content(struct parsing *p, const ProtobufCMessageDescriptor *message,
                         const ProtobufCFieldDescriptor *type, const struct field *field, size_t nth)
{
    struct fill *f = p->f;
    struct fill_field *into = NULL;
    char path[64], what[128];
    snprintf(path, sizeof path, type->label == PROTOBUF_C_LABEL_REPEATED ? "%.40s[%zu]" : "%.40s", type->name, nth);
    for (struct slice s = field->content; s.len;) {
        size_t name = place_at(s), skip = name ? name + 2 * BRACES : 1;
        if (!name) {
            s = (struct slice){s.data + skip, s.len - skip};
            continue;
        }
        size_t variable = find_name(p, s.data + BRACES, name);
        snprintf(what, sizeof what, "{{%.*s}} is none of the variables", (int)name, (const char *)s.data + BRACES);
        if (variable == f->variables)
            return fail(p, path, what);
        if (!takes_values(message, type))
            return fail(p, path, "takes no values");
        if (f->place_count == FILL_PLACES_MAX)
            return fail(p, path, "there are more than 64 places for values");
        if (!into) {
            into = &f->fields[f->field_count++];
            *into = (struct fill_field){.number = field->number,
                                        .at = field->len_at,
                                        .len = (uint32_t)(field->content.data - p->begin) - field->len_at,
                                        .kept = (uint32_t)field->content.len,
                                        .first = f->place_count};
        }
        into->count++;
        into->kept -= (uint32_t)skip;
        f->places[f->place_count++] =
            (struct fill_place){(uint32_t)(s.data - p->begin), (uint32_t)skip, (uint8_t)variable};
        f->used |= (uint8_t)(1u << variable);
        if (type->type == PROTOBUF_C_TYPE_STRING)
            f->text |= (uint8_t)(1u << variable);
        s = (struct slice){s.data + skip, s.len - skip};
    }
    return true;
}

static bool scan_kind(struct parsing *p, const ProtobufCMessageDescriptor *message, struct slice content)
{
    struct fill *f = p->f;
    size_t nth = 0;
    unsigned before = 0;
    f->kind_kept = (uint32_t)content.len;
    for (struct field field; content.len; before = field.number) {
        if (!take_field(p, &content, &field))
            return fail(p, NULL, "is no command");
        nth = field.number == before ? nth + 1 : 0;
        const ProtobufCFieldDescriptor *type = protobuf_c_message_descriptor_get_field(message, field.number);
        if (!type || field.wire != WIRE_BYTES ||
            (type->type != PROTOBUF_C_TYPE_STRING && type->type != PROTOBUF_C_TYPE_BYTES))
            continue;
        unsigned fields = f->field_count;
        if (!scan_content(p, message, type, &field, nth))
            return false;
        if (f->field_count > fields)
            f->kind_kept -= f->fields[fields].len + (uint32_t)field.content.len;
    }
    return true;
}

bool fill_parse(struct fill *f, struct slice template, const char *const *names, size_t n, struct fill_error *error)
{
    struct parsing p = {f, template.data, names, error, NULL};
    struct slice rest = template;
    struct field field;
    memset(f, 0, sizeof *f);
    if (n < 1 || n > FILL_VARIABLES_MAX || template.len > UINT32_MAX / 2)
        return fail(&p, NULL, "takes 1 to 8 variables");
    f->variables = n;
    while (rest.len) {
        if (!take_field(&p, &rest, &field))
            return fail(&p, NULL, "is no command");
        const ProtobufCFieldDescriptor *type =
            protobuf_c_message_descriptor_get_field(&muster__v1__command__descriptor, field.number);
        if (!type || field.wire != WIRE_BYTES)
            continue;
        if (p.kind)
            return fail(&p, NULL, "has two kinds");
        p.kind = type->name;
        f->kind_at = field.len_at;
        f->kind_len = (uint32_t)(field.content.data - template.data) - field.len_at;
        f->around = (uint32_t)(template.len - field.content.len) - f->kind_len;
        if (!scan_kind(&p, type->descriptor, field.content))
            return false;
    }
    return p.kind || fail(&p, NULL, "is of no kind");
}

/* --- filling ------------------------------------------------------------------------------------------------------ */

size_t fill_field_size(const struct fill *f, size_t i, const struct slice *values)
{
    const struct fill_field *field = &f->fields[i];
    size_t n = field->kept;
    for (unsigned k = 0; k < field->count; k++)
        n += values[f->places[field->first + k].variable].len;
    return n;
}

static size_t kind_size(const struct fill *f, const struct slice *values)
{
    size_t n = f->kind_kept;
    for (size_t i = 0; i < f->field_count; i++) {
        size_t field = fill_field_size(f, i, values);
        n += varint_size(field) + field;
    }
    return n;
}

size_t fill_size(const struct fill *f, const struct slice *values)
{
    size_t kind = kind_size(f, values);
    return f->around + varint_size(kind) + kind;
}

void fill_put(const struct fill *f, struct slice template, const struct slice *values, struct buf *out)
{
    uint32_t at = f->kind_at;
    buf_put(out, template.data, at);
    varint_put(out, kind_size(f, values));
    at += f->kind_len;
    for (size_t i = 0; i < f->field_count; i++) {
        const struct fill_field *field = &f->fields[i];
        buf_put(out, template.data + at, field->at - at);
        varint_put(out, fill_field_size(f, i, values));
        at = field->at + field->len;
        for (unsigned k = 0; k < field->count; k++) {
            const struct fill_place *place = &f->places[field->first + k];
            buf_put(out, template.data + at, place->at - at);
            buf_put(out, values[place->variable].data, values[place->variable].len);
            at = place->at + place->len;
        }
    }
    buf_put(out, template.data + at, template.len - at);
}
