#include "proto/json_common.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z (timestamp.proto). */
#define TIMESTAMP_MIN INT64_C(-62135596800)
#define TIMESTAMP_MAX INT64_C(253402300799)
/* 10,000 years (duration.proto). */
#define DURATION_MAX INT64_C(315576000000)

enum json_special json_special_of(const ProtobufCMessageDescriptor *d)
{
    if (strcmp(d->name, "google.protobuf.Timestamp") == 0)
        return JSON_TIMESTAMP;
    return strcmp(d->name, "google.protobuf.Duration") == 0 ? JSON_DURATION : JSON_PLAIN;
}

bool json_camel(const char *name, char *out, size_t size)
{
    size_t n = 0;
    for (bool upper = false; *name; name++) {
        if (*name == '_') {
            upper = true;
            continue;
        }
        if (n + 1 >= size)
            return false;
        out[n++] = upper ? (char)toupper((unsigned char)*name) : *name;
        upper = false;
    }
    out[n] = 0;
    return true;
}

bool json_is_map(const ProtobufCMessageDescriptor *parent, const ProtobufCFieldDescriptor *field)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    if (entry->n_fields != 2 || entry->fields[0].id != 1 || entry->fields[1].id != 2 ||
        strcmp(entry->fields[0].name, "key") != 0 || strcmp(entry->fields[1].name, "value") != 0)
        return false;
    size_t n = strlen(parent->name);
    char camel[JSON_TEXT_MAX];
    if (strncmp(entry->name, parent->name, n) != 0 || entry->name[n] != '.' ||
        !json_camel(field->name, camel, sizeof camel))
        return false;
    camel[0] = (char)toupper((unsigned char)camel[0]);
    const char *own = entry->name + n + 1;
    size_t m = strlen(camel);
    return strncmp(own, camel, m) == 0 && strcmp(own + m, "Entry") == 0;
}

size_t json_value_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

/* --- times -----------------------------------------------------------------------------------------------------------
 */

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar: years are counted from March, so that the leap
 * day is the last, and in cycles of 400 years (146,097 days). Years here are at least 1. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t cycle = year / 400;
    unsigned in_cycle = (unsigned)(year - cycle * 400);
    unsigned in_year = (153 * (month + (month > 2 ? -3U : 9U)) + 2) / 5 + day - 1;
    return cycle * 146097 + (int64_t)(in_cycle * 365 + in_cycle / 4 - in_cycle / 100 + in_year) - 719468;
}

static void date_of(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    days += 719468;
    int64_t cycle = days / 146097;
    unsigned in_cycle = (unsigned)(days - cycle * 146097);
    unsigned y = (in_cycle - in_cycle / 1460 + in_cycle / 36524 - in_cycle / 146096) / 365;
    unsigned in_year = in_cycle - (365 * y + y / 4 - y / 100);
    unsigned m = (5 * in_year + 2) / 153;
    *day = in_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = (int64_t)y + cycle * 400 + (*month <= 2);
}

/* Writes "", ".678", ".678901" or ".678901234". */
static void write_fraction(uint32_t nanos, char out[static 16])
{
    if (nanos == 0)
        out[0] = 0;
    else if (nanos % 1000000 == 0)
        snprintf(out, 16, ".%03" PRIu32, nanos / 1000000);
    else if (nanos % 1000 == 0)
        snprintf(out, 16, ".%06" PRIu32, nanos / 1000);
    else
        snprintf(out, 16, ".%09" PRIu32, nanos);
}

bool json_write_timestamp(int64_t seconds, int32_t nanos, char out[static JSON_TEXT_MAX])
{
    if (seconds < TIMESTAMP_MIN || seconds > TIMESTAMP_MAX || nanos < 0 || nanos > 999999999)
        return false;
    int64_t year, days = seconds / 86400, rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    unsigned month, day, s = (unsigned)rest;
    char fraction[16];
    date_of(days, &year, &month, &day);
    write_fraction((uint32_t)nanos, fraction);
    snprintf(out, JSON_TEXT_MAX, "%04" PRId64 "-%02u-%02uT%02u:%02u:%02u%sZ", year, month, day, s / 3600, s / 60 % 60,
             s % 60, fraction);
    return true;
}

bool json_write_duration(int64_t seconds, int32_t nanos, char out[static JSON_TEXT_MAX])
{
    if (seconds < -DURATION_MAX || seconds > DURATION_MAX || nanos < -999999999 || nanos > 999999999 ||
        (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0))
        return false;
    char fraction[16];
    write_fraction((uint32_t)(nanos < 0 ? -nanos : nanos), fraction);
    snprintf(out, JSON_TEXT_MAX, "%s%" PRId64 "%ss", seconds < 0 || nanos < 0 ? "-" : "",
             seconds < 0 ? -seconds : seconds, fraction);
    return true;
}

/* Reads exactly `n` digits. */
static bool digits(const char **p, unsigned n, unsigned *out)
{
    *out = 0;
    for (; n > 0; n--, ++*p) {
        if (!isdigit((unsigned char)**p))
            return false;
        *out = *out * 10 + (unsigned)(**p - '0');
    }
    return true;
}

static bool literal(const char **p, char c)
{
    return **p == c && (++*p, true);
}

/* Reads a fraction of one to nine digits if there is a point. */
static bool read_fraction(const char **p, int32_t *nanos)
{
    *nanos = 0;
    if (!literal(p, '.'))
        return true;
    int32_t scale = 100000000;
    const char *first = *p;
    for (; isdigit((unsigned char)**p); ++*p, scale /= 10) {
        if (scale == 0)
            return false;
        *nanos += (**p - '0') * scale;
    }
    return *p > first;
}

/* Reads "Z" or "+02:00"; seconds east of Greenwich. */
static bool read_offset(const char **p, int64_t *offset)
{
    unsigned h, m;
    *offset = 0;
    if (literal(p, 'Z') || literal(p, 'z'))
        return true;
    int64_t sign = **p == '-' ? -1 : 1;
    if (!(literal(p, '+') || literal(p, '-')) || !digits(p, 2, &h) || !literal(p, ':') || !digits(p, 2, &m) || h > 23 ||
        m > 59)
        return false;
    *offset = sign * ((int64_t)h * 3600 + (int64_t)m * 60);
    return true;
}

static unsigned month_days(unsigned year, unsigned month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && leap ? 29 : days[month - 1];
}

bool json_read_timestamp(const char *text, int64_t *seconds, int32_t *nanos)
{
    const char *p = text;
    unsigned year, month, day, h, m, s;
    int64_t offset;
    if (!digits(&p, 4, &year) || !literal(&p, '-') || !digits(&p, 2, &month) || !literal(&p, '-') ||
        !digits(&p, 2, &day) || !(literal(&p, 'T') || literal(&p, 't')) || !digits(&p, 2, &h) || !literal(&p, ':') ||
        !digits(&p, 2, &m) || !literal(&p, ':') || !digits(&p, 2, &s) || !read_fraction(&p, nanos) ||
        !read_offset(&p, &offset) || *p)
        return false;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > month_days(year, month) || h > 23 || m > 59 || s > 59)
        return false;
    *seconds = days_of(year, month, day) * 86400 + (int64_t)(h * 3600 + m * 60 + s) - offset;
    return *seconds >= TIMESTAMP_MIN && *seconds <= TIMESTAMP_MAX;
}

bool json_read_duration(const char *text, int64_t *seconds, int32_t *nanos)
{
    const char *p = text;
    bool negative = literal(&p, '-');
    int64_t n = 0;
    if (!isdigit((unsigned char)*p))
        return false;
    for (; isdigit((unsigned char)*p); p++) {
        n = n * 10 + (*p - '0');
        if (n > DURATION_MAX)
            return false;
    }
    if (!read_fraction(&p, nanos) || !literal(&p, 's') || *p)
        return false;
    *seconds = negative ? -n : n;
    *nanos = negative ? -*nanos : *nanos;
    return true;
}
