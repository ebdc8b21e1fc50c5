#include "lib/base/grpc_metadata.h"

#include <stdio.h>
#include <string.h>

#include "proto/grpc_framing.h"

const struct h2_field *grpc_field(const struct h2_field *fields, const char *name)
{
    size_t len = strlen(name);
    for (const struct h2_field *f = fields; f; f = f->next)
        if (f->name_len == len && memcmp(f->name, name, len) == 0)
            return f;
    return NULL;
}

const char *grpc_field_value(const struct h2_field *fields, const char *name, size_t *len, struct arena *arena)
{
    const struct h2_field *f = grpc_field(fields, name);
    if (!f)
        return NULL;
    size_t n = f->value_len;
    const char *value = f->value;
    if (grpc_key_is_binary(f->name, f->name_len)) {
        const char *comma = memchr(f->value, ',', f->value_len);
        size_t text = comma ? (size_t)(comma - f->value) : f->value_len;
        char *out = arena_alloc(arena, text + 2);
        if (!out || !grpc_base64_decode(f->value, text, (uint8_t *)out, &n))
            return NULL;
        out[n] = 0;
        value = out;
    }
    if (len)
        *len = n;
    return value;
}

static void append(struct grpc_metadata *m, struct arena *arena, const char *name, size_t name_len, const char *value,
                   size_t value_len)
{
    struct h2_field *f = arena_alloc(arena, sizeof *f);
    size_t bytes = name_len + value_len + 32;
    if (!f || !name || !value || m->bytes + bytes > GRPC_METADATA_MAX)
        return;
    *f = (struct h2_field){NULL, name, value, name_len, value_len};
    if (m->last)
        m->last->next = f;
    else
        m->first = f;
    m->last = f;
    m->count++;
    m->bytes += bytes;
}

void grpc_metadata_put(struct grpc_metadata *m, struct arena *arena, const char *key, const char *value)
{
    append(m, arena, key, strlen(key), value, strlen(value));
}

static bool key_ok(const char *key)
{
    return *key && key[strspn(key, "0123456789abcdefghijklmnopqrstuvwxyz_-.")] == 0 && strncmp(key, "grpc-", 5) != 0 &&
           strcmp(key, "content-type") != 0 && strcmp(key, "te") != 0 && strcmp(key, "connection") != 0 &&
           strcmp(key, "transfer-encoding") != 0 && strcmp(key, "content-length") != 0;
}

/* ASCII-Value of the protocol: 0x20…0x7E, without blanks around it. */
static bool value_ok(const uint8_t *value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (value[i] < 0x20 || value[i] > 0x7E)
            return false;
    return len == 0 || (value[0] != ' ' && value[len - 1] != ' ');
}

static void append_binary(struct grpc_metadata *m, struct arena *arena, const char *key, const void *value, size_t len)
{
    struct buf text = {0};
    grpc_base64_encode(&text, value, len);
    if (!text.failed)
        append(m, arena, key, strlen(key), arena_copy(arena, buf_slice(&text).data, buf_len(&text)), buf_len(&text));
    buf_free(&text);
}

void grpc_metadata_add(struct grpc_metadata *m, struct arena *arena, const char *key, const void *value, size_t len)
{
    size_t key_len = strlen(key);
    if (!key_ok(key) || len > GRPC_METADATA_MAX || key_len > GRPC_METADATA_MAX)
        return;
    const char *name = arena_copy(arena, key, key_len);
    if (!name)
        return;
    if (grpc_key_is_binary(key, key_len))
        append_binary(m, arena, name, value, len);
    else if (value_ok(value, len))
        append(m, arena, name, key_len, arena_copy(arena, value, len), len);
}

static bool has_details(const struct status *st)
{
    return st->reason || st->metadata_count || st->violation_count || st->retry_ms > 0;
}

void grpc_metadata_status(struct grpc_metadata *m, struct arena *arena, const struct status *status)
{
    enum status_code code = status ? status->code : STATUS_OK;
    char *number = arena_alloc(arena, 4);
    if (!number)
        return;
    snprintf(number, 4, "%u", (unsigned)code % 100);
    grpc_metadata_put(m, arena, "grpc-status", number);
    if (code == STATUS_OK)
        return;
    struct buf text = {0};
    grpc_percent_encode(&text, status->message);
    if (!text.failed && buf_len(&text))
        append(m, arena, "grpc-message", 12, arena_copy(arena, buf_head(&text), buf_len(&text)), buf_len(&text));
    buf_reset(&text);
    if (has_details(status)) {
        status_encode(status, &text);
        if (!text.failed)
            append_binary(m, arena, "grpc-status-details-bin", buf_head(&text), buf_len(&text));
    }
    buf_free(&text);
}

nghttp2_nv *grpc_metadata_nv(const struct grpc_metadata *m, struct arena *arena)
{
    nghttp2_nv *nv = arena_alloc(arena, (m->count + 1) * sizeof *nv), *p = nv;
    if (!nv)
        return NULL;
    for (const struct h2_field *f = m->first; f; f = f->next)
        *p++ = (nghttp2_nv){(uint8_t *)f->name, (uint8_t *)f->value, f->name_len, f->value_len, NGHTTP2_NV_FLAG_NONE};
    return nv;
}
