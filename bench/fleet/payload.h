/* muster.v1.Delivery read and muster.v1.Acknowledgement written by hand: only what a simulated device needs, without an
 * allocation. Owns: nothing. May call: lib/base buffers. Loop rule: none, pure.
 * Source: proto/muster/v1/delivery.proto, and the protobuf wire format. */
#ifndef MUSTER_FLEET_PAYLOAD_H
#define MUSTER_FLEET_PAYLOAD_H

#include "bench/fleet/uuid.h"
#include "lib/base/buf.h"

/* muster.v1.Outcome. */
enum outcome { OUTCOME_NONE = 0, OUTCOME_SUCCEEDED = 1, OUTCOME_FAILED = 2, OUTCOME_REJECTED = 3, OUTCOME_NOT_NOW = 4 };

/* What the answer has to carry besides the outcome. */
enum wants { WANTS_NOTHING, WANTS_INFORMATION, WANTS_BACKUP_REFERENCE };

struct delivery {
    uint8_t id[UUID_BYTES];
    uint32_t attempt;
    int64_t expires_s; /* seconds since 1970; 0: never */
    enum wants wants;
};

/* False when it is no protobuf message or has no proper command id. Unknown fields are skipped. */
MUST_CHECK bool delivery_read(struct slice in, struct delivery *out);

struct acknowledgement {
    const uint8_t *id;  /* UUID_BYTES, borrowed */
    const char *device; /* for the backup reference and the serial number */
    enum outcome outcome;
    enum wants wants;
    uint32_t payload_bytes; /* length of a made-up result payload; 0: none; at most 32 KiB */
};

/* Appends the message. */
void acknowledgement_write(struct buf *out, const struct acknowledgement *a);

#endif
