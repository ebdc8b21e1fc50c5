#include "proto/status.h"

#include <stdio.h>
#include <string.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "lib/base/utf8.h"

#define TYPE_PREFIX      "type.googleapis.com/"
#define ERROR_INFO_TYPE  TYPE_PREFIX "google.rpc.ErrorInfo"
#define BAD_REQUEST_TYPE TYPE_PREFIX "google.rpc.BadRequest"
#define RETRY_INFO_TYPE  TYPE_PREFIX "google.rpc.RetryInfo"

static const char *const code_names[] = {
    "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
};

/* Every reason and metadata key the servers give, so that a decoded status may point to a literal. */
static const char *const known_reasons[] = {
    "INVALID_FIELD",
    "API_KEY_INVALID",
    "API_KEY_MISSING",
    "BATCH_NOT_FOUND",
    "COMMAND_NOT_FOUND",
    "DEADLINE",
    "DEVICE_NOT_FOUND",
    "DRAINING",
    "EMPTY_TARGET",
    "GROUP_EXISTS",
    "GROUP_NOT_FOUND",
    "KEY_NOT_FOUND",
    "MESSAGE_TOO_LARGE",
    "METHOD_UNKNOWN",
    "OVERLOADED",
    "PAGE_TOKEN_INVALID",
    "REQUEST_ID_REUSED",
    "ROLE_INSUFFICIENT",
    "STORE_REFUSED",
    "STORE_UNAVAILABLE",
    "TENANT_EXISTS",
    "TENANT_NOT_FOUND",
    "UNKNOWN_DEVICES",
    "group",
    "unknown_count",
    "GROUP_CYCLE",
    "GROUP_FILTER_INVALID",
    "GROUP_HAS_FILTER",
    "GROUP_HAS_MEMBERS",
    "GROUP_NESTING",
    "TARGET_CHANGED",
    "COMMAND_CHANGED",
    "NOT_AWAITING_APPROVAL",
    "APPROVAL_EXPIRED",
    "SAME_KEY",
    "EXPIRES_BEFORE_RELEASE",
    "TOO_MANY_ATTRIBUTES",
    "TOO_MANY_GROUPS",
    "column",
    "device_count",
    "expected",
    "line",
    "target_digest",
    "BATCH_ENDING",
    "NOT_HELD",
    "OUTSIDE_BATCH",
    "NEVER_SENT",
    "NO_MORE_WAVES",
    "WAVE_NOT_NEXT",
    "WAVES_TOO_LARGE",
    "WAVES_TOO_SMALL",
    "VALUES_MISSING",
    "VALUES_OUTSIDE_TARGET",
    "TIMEOUT_AFTER_EXPIRY",
    "WINDOW_NEVER_OPENS",
    "time_zone",
    "MAILBOX_FULL",
    "full_count",
    "QUOTA_BATCHES",
    "QUOTA_DEVICES",
    "QUOTA_RATE",
    "burst",
    "limit",
};

const char *status_code_name(enum status_code code)
{
    return (unsigned)code < sizeof code_names / sizeof *code_names ? code_names[code] : "UNKNOWN";
}

/* Protobuf strings must be UTF-8, and the words may quote a peer: makes the rest valid in place. `cut` says that the
 * text was cut, so that an incomplete sequence at the end goes too; other bad bytes become '?'. */
static void utf8_clean(char *text, bool cut)
{
    unsigned char *s = (unsigned char *)text;
    while (*s) {
        size_t n = utf8_sequence(s, 4);
        if (n) {
            s += n;
            continue;
        }
        size_t left = strlen((char *)s);
        if (cut && *s >= 0xC2 && left < 4 && left < (size_t)(*s < 0xE0 ? 2 : *s < 0xF0 ? 3 : 4)) {
            *s = 0;
            return;
        }
        *s++ = '?';
    }
}

static void format_text(char *out, size_t size, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
static void format_text(char *out, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(out, size, fmt, ap);
    if (n < 0)
        out[0] = 0;
    utf8_clean(out, n >= (int)size);
}

struct status *status_set(struct status *st, enum status_code code, const char *reason, const char *fmt, ...)
{
    st->code = code;
    st->reason = reason;
    va_list ap;
    va_start(ap, fmt);
    format_text(st->message, sizeof st->message, fmt, ap);
    va_end(ap);
    return st;
}

void status_violation(struct status *st, const char *field, const char *fmt, ...)
{
    char description[sizeof st->violations[0].description];
    va_list ap;
    va_start(ap, fmt);
    format_text(description, sizeof description, fmt, ap);
    va_end(ap);
    if (st->violation_count < STATUS_VIOLATIONS_MAX) {
        unsigned i = st->violation_count;
        int n = snprintf(st->violations[i].field, sizeof st->violations[i].field, "%s", field);
        utf8_clean(st->violations[i].field, n >= (int)sizeof st->violations[i].field);
        memcpy(st->violations[i].description, description, sizeof description);
    }
    st->violation_count++;
    if (st->code == STATUS_OK)
        status_set(st, STATUS_INVALID_ARGUMENT, "INVALID_FIELD", "%s: %s", field, description);
}

void status_metadata(struct status *st, const char *key, const char *fmt, ...)
{
    if (st->metadata_count == STATUS_METADATA_MAX)
        return;
    st->metadata[st->metadata_count].key = key;
    va_list ap;
    va_start(ap, fmt);
    format_text(st->metadata[st->metadata_count].value, sizeof st->metadata[0].value, fmt, ap);
    va_end(ap);
    st->metadata_count++;
}

static void pack(struct buf *out, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *p = buf_reserve(out, size);
    if (p)
        buf_commit(out, protobuf_c_message_pack(message, p));
}

static void any_pack(Google__Protobuf__Any *any, struct buf *store, const char *type, const ProtobufCMessage *message)
{
    google__protobuf__any__init(any);
    any->type_url = (char *)type;
    pack(store, message);
    any->value.data = store->data ? buf_head(store) : NULL;
    any->value.len = buf_len(store);
}

static void encode_error_info(const struct status *st, Google__Protobuf__Any *any, struct buf *store)
{
    Google__Rpc__ErrorInfo__MetadataEntry entries[STATUS_METADATA_MAX];
    Google__Rpc__ErrorInfo__MetadataEntry *list[STATUS_METADATA_MAX];
    for (unsigned i = 0; i < st->metadata_count; i++) {
        google__rpc__error_info__metadata_entry__init(&entries[i]);
        entries[i].key = (char *)st->metadata[i].key;
        entries[i].value = (char *)st->metadata[i].value;
        list[i] = &entries[i];
    }
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    info.reason = (char *)(st->reason ? st->reason : "");
    info.domain = (char *)"muster";
    info.n_metadata = st->metadata_count;
    info.metadata = list;
    any_pack(any, store, ERROR_INFO_TYPE, &info.base);
}

static void encode_bad_request(const struct status *st, Google__Protobuf__Any *any, struct buf *store)
{
    Google__Rpc__BadRequest__FieldViolation violations[STATUS_VIOLATIONS_MAX];
    Google__Rpc__BadRequest__FieldViolation *list[STATUS_VIOLATIONS_MAX];
    unsigned n = st->violation_count < STATUS_VIOLATIONS_MAX ? st->violation_count : STATUS_VIOLATIONS_MAX;
    for (unsigned i = 0; i < n; i++) {
        google__rpc__bad_request__field_violation__init(&violations[i]);
        violations[i].field = (char *)st->violations[i].field;
        violations[i].description = (char *)st->violations[i].description;
        list[i] = &violations[i];
    }
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    bad.n_field_violations = n;
    bad.field_violations = list;
    any_pack(any, store, BAD_REQUEST_TYPE, &bad.base);
}

static void encode_retry_info(const struct status *st, Google__Protobuf__Any *any, struct buf *store)
{
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
    delay.seconds = st->retry_ms / 1000;
    delay.nanos = (int32_t)(st->retry_ms % 1000) * 1000000;
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    retry.retry_delay = &delay;
    any_pack(any, store, RETRY_INFO_TYPE, &retry.base);
}

void status_encode(const struct status *st, struct buf *out)
{
    if (st->code == STATUS_OK)
        return;
    Google__Protobuf__Any any[3], *details[3];
    struct buf store[3] = {0};
    size_t n = 0;
    if (st->reason || st->metadata_count) {
        encode_error_info(st, &any[n], &store[n]);
        n++;
    }
    if (st->violation_count) {
        encode_bad_request(st, &any[n], &store[n]);
        n++;
    }
    if (st->retry_ms > 0) {
        encode_retry_info(st, &any[n], &store[n]);
        n++;
    }
    Google__Rpc__Status message = GOOGLE__RPC__STATUS__INIT;
    message.code = (int32_t)st->code;
    message.message = (char *)st->message;
    message.n_details = n;
    message.details = details;
    for (size_t i = 0; i < n; i++) {
        details[i] = &any[i];
        out->failed |= store[i].failed;
    }
    pack(out, &message.base);
    for (size_t i = 0; i < n; i++)
        buf_free(&store[i]);
}

static const char *known(const char *name)
{
    for (size_t i = 0; i < sizeof known_reasons / sizeof *known_reasons; i++)
        if (strcmp(known_reasons[i], name) == 0)
            return known_reasons[i];
    return "";
}

static void copy_text(char *out, size_t size, const char *text)
{
    int n = snprintf(out, size, "%s", text);
    utf8_clean(out, n >= (int)size);
}

static bool decode_error_info(struct status *st, const ProtobufCBinaryData *value)
{
    Google__Rpc__ErrorInfo *info = google__rpc__error_info__unpack(NULL, value->len, value->data);
    if (!info)
        return false;
    st->reason = known(info->reason);
    copy_text(st->reason_text, sizeof st->reason_text, info->reason);
    for (size_t i = 0; i < info->n_metadata && i < STATUS_METADATA_MAX; i++) {
        st->metadata[i].key = known(info->metadata[i]->key);
        copy_text(st->metadata[i].value, sizeof st->metadata[i].value, info->metadata[i]->value);
        st->metadata_count++;
    }
    google__rpc__error_info__free_unpacked(info, NULL);
    return true;
}

static bool decode_bad_request(struct status *st, const ProtobufCBinaryData *value)
{
    Google__Rpc__BadRequest *bad = google__rpc__bad_request__unpack(NULL, value->len, value->data);
    if (!bad)
        return false;
    for (size_t i = 0; i < bad->n_field_violations && i < STATUS_VIOLATIONS_MAX; i++) {
        copy_text(st->violations[i].field, sizeof st->violations[i].field, bad->field_violations[i]->field);
        copy_text(st->violations[i].description, sizeof st->violations[i].description,
                  bad->field_violations[i]->description);
    }
    st->violation_count =
        bad->n_field_violations < STATUS_VIOLATIONS_MAX ? (unsigned)bad->n_field_violations : STATUS_VIOLATIONS_MAX;
    google__rpc__bad_request__free_unpacked(bad, NULL);
    return true;
}

static bool decode_retry_info(struct status *st, const ProtobufCBinaryData *value)
{
    Google__Rpc__RetryInfo *retry = google__rpc__retry_info__unpack(NULL, value->len, value->data);
    if (!retry)
        return false;
    const Google__Protobuf__Duration *delay = retry->retry_delay;
    /* 10,000 years, the range of google.protobuf.Duration. */
    if (delay && delay->seconds >= 0 && delay->seconds <= 315576000000)
        st->retry_ms = delay->seconds * 1000 + delay->nanos / 1000000;
    google__rpc__retry_info__free_unpacked(retry, NULL);
    return true;
}

static bool decode_detail(struct status *st, const Google__Protobuf__Any *any)
{
    if (strcmp(any->type_url, ERROR_INFO_TYPE) == 0 && !st->metadata_count)
        return decode_error_info(st, &any->value);
    if (strcmp(any->type_url, BAD_REQUEST_TYPE) == 0)
        return decode_bad_request(st, &any->value);
    if (strcmp(any->type_url, RETRY_INFO_TYPE) == 0)
        return decode_retry_info(st, &any->value);
    return true;
}

bool status_decode(struct status *st, struct slice bytes)
{
    Google__Rpc__Status *message = google__rpc__status__unpack(NULL, bytes.len, bytes.data);
    if (!message)
        return false;
    *st = (struct status){0};
    st->code = message->code >= 0 && message->code <= STATUS_UNAUTHENTICATED ? (enum status_code)message->code
                                                                             : STATUS_UNKNOWN;
    copy_text(st->message, sizeof st->message, message->message);
    bool ok = true;
    for (size_t i = 0; i < message->n_details; i++)
        ok &= decode_detail(st, message->details[i]);
    google__rpc__status__free_unpacked(message, NULL);
    return ok;
}
