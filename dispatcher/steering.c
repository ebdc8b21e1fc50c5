#include "dispatcher/steering.h"

#include <stdio.h>
#include <string.h>

#include "dispatcher/validate.h"

#define MINUTE_MS (60 * 1000ll)

static int64_t default_execution(Muster__V1__Command__KindCase kind)
{
    switch (kind) {
    case MUSTER__V1__COMMAND__KIND_LOCK:
    case MUSTER__V1__COMMAND__KIND_UNLOCK:
    case MUSTER__V1__COMMAND__KIND_WIPE:
    case MUSTER__V1__COMMAND__KIND_RESTRICT_FUNCTIONS:
    case MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION:
        return 5 * MINUTE_MS;
    case MUSTER__V1__COMMAND__KIND_CONFIGURE:
    case MUSTER__V1__COMMAND__KIND_REMOVE_APPLICATION:
    case MUSTER__V1__COMMAND__KIND_RESTART:
        return 15 * MINUTE_MS;
    case MUSTER__V1__COMMAND__KIND_BACK_UP:
    case MUSTER__V1__COMMAND__KIND_RESTORE:
        return DAY_MS;
    default:
        return 60 * MINUTE_MS;
    }
}

/* "HH:MM" as minutes, or -1. */
static int read_minutes(const char *text)
{
    if (strlen(text) != 5 || strspn(text, "0123456789") != 2 || text[2] != ':' || strspn(text + 3, "0123456789") != 2)
        return -1;
    int hours = (text[0] - '0') * 10 + text[1] - '0', minutes = (text[3] - '0') * 10 + text[4] - '0';
    return hours > 23 || minutes > 59 ? -1 : hours * 60 + minutes;
}

static void check_window(struct status *st, const Muster__V1__Window *w)
{
    unsigned seen = 0;
    int from = read_minutes(w->from), until = read_minutes(w->until);
    for (size_t i = 0; i < w->n_days && st->violation_count < STATUS_VIOLATIONS_MAX; i++) {
        char field[64];
        snprintf(field, sizeof field, "steering.window.days[%zu]", i);
        validate_enum(st, field, &muster__v1__day__descriptor, (int)w->days[i], false);
        unsigned bit = 1u << ((unsigned)w->days[i] & 31);
        if (seen & bit)
            status_violation(st, field, "stands there already");
        seen |= bit;
    }
    if (from < 0)
        status_violation(st, "steering.window.from", "must be HH:MM, 00:00 to 23:59");
    if (until < 0)
        status_violation(st, "steering.window.until", "must be HH:MM, 00:00 to 23:59");
    else if (from == until)
        status_violation(st, "steering.window.until", "is when it opens: leave the window out to send at any time");
    validate_text(st, "steering.window.time_zone", w->time_zone, 0, DB_ZONE_MAX - 1);
}

static int64_t check_timeout(struct status *st, const char *field, const Google__Protobuf__Duration *d)
{
    int64_t ms = 0;
    if (d && (!validate_duration(&ms, d->seconds, d->nanos) || ms < STEERING_TIMEOUT_MIN_MS || ms > BATCH_LIFE_MAX_MS))
        status_violation(st, field, "must be 1 second to 40 days");
    return ms;
}

void steering_check(struct status *st, const Muster__V1__Steering *in, int64_t now_ms, int64_t expires_ms)
{
    int64_t not_before = 0, delivery = 0;
    if (in->not_before && !validate_timestamp(&not_before, in->not_before))
        status_violation(st, "steering.not_before", "is no time");
    if (in->window)
        check_window(st, in->window);
    if (in->timeouts) {
        delivery = check_timeout(st, "steering.timeouts.delivery", in->timeouts->delivery);
        check_timeout(st, "steering.timeouts.execution", in->timeouts->execution);
    }
    if (st->code != STATUS_OK)
        return;
    int64_t begin = not_before > now_ms ? not_before : now_ms;
    if (begin >= expires_ms)
        status_set(st, STATUS_FAILED_PRECONDITION, "NEVER_SENT", "not_before is not before the batch expires");
    else if (begin + delivery > expires_ms)
        status_set(st, STATUS_FAILED_PRECONDITION, "TIMEOUT_AFTER_EXPIRY",
                   "the delivery timeout ends after the batch expires");
}

static int64_t duration_ms(const Google__Protobuf__Duration *d)
{
    int64_t ms = 0;
    return d && validate_duration(&ms, d->seconds, d->nanos) ? ms : 0;
}

static void read_window(struct db_steer *out, const Muster__V1__Window *w)
{
    struct db_window window = {.from = read_minutes(w->from), .until = read_minutes(w->until)};
    for (size_t i = 0; i < w->n_days; i++)
        if (w->days[i] >= MUSTER__V1__DAY__DAY_MONDAY && w->days[i] <= MUSTER__V1__DAY__DAY_SUNDAY)
            window.days |= 1 << (w->days[i] - 1);
    if (!window.days)
        window.days = 0x7f;
    out->window = db_window_pack(&window);
    snprintf(out->zone, sizeof out->zone, "%s", w->time_zone[0] ? w->time_zone : "UTC");
}

void steering_read(struct db_steer *out, const Muster__V1__Steering *in, Muster__V1__Command__KindCase kind,
                   int64_t created_ms)
{
    *out = (struct db_steer){0};
    if (in->not_before && !validate_timestamp(&out->not_before_ms, in->not_before))
        out->not_before_ms = 0;
    if (in->window)
        read_window(out, in->window);
    if (!in->timeouts)
        return;
    int64_t begin = out->not_before_ms > created_ms ? out->not_before_ms : created_ms;
    if (in->timeouts->delivery)
        out->deliver_by_ms = begin + duration_ms(in->timeouts->delivery);
    out->execution_ms = in->timeouts->execution ? duration_ms(in->timeouts->execution) : default_execution(kind);
}
