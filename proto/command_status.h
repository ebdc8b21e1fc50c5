/* Entries of `repeated muster.v1.CommandStatus`, encoded without building them as structs: for lists of millions.
 * Owns: nothing. May call: lib/base/buf, proto/command_id. Loop rule: none, pure. */
#ifndef MUSTER_PROTO_COMMAND_STATUS_H
#define MUSTER_PROTO_COMMAND_STATUS_H

#include "lib/base/buf.h"
#include "proto/command_id.h"

struct command_status {
    struct command_id id;
    struct slice device_id; /* at most 128 bytes */
    uint8_t state;          /* muster.v1.CommandState */
    uint8_t attempts;
    int64_t updated_ms;  /* since 1970; 0: absent */
    struct slice result; /* encoded muster.v1.CommandResult; empty: absent */
    struct slice more;   /* fields with higher numbers, encoded */
};

/* Appends one entry of the repeated field `field` (1 … 15), as protobuf-c would encode it. */
void command_status_put(struct buf *out, unsigned field, const struct command_status *c);

#endif
