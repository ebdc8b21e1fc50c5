/* Metadata of gRPC calls on their way into and out of HTTP/2 header blocks.
 * Owns: struct grpc_metadata. May call: nghttp2, lib/base, proto/grpc_framing. Loop rule: none, pure. */
#ifndef MUSTER_BASE_GRPC_METADATA_H
#define MUSTER_BASE_GRPC_METADATA_H

#include "lib/base/arena.h"
#include "lib/base/h2.h"
#include "proto/status.h"

/* Entries to be sent, in order; live in the arena. Zero-initialised is empty. */
struct grpc_metadata {
    struct h2_field *first, *last;
    size_t count;
    size_t bytes;
};

/* No header block of ours is larger than this (RFC 9113, 10.5.1): further entries are dropped. */
#define GRPC_METADATA_MAX (64 * 1024)

/* Value of the first field `name`, or NULL. */
const struct h2_field *grpc_field(const struct h2_field *fields, const char *name);
/* The same, decoded when `name` ends in "-bin": of values joined by commas the first; NULL when it is no base64. */
const char *grpc_field_value(const struct h2_field *fields, const char *name, size_t *len, struct arena *arena);

/* Appends an entry; encodes values of "-bin" keys. Copies. Drops, without a word, what HTTP/2 can't carry: keys with
 * other characters than 0-9 a-z _ - . or that belong to the protocol, values with control characters. */
void grpc_metadata_add(struct grpc_metadata *m, struct arena *arena, const char *key, const void *value, size_t len);
/* Appends the protocol's own field; `value` is borrowed. */
void grpc_metadata_put(struct grpc_metadata *m, struct arena *arena, const char *key, const char *value);
/* Appends grpc-status, grpc-message and grpc-status-details-bin. `status` NULL is OK. */
void grpc_metadata_status(struct grpc_metadata *m, struct arena *arena, const struct status *status);
/* Returns an array of m->count name-value pairs in the arena, or NULL without memory. */
nghttp2_nv *grpc_metadata_nv(const struct grpc_metadata *m, struct arena *arena);

#endif
