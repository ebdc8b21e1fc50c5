/* An RPC's status with rich details: code, words, one ErrorInfo (domain "muster"), field violations (AIP-193).
 * Owns: struct status. May call: lib/base, generated google.rpc messages. Loop rule: none, pure. */
#ifndef MUSTER_PROTO_STATUS_H
#define MUSTER_PROTO_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"

/* gRPC status codes (grpc/grpc doc/statuscodes.md). */
enum status_code {
    STATUS_OK = 0,
    STATUS_CANCELLED = 1,
    STATUS_UNKNOWN = 2,
    STATUS_INVALID_ARGUMENT = 3,
    STATUS_DEADLINE_EXCEEDED = 4,
    STATUS_NOT_FOUND = 5,
    STATUS_ALREADY_EXISTS = 6,
    STATUS_PERMISSION_DENIED = 7,
    STATUS_RESOURCE_EXHAUSTED = 8,
    STATUS_FAILED_PRECONDITION = 9,
    STATUS_ABORTED = 10,
    STATUS_OUT_OF_RANGE = 11,
    STATUS_UNIMPLEMENTED = 12,
    STATUS_INTERNAL = 13,
    STATUS_UNAVAILABLE = 14,
    STATUS_DATA_LOSS = 15,
    STATUS_UNAUTHENTICATED = 16,
};

#define STATUS_MESSAGE_MAX    512 /* bytes, with the final NUL; longer messages are cut at a UTF-8 boundary */
#define STATUS_VIOLATIONS_MAX 16  /* further ones are counted, not kept */
#define STATUS_METADATA_MAX   4

/* By value, no allocation: made on the stack of a handler. Zero-initialised is OK. */
struct status {
    enum status_code code;
    const char *reason; /* stable UPPER_SNAKE literal for ErrorInfo, or NULL */
    char
        reason_text[64]; /* filled by status_decode only: the reason as received, also one this program does not know */
    char message[STATUS_MESSAGE_MAX];
    struct {
        char field[96];
        char description[160];
    } violations[STATUS_VIOLATIONS_MAX];
    unsigned violation_count;
    struct {
        const char *key; /* literal */
        char value[128];
    } metadata[STATUS_METADATA_MAX];
    unsigned metadata_count;
    int64_t retry_ms; /* >0 adds RetryInfo */
};

/* Sets code, reason and message; keeps violations and metadata. Returns `st`. */
struct status *status_set(struct status *st, enum status_code code, const char *reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Adds a field violation, and makes the status INVALID_ARGUMENT with the reason "INVALID_FIELD" and a message that
 * names the first field, unless it is an error already. `field` is a path such as "target.devices.ids[3]". */
void status_violation(struct status *st, const char *field, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void status_metadata(struct status *st, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "INVALID_ARGUMENT" and so on; "CODE_<n>" is never returned: unknown numbers are "UNKNOWN". */
const char *status_code_name(enum status_code code);
/* Appends the encoded google.rpc.Status. For OK appends nothing. */
void status_encode(const struct status *st, struct buf *out);
/* Reads one back (client side): fills what fits. Returns false when `bytes` is no google.rpc.Status. `reason` and
 * metadata keys then point to copies in the static table of known reasons, or to "" when unknown. */
bool status_decode(struct status *st, struct slice bytes);

#endif
