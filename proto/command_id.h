/* Command ids: a UUID (RFC 9562, version 8) that encodes tenant, batch and device number.
 * Owns: the layout. May call: lib/base. Loop rule: none, pure.
 *
 * 128 bits, big endian: batch (48) | version 8 (4) | 0 (12) | variant 2 (2) | tenant (30) | seq (32).
 * Text: 36 characters, lower case hex with dashes; upper case is read too. */
#ifndef MUSTER_PROTO_COMMAND_ID_H
#define MUSTER_PROTO_COMMAND_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define COMMAND_ID_TEXT 36 /* bytes, without a final NUL */

struct command_id {
    uint64_t batch;  /* 1 … 2^48-1 */
    uint32_t tenant; /* 1 … 2^30-1 */
    uint32_t seq;
};

/* Writes exactly COMMAND_ID_TEXT bytes, no NUL. */
void command_id_write(char *out, const struct command_id *id);
/* False when the `len` bytes are no command id. */
MUST_CHECK bool command_id_read(struct command_id *id, const void *text, size_t len);

#endif
