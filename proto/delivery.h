/* The two messages between a worker and a device, encoded and read without building them as structs.
 * Owns: nothing. May call: lib/base/buf, proto/command_id. Loop rule: none, pure.
 *
 * A muster.v1.Delivery is a head that differs per device — command_id and attempt, always DELIVERY_HEAD bytes — and a
 * tail that is the same for the whole batch: retried, but for deliveries after the last attempt, expires_at and
 * command. */
#ifndef MUSTER_PROTO_DELIVERY_H
#define MUSTER_PROTO_DELIVERY_H

#include "lib/base/buf.h"
#include "proto/command_id.h"

#define DELIVERY_HEAD (2 + COMMAND_ID_TEXT + 2) /* bytes */

/* Writes the head; `attempt` is 1 … 15. */
void delivery_put_head(uint8_t head[DELIVERY_HEAD], const struct command_id *id, unsigned attempt);
/* Appends what stands in front of a tail: bit n is for muster.v1.Outcome n; nothing when there is none. */
void delivery_put_retried(struct buf *out, unsigned retried);
/* Appends the tail; `command` is an encoded muster.v1.Command. */
void delivery_put_tail(struct buf *out, int64_t expires_ms, struct slice command);
/* The tail in parts, where the command differs from device to device: expires_at, then what stands in front of a
 * command of `len` bytes. */
void delivery_put_front(struct buf *out, int64_t expires_ms);
#define DELIVERY_COMMAND_HEAD_MAX 11 /* bytes */
size_t delivery_put_command_head(uint8_t head[DELIVERY_COMMAND_HEAD_MAX], size_t len);

/* muster.v1.Acknowledgement; slices borrow from the message, empty where absent. */
struct acknowledgement {
    struct command_id id;
    int outcome; /* muster.v1.Outcome: 1 … 4 */
    int32_t code;
    struct slice text, information, backup_reference, payload; /* information: encoded muster.v1.DeviceInformation */
};

#define ACKNOWLEDGEMENT_MAX         65536 /* bytes of the whole message */
#define ACKNOWLEDGEMENT_TEXT_MAX    1024  /* bytes */
#define ACKNOWLEDGEMENT_BACKUP_MAX  2048  /* bytes */
#define ACKNOWLEDGEMENT_PAYLOAD_MAX 32768 /* bytes */

/* Of muster.v1.DeviceInformation, in bytes. */
#define INFORMATION_OS_MAX    64
#define INFORMATION_TEXT_MAX  128 /* model, serial number */
#define INFORMATION_ITEMS_MAX 64  /* items */
#define INFORMATION_NAME_MAX  64
#define INFORMATION_VALUE_MAX 1024

/* Returns NULL, or what is wrong with the message in a few words (a literal). Unknown fields are passed over. */
MUST_CHECK const char *acknowledgement_read(struct acknowledgement *ack, struct slice message);
/* os_version and model of an encoded muster.v1.DeviceInformation, borrowed; empty where absent. */
void information_read(struct slice information, struct slice *os_version, struct slice *model);
/* Whether it says more than the outcome. */
bool acknowledgement_has_result(const struct acknowledgement *ack);
/* Appends an encoded muster.v1.CommandResult. */
/* Appends to a CommandResult which outcome it came with, and which delivery it is of. */
#define ACKNOWLEDGEMENT_DELIVERY_MAX 16 /* bytes of that */
void acknowledgement_put_delivery(struct buf *out, int outcome, unsigned attempt);
void acknowledgement_put_result(struct buf *out, const struct acknowledgement *ack);

#endif
