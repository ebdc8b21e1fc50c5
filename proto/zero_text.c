#include "proto/zero_text.h"

#include <stdio.h>
#include <string.h>

#include "proto/varint.h"

/* Messages in one another: deeper ones are no request of ours. */
#define DEPTH_MAX 32u

/* A field on the way from the message down to a text. */
struct step {
    const ProtobufCFieldDescriptor *field;
    struct slice message, content;
};

/* One field; `content` is what a length stands before, else empty. False at the end, or where it is no message. */
static bool next_field(struct slice *rest, uint32_t *number, struct slice *content)
{
    uint64_t tag, n = 0;
    *content = (struct slice){rest->data, 0};
    if (!rest->len || !varint_take(rest, &tag))
        return false;
    *number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case WIRE_VARINT:
        return varint_take(rest, &n);
    case WIRE_FIXED64:
        n = 8;
        break;
    case WIRE_FIXED32:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!varint_take(rest, &n))
            return false;
        break;
    default:
        return false;
    }
    if (n > rest->len)
        return false;
    if ((tag & 7) == WIRE_BYTES)
        *content = (struct slice){rest->data, (size_t)n};
    rest->data += n;
    rest->len -= (size_t)n;
    return true;
}

/* How many of this number stand in the message before `end`. */
static size_t place_of(struct slice message, uint32_t number, const uint8_t *end)
{
    struct slice content;
    uint32_t other;
    size_t n = 0;
    while (next_field(&message, &other, &content) && content.data < end)
        n += other == number;
    return n;
}

static void write_path(const struct step *steps, size_t n, char text[ZERO_TEXT_FIELD])
{
    size_t len = 0;
    text[0] = 0;
    for (size_t i = 0; i < n && len < ZERO_TEXT_FIELD; i++) {
        const struct step *s = &steps[i];
        len += (size_t)snprintf(text + len, ZERO_TEXT_FIELD - len, "%s%s", i ? "." : "", s->field->name);
        if (s->field->label == PROTOBUF_C_LABEL_REPEATED && len < ZERO_TEXT_FIELD)
            len += (size_t)snprintf(text + len, ZERO_TEXT_FIELD - len, "[%zu]",
                                    place_of(s->message, s->field->id, s->content.data));
    }
}

/* How many steps it is down to the first one; 0: there is none. */
static size_t find(const ProtobufCMessageDescriptor *type, struct slice message, struct step *steps, size_t depth)
{
    const ProtobufCFieldDescriptor *f = NULL;
    struct slice rest = message, content;
    uint32_t number;
    while (next_field(&rest, &number, &content)) {
        if (!content.len || !memchr(content.data, 0, content.len))
            continue;
        if (!f || f->id != number)
            f = protobuf_c_message_descriptor_get_field(type, number);
        if (!f || (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE))
            continue;
        steps[depth] = (struct step){f, message, content};
        if (f->type == PROTOBUF_C_TYPE_STRING)
            return depth + 1;
        size_t found = depth + 1 < DEPTH_MAX ? find(f->descriptor, content, steps, depth + 1) : 0;
        if (found)
            return found;
    }
    return 0;
}

bool zero_text_find(const ProtobufCMessageDescriptor *type, struct slice encoded, char field[ZERO_TEXT_FIELD])
{
    struct step steps[DEPTH_MAX];
    bool any = encoded.len && memchr(encoded.data, 0, encoded.len);
    size_t n = any ? find(type, encoded, steps, 0) : 0;
    write_path(steps, n, field);
    return n > 0;
}
