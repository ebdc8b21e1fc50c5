/* What requests may contain: the limits that the .proto files state, as field violations.
 * Owns: the checks. May call: proto, lib/base. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_VALIDATE_H
#define MUSTER_DISPATCHER_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "muster/v1/command_service.pb-c.h"
#include "proto/status.h"

#define DAY_MS                 (24 * 3600 * 1000ll)
#define BATCH_LIFE_DEFAULT_MS  (7 * DAY_MS)
#define BATCH_LIFE_MAX_MS      (40 * DAY_MS) /* milliseconds since acceptance fit in 32 bits */
#define COMMAND_BYTES_MAX      65536u
#define DEVICE_IDS_MAX         1000000u
#define GROUP_NAMES_MAX        64u
#define NAME_BYTES_MAX         128u
#define BATCH_DESCRIPTION_MAX  1024u
#define REQUEST_ID_MAX         128u
#define SUPERSEDE_KEY_MAX      128u
#define REASON_MAX             256u
#define KEY_DESCRIPTION_MAX    256u
#define DECISION_REASON_MAX    256u
#define DIGEST_TEXT            64u    /* digits of a SHA-256 */
#define DYNAMIC_TARGET_MAX     65536u /* bytes: it is kept, and looked at again and again */
#define DYNAMIC_MAX            64     /* open ones of a tenant */
#define CREDENTIAL_LIFE_MIN_MS (60 * 1000ll)
#define CREDENTIAL_LIFE_MAX_MS (3652 * DAY_MS) /* ten years */

/* Each adds violations to `st`, naming `field`, and goes on; `st->code` is STATUS_OK afterwards if there were none. */
void validate_submit(struct status *st, const Muster__V1__SubmitBatchRequest *request, int64_t now_ms);
/* Also of a target that is kept for later: fields begin with "target". */
void validate_target(struct status *st, const Muster__V1__Target *target);
void validate_command(struct status *st, const Muster__V1__Command *command);
/* Values per device, and the commands they make of the template; devices that are listed twice are not looked for. */
void validate_values(struct status *st, const Muster__V1__Command *command, const Muster__V1__Values *values);
/* UTF-8 of `min` to `max` bytes. */
void validate_text(struct status *st, const char *field, const char *text, size_t min, size_t max);
/* Ids of devices, names of groups: 1 to 128 bytes of [A-Za-z0-9._:@-]. */
void validate_id(struct status *st, const char *field, const char *id);
bool validate_id_ok(const char *id);
/* Every one of `n` ids; the field is "<field>[<index>]". */
void validate_ids(struct status *st, const char *field, char *const *ids, size_t n, size_t min, size_t max);
/* Names of tenants: 1 to 128 bytes of [A-Za-z0-9._-]. */
void validate_tenant_name(struct status *st, const char *field, const char *name);
/* A known value; zero only with `zero_ok`. */
void validate_enum(struct status *st, const char *field, const ProtobufCEnumDescriptor *type, int value, bool zero_ok);
/* A batch, or key number: at least 1. */
void validate_number(struct status *st, const char *field, int64_t number);
/* Returns `value`, or `default_value` for 0. */
uint32_t validate_page_size(struct status *st, uint32_t value, uint32_t default_value, uint32_t max);
/* Milliseconds since 1970 of a Timestamp, or of a Duration; false when out of the range protobuf gives them. */
bool validate_timestamp(int64_t *ms, const Google__Protobuf__Timestamp *t);
bool validate_duration(int64_t *ms, int64_t seconds, int32_t nanos);
/* The same of a Duration that has been found good; `absent` for NULL. */
int64_t validate_duration_or(const Google__Protobuf__Duration *d, int64_t absent);

#endif
