#include "dispatcher/page_token.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/fnv.h"
#include "lib/base/utf8.h"
#include "muster/internal/v1/batch.pb-c.h"

/* Encoded: method at most 64 bytes, name 128, numbers 10 and 5, tags. */
#define ENCODED_MAX 256

void page_filter_add(struct page_filter *f, const void *data, size_t len)
{
    f->hash = fnv_add(f->hash, data, len);
}

void page_filter_add_int(struct page_filter *f, int64_t v)
{
    page_filter_add(f, &v, sizeof v);
}

struct page_filter page_filter_new(const char *method, int32_t tenant)
{
    struct page_filter f = {method, FNV_BEGIN};
    page_filter_add_int(&f, tenant);
    return f;
}

void page_token_write(char out[PAGE_TOKEN_MAX], const struct page_filter *f, int64_t after, const char *after_name)
{
    Muster__Internal__V1__PageToken token = MUSTER__INTERNAL__V1__PAGE_TOKEN__INIT;
    token.method = (char *)f->method;
    token.after = after;
    token.after_name = (char *)(after_name ? after_name : "");
    token.filters = f->hash;
    uint8_t bytes[ENCODED_MAX];
    out[0] = 0;
    if (muster__internal__v1__page_token__get_packed_size(&token) > sizeof bytes)
        return;
    size_t n = muster__internal__v1__page_token__pack(&token, bytes);
    sodium_bin2base64(out, PAGE_TOKEN_MAX, bytes, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* What page_token_write can have been given, so that callers may reckon with it and ask PostgreSQL. */
static bool in_range(const Muster__Internal__V1__PageToken *token)
{
    struct slice name = {(const uint8_t *)token->after_name, strlen(token->after_name)};
    return token->after >= 0 && token->after < INT64_MAX && name.len < PAGE_TOKEN_NAME_MAX && utf8_good(name);
}

void page_token_read(struct page_token *out, struct status *st, const struct page_filter *f, const char *field,
                     const char *text, int64_t first)
{
    *out = (struct page_token){.after = first};
    if (!text[0])
        return;
    uint8_t bytes[ENCODED_MAX];
    size_t n = 0;
    Muster__Internal__V1__PageToken *token = NULL;
    if (sodium_base642bin(bytes, sizeof bytes, text, strlen(text), NULL, &n, NULL,
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0)
        token = muster__internal__v1__page_token__unpack(NULL, n, bytes);
    bool ours = token && strcmp(token->method, f->method) == 0 && token->filters == f->hash && in_range(token);
    if (ours) {
        out->after = token->after;
        snprintf(out->after_name, sizeof out->after_name, "%s", token->after_name);
    } else {
        status_violation(st, field, "is not a token of this list with these filters");
        if (st->violation_count == 1)
            st->reason = "PAGE_TOKEN_INVALID";
    }
    if (token)
        muster__internal__v1__page_token__free_unpacked(token, NULL);
}
