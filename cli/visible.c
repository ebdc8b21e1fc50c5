#include "cli/visible.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/utf8.h"

/* U+0080 and above, of a well-formed sequence. */
static bool is_hidden(const uint8_t *p, size_t n)
{
    if (n == 2)
        return p[0] == 0xc2 && p[1] < 0xa0; /* C1 */
    if (n != 3 || p[0] != 0xe2)
        return false;
    return (p[1] == 0x80 && p[2] >= 0xa8 && p[2] <= 0xae) || /* U+2028 to U+202E */
           (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);   /* U+2066 to U+2069 */
}

static unsigned code_point(const uint8_t *p, size_t n)
{
    return n == 2 ? (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu) : (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
}

/* What stands at `p` and is not plain ASCII. Returns its bytes. */
static size_t put_other(struct buf *out, const uint8_t *p)
{
    size_t n = utf8_sequence(p, 4); /* the NUL ends what is cut off */

    if (*p == '\n' || *p == '\r' || *p == '\t')
        buf_printf(out, "\\%c", *p == '\n' ? 'n' : *p == '\r' ? 'r' : 't');
    else if (n < 2)
        buf_printf(out, "\\x%02x", *p);
    else if (is_hidden(p, n))
        buf_printf(out, "\\u%04x", code_point(p, n));
    else
        buf_put(out, p, n);
    return n ? n : 1;
}

static size_t plain(const char *text)
{
    size_t n = 0;

    while (text[n] >= 0x20 && text[n] < 0x7f)
        n++;
    return n;
}

void visible_put(struct buf *out, const char *text)
{
    while (*text) {
        size_t n = plain(text);
        buf_put(out, text, n);
        text += n;
        if (*text)
            text += put_other(out, (const uint8_t *)text);
    }
}

void visible_print(FILE *to, const char *text)
{
    struct buf out = {0};

    visible_put(&out, text);
    if (out.failed)
        fputs("(out of memory)", to);
    else
        fwrite(buf_slice(&out).data, 1, buf_len(&out), to);
    buf_free(&out);
}

/* Replaces what changes; the rest may be a constant of protobuf-c's. */
static bool see_text(char **text)
{
    struct buf out = {0};

    if (!*text || !(*text)[plain(*text)])
        return true;
    visible_put(&out, *text);
    char *seen = buf_take_str(&out);
    if (!seen)
        return false;
    if (strcmp(seen, *text) == 0) {
        free(seen);
        return true;
    }
    free(*text);
    *text = seen;
    return true;
}

static bool see_field(const ProtobufCFieldDescriptor *f, void *at)
{
    if (f->type == PROTOBUF_C_TYPE_STRING)
        return see_text(at);
    ProtobufCMessage *message = *(ProtobufCMessage **)at;
    return !message || visible_message(message);
}

bool visible_message(ProtobufCMessage *message)
{
    char *base = (char *)message;

    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &message->descriptor->fields[i];
        if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            void **items = *(void ***)(base + f->offset);
            for (size_t n = 0; n < *(size_t *)(base + f->quantifier_offset); n++)
                if (!see_field(f, &items[n]))
                    return false;
        } else if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) || *(uint32_t *)(base + f->quantifier_offset) == f->id) {
            if (!see_field(f, base + f->offset))
                return false;
        }
    }
    return true;
}
