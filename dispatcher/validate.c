#include "dispatcher/validate.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "dispatcher/filter_find.h"
#include "dispatcher/retry_check.h"
#include "dispatcher/steering.h"
#include "lib/base/buf.h"
#include "lib/base/utf8.h"

/* 0001-01-01 and 9999-12-31, the range of google.protobuf.Timestamp. */
#define TIMESTAMP_SECONDS_MIN (-62135596800ll)
#define TIMESTAMP_SECONDS_MAX 253402300799ll
#define DURATION_SECONDS_MAX  315576000000ll

/* Well-formed UTF-8 (Unicode 15, table 3-7): protobuf-c leaves it to us to look, and PostgreSQL refuses the rest. */
void validate_text(struct status *st, const char *field, const char *text, size_t min, size_t max)
{
    size_t len = strlen(text);
    if (len < min)
        status_violation(st, field, "is empty");
    else if (len > max)
        status_violation(st, field, "has %zu bytes, allowed are %zu", len, max);
    else if (!utf8_good((struct slice){(const uint8_t *)text, len}))
        status_violation(st, field, "is not UTF-8");
}

#define ID_MARKS     "._:@-"
#define TENANT_MARKS "._-"

/* Cheap: called a million times for one request. */
static bool name_ok(const char *name, const char *marks)
{
    size_t len = 0;
    for (const char *p = name; *p; p++, len++) {
        bool ok = (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || strchr(marks, *p);
        if (!ok || len == NAME_BYTES_MAX)
            return false;
    }
    return len > 0;
}

static void validate_name(struct status *st, const char *field, const char *name, const char *marks)
{
    if (!name_ok(name, marks))
        status_violation(st, field, "must be 1 to %u bytes of [A-Za-z0-9%s]", NAME_BYTES_MAX, marks);
}

bool validate_id_ok(const char *id)
{
    return name_ok(id, ID_MARKS);
}

void validate_id(struct status *st, const char *field, const char *id)
{
    validate_name(st, field, id, ID_MARKS);
}

void validate_tenant_name(struct status *st, const char *field, const char *name)
{
    validate_name(st, field, name, TENANT_MARKS);
}

void validate_ids(struct status *st, const char *field, char *const *ids, size_t n, size_t min, size_t max)
{
    if (n < min || n > max) {
        status_violation(st, field, "has %zu entries, allowed are %zu to %zu", n, min, max);
        return;
    }
    /* Past the violations that are kept nobody would see more. */
    for (size_t i = 0; i < n && st->violation_count < STATUS_VIOLATIONS_MAX; i++) {
        if (validate_id_ok(ids[i]))
            continue;
        char path[96];
        snprintf(path, sizeof path, "%s[%zu]", field, i);
        validate_id(st, path, ids[i]);
    }
}

void validate_enum(struct status *st, const char *field, const ProtobufCEnumDescriptor *type, int value, bool zero_ok)
{
    if (value == 0 && !zero_ok)
        status_violation(st, field, "must be stated");
    else if (!protobuf_c_enum_descriptor_get_value(type, value))
        status_violation(st, field, "%d is no %s", value, type->short_name);
}

void validate_number(struct status *st, const char *field, int64_t number)
{
    if (number < 1)
        status_violation(st, field, "must be at least 1");
}

uint32_t validate_page_size(struct status *st, uint32_t value, uint32_t default_value, uint32_t max)
{
    if (value > max)
        status_violation(st, "page_size", "is %u, allowed are 1 to %u", value, max);
    return value ? value : default_value;
}

bool validate_timestamp(int64_t *ms, const Google__Protobuf__Timestamp *t)
{
    if (t->seconds < TIMESTAMP_SECONDS_MIN || t->seconds > TIMESTAMP_SECONDS_MAX || t->nanos < 0 ||
        t->nanos > 999999999)
        return false;
    *ms = t->seconds * 1000 + t->nanos / 1000000;
    return true;
}

bool validate_duration(int64_t *ms, int64_t seconds, int32_t nanos)
{
    if (seconds < -DURATION_SECONDS_MAX || seconds > DURATION_SECONDS_MAX || nanos < -999999999 || nanos > 999999999 ||
        (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0))
        return false;
    *ms = seconds * 1000 + nanos / 1000000;
    return true;
}

int64_t validate_duration_or(const Google__Protobuf__Duration *d, int64_t absent)
{
    int64_t ms = 0;
    return d && validate_duration(&ms, d->seconds, d->nanos) ? ms : absent;
}

/* What is said of whom, `path` being the field of the whole. */
static void validate_kind(struct status *st, const char *path, const Muster__V1__Target *target)
{
    char field[64];
    switch (target->kind_case) {
    case MUSTER__V1__TARGET__KIND_ALL:
        snprintf(field, sizeof field, "%s.all", path);
        if (!target->all)
            status_violation(st, field, "must be true when it is set");
        return;
    case MUSTER__V1__TARGET__KIND_DEVICES:
        snprintf(field, sizeof field, "%s.devices.ids", path);
        validate_ids(st, field, target->devices->ids, target->devices->n_ids, 1, DEVICE_IDS_MAX);
        return;
    case MUSTER__V1__TARGET__KIND_GROUPS:
        snprintf(field, sizeof field, "%s.groups.names", path);
        validate_ids(st, field, target->groups->names, target->groups->n_names, 1, GROUP_NAMES_MAX);
        return;
    case MUSTER__V1__TARGET__KIND_PLATFORM:
        snprintf(field, sizeof field, "%s.platform", path);
        validate_enum(st, field, &muster__v1__platform__descriptor, (int)target->platform, false);
        return;
    case MUSTER__V1__TARGET__KIND_FILTER:
        snprintf(field, sizeof field, "%s.filter", path);
        filter_find_check(st, field, target->filter);
        return;
    case MUSTER__V1__TARGET__KIND__NOT_SET:
    default:
        status_violation(st, path, "must say whom to address");
    }
}

void validate_target(struct status *st, const Muster__V1__Target *target)
{
    if (!target) {
        status_violation(st, "target", "must say whom to address");
        return;
    }
    validate_kind(st, "target", target);
    if (!target->exclude)
        return;
    validate_kind(st, "target.exclude", target->exclude);
    if (target->exclude->exclude)
        status_violation(st, "target.exclude.exclude", "must not be set");
}

static void validate_digest(struct status *st, const char *digest)
{
    if (*digest && (strlen(digest) != DIGEST_TEXT || strspn(digest, "0123456789abcdef") != DIGEST_TEXT))
        status_violation(st, "target_digest", "must be %u hexadecimal digits in lower case", DIGEST_TEXT);
}

static void validate_expiry(struct status *st, const Google__Protobuf__Timestamp *expires_at, int64_t now_ms)
{
    int64_t ms;
    if (!expires_at)
        return;
    if (!validate_timestamp(&ms, expires_at))
        status_violation(st, "expires_at", "is no time");
    else if (ms <= now_ms)
        status_violation(st, "expires_at", "is in the past");
    else if (ms > now_ms + BATCH_LIFE_MAX_MS)
        status_violation(st, "expires_at", "is more than 40 days away");
}

static void validate_steering(struct status *st, const Muster__V1__SubmitBatchRequest *request, int64_t now_ms)
{
    int64_t expires_ms = now_ms + BATCH_LIFE_DEFAULT_MS;
    if (request->expires_at && !validate_timestamp(&expires_ms, request->expires_at))
        assert(st->code != STATUS_OK); /* validate_expiry has said so, and what is compared with it is not looked at */
    if (request->steering)
        steering_check(st, request->steering, now_ms, expires_ms);
}

static void validate_dynamic(struct status *st, const Muster__V1__SubmitBatchRequest *request)
{
    if (request->target && request->target->kind_case == MUSTER__V1__TARGET__KIND_DEVICES)
        status_violation(st, "target.devices", "does not go with dynamic: nobody comes to be listed later");
    if (request->target && muster__v1__target__get_packed_size(request->target) > DYNAMIC_TARGET_MAX)
        status_violation(st, "target", "takes more than %u bytes, which is too much for a dynamic batch",
                         DYNAMIC_TARGET_MAX);
}

void validate_submit(struct status *st, const Muster__V1__SubmitBatchRequest *request, int64_t now_ms)
{
    validate_text(st, "request_id", request->request_id, request->validate_only ? 0 : 1, REQUEST_ID_MAX);
    if (!request->command)
        status_violation(st, "command", "must be set");
    else if (request->values)
        validate_values(st, request->command, request->values);
    else
        validate_command(st, request->command);
    if (request->target || !request->values || !request->values->n_device_ids)
        validate_target(st, request->target);
    validate_text(st, "description", request->description, 0, BATCH_DESCRIPTION_MAX);
    validate_enum(st, "priority", &muster__v1__priority__descriptor, (int)request->priority, true);
    validate_expiry(st, request->expires_at, now_ms);
    validate_steering(st, request, now_ms);
    validate_digest(st, request->target_digest);
    if (request->dynamic)
        validate_dynamic(st, request);
    if (request->retry)
        retry_check(st, request->retry, request->steering && request->steering->timeouts);
    validate_text(st, "supersede_key", request->supersede_key, 0, SUPERSEDE_KEY_MAX);
    if (request->dynamic && request->values && st->code == STATUS_OK)
        status_set(st, STATUS_FAILED_PRECONDITION, "DYNAMIC_VALUES",
                   "a dynamic batch has no values: devices that join later would have none");
}
