/* Commands with places for values that differ from device to device: {{name}} in texts and bytes.
 * Owns: struct fill. May call: lib/base/buf, the generated muster.v1.Command. Loop rule: none, pure.
 *
 * A template is an encoded muster.v1.Command. Its places are found once; a device's command is then made by copying the
 * template around them, with the lengths that follow from its values: nothing is decoded or encoded per device. The
 * values of one device are packed: for each variable, in order, its length as a varint, then its bytes. */
#ifndef MUSTER_PROTO_FILL_H
#define MUSTER_PROTO_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

#define FILL_VARIABLES_MAX 8
#define FILL_NAME_MAX      64   /* bytes */
#define FILL_VALUE_MAX     4096 /* bytes of one value, */
#define FILL_PACKED_MAX    8192 /* and of all of a device, packed */
#define FILL_PLACES_MAX    64   /* in one template */

/* {{name}} in a field. */
struct fill_place {
    uint32_t at, len; /* in the template */
    uint8_t variable;
};

/* A field with places. */
struct fill_field {
    uint32_t number;       /* in the kind's message */
    uint32_t at;           /* of its length in the template, */
    uint32_t len;          /* and the bytes of that */
    uint32_t kept;         /* bytes of its content that stay */
    uint16_t first, count; /* of the places */
};

struct fill {
    size_t variables;
    uint32_t kind_at, kind_len; /* of the kind's length, as in fill_field */
    uint32_t kind_kept;         /* bytes of the kind that are of no field with places */
    uint32_t around;            /* bytes of the template outside the kind's length and content */
    uint16_t place_count, field_count;
    uint8_t text; /* bit n: variable n stands in a text, which is UTF-8 */
    uint8_t used; /* bit n: variable n stands somewhere */
    struct fill_place places[FILL_PLACES_MAX];
    struct fill_field fields[FILL_PLACES_MAX];
};

/* What is wrong with a template: the field ("command.lock.passcode"), and what, in a few words. */
struct fill_error {
    char field[96], what[128];
};

bool fill_name_ok(const char *name);
/* Finds the places of these variables. False when there is something wrong: a place for none of them, in a field that
 * takes no values, or too many of them; or the template is no encoded command. `names` are fill_name_ok. */
MUST_CHECK bool fill_parse(struct fill *f, struct slice template, const char *const *names, size_t n,
                           struct fill_error *error);

/* Packs and reads what one device has; `values` has f->variables entries, borrowing from `packed`. False when `packed`
 * is no such thing. */
void fill_pack(struct buf *out, const struct slice *values, size_t n);
MUST_CHECK bool fill_unpack(struct slice packed, struct slice *values, size_t n);
/* Takes the values of one device from the front of `packed`; false when there are none. */
MUST_CHECK bool fill_take(struct slice *packed, size_t n, struct slice *one);

/* Bytes of the command with these values, and of its field `i`. */
size_t fill_size(const struct fill *f, const struct slice *values);
size_t fill_field_size(const struct fill *f, size_t i, const struct slice *values);
/* Appends the command; `template` is the one that was parsed. */
void fill_put(const struct fill *f, struct slice template, const struct slice *values, struct buf *out);

#endif
