/* Metadata of calls. The input is a list of fields (a kind, lengths, bytes): first as they were received, then as a
 * handler adds them to its answer; what is sent must be legal, and read again as what was added. */
#include "lib/base/grpc_metadata.h"
#include "proto/grpc_framing.h"
#include "tests/fuzz/input.h"

#define FIELDS_MAX 64

static void put_field(struct h2_field *f, struct arena *arena, struct slice name, struct slice value)
{
    *f = (struct h2_field){.name = arena_copy(arena, name.data, name.len),
                           .value = arena_copy(arena, value.data, value.len),
                           .name_len = name.len,
                           .value_len = value.len};
    check(f->name && f->value);
}

/* As received: looked up by every name that is there, and some that are not. */
static void look_up(const struct h2_field *fields, struct arena *arena)
{
    static const char *const names[] = {"authorization", "grpc-timeout", "te", "x-bin", "grpc-status-details-bin"};
    size_t len = 0;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = grpc_field_value(fields, names[i], &len, arena);
        check(!value || value[len] == 0);
    }
    for (const struct h2_field *f = fields; f; f = f->next) {
        const struct h2_field *first = grpc_field(fields, f->name);
        check(first || strlen(f->name) != f->name_len);
        const char *value = grpc_field_value(fields, f->name, &len, arena);
        check(!value || len <= f->value_len || value[len] == 0);
    }
}

static bool legal_value(const struct h2_field *f)
{
    for (size_t i = 0; i < f->value_len; i++)
        if ((uint8_t)f->value[i] < 0x20 || (uint8_t)f->value[i] > 0x7e)
            return false;
    return true;
}

static void check_sent(const struct grpc_metadata *m, struct arena *arena)
{
    size_t count = 0;
    const nghttp2_nv *nv = grpc_metadata_nv(m, arena);
    check(nv || arena->failed);
    for (const struct h2_field *f = m->first; f; f = f->next, count++) {
        check(nghttp2_check_header_name((const uint8_t *)f->name, f->name_len) && legal_value(f));
        check(nghttp2_check_header_value((const uint8_t *)f->value, f->value_len));
        check(!nv || (nv[count].namelen == f->name_len && nv[count].valuelen == f->value_len));
    }
    check(count == m->count && m->bytes <= GRPC_METADATA_MAX);
}

/* Adds one entry to an empty list: what is read of it must be what was added. */
static void there_and_back(struct arena *arena, const char *key, struct slice value)
{
    struct grpc_metadata m = {0};
    size_t len = 0;
    grpc_metadata_add(&m, arena, key, value.data, value.len);
    if (!m.first)
        return;
    const char *back = grpc_field_value(m.first, key, &len, arena);
    check(back && len == value.len && (len == 0 || memcmp(back, value.data, len) == 0));
}

static void fuzz_status(struct slice *in, struct grpc_metadata *m, struct arena *arena)
{
    struct status st = {0}, back = {0};
    char *text = copy_text(take_bytes(in, take_u8(in)));
    uint8_t how = take_u8(in);
    status_set(&st, (enum status_code)(how % 17), how & 32 ? "REASON" : NULL, "%s", text);
    if (how & 64)
        status_violation(&st, "field", "%s", text);
    struct grpc_metadata only = {0};
    grpc_metadata_status(&only, arena, &st);
    size_t len = 0;
    const char *details = grpc_field_value(only.first, "grpc-status-details-bin", &len, arena);
    if (details)
        check(status_decode(&back, (struct slice){(const uint8_t *)details, len}) && back.code == st.code);
    grpc_metadata_status(m, arena, &st);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    struct arena arena = {.limit = take_u8(&in) & 1 ? 4096 : 1 << 20}, scratch = {0};
    struct h2_field fields[FIELDS_MAX];
    struct grpc_metadata m = {0};
    size_t count = 0;
    while (in.len > 0 && count < FIELDS_MAX) {
        uint8_t how = take_u8(&in);
        struct slice name = take_bytes(&in, how & 31), value = take_bytes(&in, take_u8(&in));
        char *key = copy_text(name);
        put_field(&fields[count], &scratch, name, value);
        if (count > 0)
            fields[count - 1].next = &fields[count];
        count++;
        grpc_metadata_add(&m, &arena, key, value.data, value.len);
        there_and_back(&scratch, key, value);
        free(key);
        if (how >= 224)
            fuzz_status(&in, &m, &arena);
    }
    if (count > 0)
        look_up(fields, &scratch);
    check_sent(&m, &arena);
    arena_free(&scratch);
    arena_free(&arena);
    return 0;
}
