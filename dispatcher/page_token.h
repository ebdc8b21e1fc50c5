/* Page tokens of the List methods: opaque text that says where to go on, bound to method, tenant and filters.
 * Owns: the encoding (muster.internal.v1.PageToken as base64url). May call: proto, libsodium. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_PAGE_TOKEN_H
#define MUSTER_DISPATCHER_PAGE_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/status.h"

#define PAGE_TOKEN_MAX      512 /* bytes of text, with the final NUL */
#define PAGE_TOKEN_NAME_MAX 129 /* names of groups and tenants, with the final NUL */

struct page_token {
    int64_t after;
    char after_name[PAGE_TOKEN_NAME_MAX];
};

/* What a token is bound to: the method's path, and a hash over tenant and filters made with page_filter_*. */
struct page_filter {
    const char *method;
    uint32_t hash;
};
/* FNV-1a: a change of filters is a mistake to be told, not an attack. */
struct page_filter page_filter_new(const char *method, int32_t tenant);
void page_filter_add(struct page_filter *f, const void *data, size_t len);
void page_filter_add_int(struct page_filter *f, int64_t v);

/* Writes NUL-terminated text. `after` is from 0 to INT64_MAX - 1; `after_name` is UTF-8, or NULL. */
void page_token_write(char out[PAGE_TOKEN_MAX], const struct page_filter *f, int64_t after, const char *after_name);
/* Reads a token, empty for the first page (then `first` counts, and an empty name). A token that is none, holds
 * what none can, or is of another list, makes `st` INVALID_ARGUMENT with the reason PAGE_TOKEN_INVALID; `field` is the
 * request's that holds it. */
void page_token_read(struct page_token *out, struct status *st, const struct page_filter *f, const char *field,
                     const char *text, int64_t first);

#endif
