#include "dispatcher/submit_note.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LISTED_MAX 3   /* names of a list that are told */
#define FILTER_MAX 100 /* bytes of a filter that are told */

struct text {
    char *out;
    size_t len, size;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->out + t->len, t->size - t->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->len = t->len + (size_t)n < t->size ? t->len + (size_t)n : t->size - 1;
}

/* Bytes of the text up to `max`, no character cut. */
static int cut(const char *s, size_t max)
{
    size_t n = strnlen(s, max);
    if (n == max)
        while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
            n--;
    return (int)n;
}

static void put_list(struct text *t, const char *what, char *const *names, size_t n)
{
    put(t, n == 1 ? "%s" : "%ss", what);
    for (size_t i = 0; i < n && i < LISTED_MAX; i++)
        put(t, "%s %s", i ? "," : "", names[i]);
    if (n > LISTED_MAX)
        put(t, " and %zu more", n - LISTED_MAX);
}

static void put_target(struct text *t, const Muster__V1__Target *target)
{
    switch (target->kind_case) {
    case MUSTER__V1__TARGET__KIND_ALL:
        put(t, "all devices");
        break;
    case MUSTER__V1__TARGET__KIND_DEVICES:
        put_list(t, "device", target->devices->ids, target->devices->n_ids);
        break;
    case MUSTER__V1__TARGET__KIND_GROUPS:
        put_list(t, "group", target->groups->names, target->groups->n_names);
        break;
    case MUSTER__V1__TARGET__KIND_PLATFORM: {
        const ProtobufCEnumValue *v =
            protobuf_c_enum_descriptor_get_value(&muster__v1__platform__descriptor, (int)target->platform);
        put(t, "%s", v ? v->name : "?");
        break;
    }
    case MUSTER__V1__TARGET__KIND_FILTER:
        put(t, "filter %.*s%s", cut(target->filter, FILTER_MAX), target->filter,
            strlen(target->filter) > FILTER_MAX ? "\xe2\x80\xa6" : "");
        break;
    default:
        put(t, "nobody");
    }
    if (target->exclude) {
        put(t, ", less ");
        put_target(t, target->exclude);
    }
}

void submit_note(char out[SUBMIT_NOTE_MAX], const Muster__V1__SubmitBatchRequest *in)
{
    struct text t = {out, 0, SUBMIT_NOTE_MAX};
    const ProtobufCFieldDescriptor *kind =
        protobuf_c_message_descriptor_get_field(&muster__v1__command__descriptor, (unsigned)in->command->kind_case);
    out[0] = 0;
    put(&t, "%s; request %s; ", kind ? kind->name : "?", in->request_id);
    if (in->target)
        put_target(&t, in->target);
    else /* whom its values are for */
        put_list(&t, "device", in->values->device_ids, in->values->n_device_ids);
    if (in->values)
        put(&t, "; a value per device");
    /* A text that was too long may end in half a character: the last one goes, unless it is of one byte. */
    size_t n = t.len;
    while (t.len == t.size - 1 && n > 0 && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
        n--;
    if (t.len == t.size - 1 && n > 0 && (unsigned char)out[n - 1] >= 0xc0)
        n--;
    out[n] = 0;
}
