#include "dispatcher/steering.h"

#include <stdio.h>
#include <string.h>

#include "dispatcher/filter_find.h"
#include "dispatcher/pace.h"
#include "dispatcher/rollout.h"
#include "dispatcher/usual.h"
#include "dispatcher/validate.h"

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

static void check_wave(struct status *st, const Muster__V1__Wave *w, size_t i, size_t n)
{
    char field[64];
    snprintf(field, sizeof field, "steering.waves[%zu]", i);
    bool percent = w->size_case == MUSTER__V1__WAVE__SIZE_PERCENT,
         devices = w->size_case == MUSTER__V1__WAVE__SIZE_DEVICES,
         canary = w->size_case == MUSTER__V1__WAVE__SIZE_GROUP || w->size_case == MUSTER__V1__WAVE__SIZE_FILTER;
    if ((percent && (w->percent < 1 || w->percent > 100)) || (devices && w->devices < 1))
        status_violation(st, field, "must have 1 to 100 percent, or at least 1 device");
    else if (canary && (i || n < 2))
        status_violation(st, field, "must be the first of several, when it is a canary group");
    else if (!percent && !devices && !canary && i + 1 < n)
        status_violation(st, field, "must say how large it is: only the last one takes all that is left");
    snprintf(field, sizeof field, "steering.waves[%zu].group", i);
    if (w->size_case == MUSTER__V1__WAVE__SIZE_GROUP)
        validate_id(st, field, w->group);
    snprintf(field, sizeof field, "steering.waves[%zu].filter", i);
    if (w->size_case == MUSTER__V1__WAVE__SIZE_FILTER)
        filter_find_check(st, field, w->filter);
    snprintf(field, sizeof field, "steering.waves[%zu].release", i);
    bool stated = w->release_case != MUSTER__V1__WAVE__RELEASE__NOT_SET;
    int64_t ms = 0;
    if (stated != (i > 0))
        status_violation(st, field, i ? "must say when it is released" : "is not for the first wave");
    else if (w->release_case == MUSTER__V1__WAVE__RELEASE_SUCCESS_PERCENT &&
             (w->success_percent < 1 || w->success_percent > 100))
        status_violation(st, field, "must have 1 to 100 percent");
    else if (w->release_case == MUSTER__V1__WAVE__RELEASE_AFTER &&
             (!validate_duration(&ms, w->after->seconds, w->after->nanos) || ms < STEERING_TIMEOUT_MIN_MS ||
              ms > BATCH_LIFE_MAX_MS))
        status_violation(st, field, "must be 1 second to 40 days");
    else if (w->release_case == MUSTER__V1__WAVE__RELEASE_BY_HAND && !w->by_hand)
        status_violation(st, field, "must be true when it is set");
}

static void check_rollout(struct status *st, const Muster__V1__Steering *in)
{
    if (in->n_waves > ROLLOUT_WAVES)
        status_violation(st, "steering.waves", "has %zu entries, allowed are %d", in->n_waves, ROLLOUT_WAVES);
    for (size_t i = 0; i < in->n_waves && i < ROLLOUT_WAVES; i++)
        check_wave(st, in->waves[i], i, in->n_waves);
    if (in->n_thresholds > ROLLOUT_THRESHOLDS)
        status_violation(st, "steering.thresholds", "has %zu entries, allowed are %d", in->n_thresholds,
                         ROLLOUT_THRESHOLDS);
    for (size_t i = 0; i < in->n_thresholds && i < ROLLOUT_THRESHOLDS; i++) {
        const Muster__V1__Threshold *t = in->thresholds[i];
        char field[64];
        snprintf(field, sizeof field, "steering.thresholds[%zu].percent", i);
        if (t->percent < 1 || t->percent > 100)
            status_violation(st, field, "must be 1 to 100");
        snprintf(field, sizeof field, "steering.thresholds[%zu].action", i);
        validate_enum(st, field, &muster__v1__threshold_action__descriptor, (int)t->action, false);
    }
}

static void check_growth(struct status *st, const Muster__V1__Rate *rate)
{
    const Muster__V1__RateGrowth *g = rate->growth;
    if (g->percent <= 100 || g->percent > PACE_GROWTH_MAX)
        status_violation(st, "steering.rate.growth.percent", "must be 101 to %d", PACE_GROWTH_MAX);
    if (!g->devices)
        status_violation(st, "steering.rate.growth.devices", "must be at least 1");
    if (g->success_percent < 1 || g->success_percent > 100)
        status_violation(st, "steering.rate.growth.success_percent", "must be 1 to 100");
    if (g->maximum && (g->maximum < rate->devices || g->maximum > PACE_DEVICES_MAX))
        status_violation(st, "steering.rate.growth.maximum", "must be %u (the rate's devices) to %d", rate->devices,
                         PACE_DEVICES_MAX);
}

static void check_rate(struct status *st, const Muster__V1__Rate *rate)
{
    int64_t ms = PACE_PER_MIN_MS;
    if (rate->devices < 1 || rate->devices > PACE_DEVICES_MAX)
        status_violation(st, "steering.rate.devices", "must be 1 to %d", PACE_DEVICES_MAX);
    if (rate->per &&
        (!validate_duration(&ms, rate->per->seconds, rate->per->nanos) || ms < PACE_PER_MIN_MS || ms > PACE_PER_MAX_MS))
        status_violation(st, "steering.rate.per", "must be 1 second to 1 hour");
    if (rate->growth)
        check_growth(st, rate);
}

static uint32_t percent_of_waves(const Muster__V1__Steering *in)
{
    uint32_t percent = 0;
    for (size_t i = 0; i < in->n_waves; i++)
        percent += in->waves[i]->size_case == MUSTER__V1__WAVE__SIZE_PERCENT ? in->waves[i]->percent : 0;
    return percent;
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
    check_rollout(st, in);
    if (in->rate)
        check_rate(st, in->rate);
    if (st->code != STATUS_OK)
        return;
    if (percent_of_waves(in) > 100) {
        status_set(st, STATUS_FAILED_PRECONDITION, "WAVES_TOO_LARGE", "the waves are more than 100 percent");
        return;
    }
    int64_t begin = not_before > now_ms ? not_before : now_ms;
    if (begin >= expires_ms)
        status_set(st, STATUS_FAILED_PRECONDITION, "NEVER_SENT", "not_before is not before the batch expires");
    else if (begin + delivery > expires_ms)
        status_set(st, STATUS_FAILED_PRECONDITION, "TIMEOUT_AFTER_EXPIRY",
                   "the delivery timeout ends after the batch expires");
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
    out->rollout = in->n_waves || in->n_thresholds || in->rate;
    out->waves = (int32_t)in->n_waves;
    if (!in->timeouts)
        return;
    int64_t begin = out->not_before_ms > created_ms ? out->not_before_ms : created_ms;
    if (in->timeouts->delivery)
        out->deliver_by_ms = begin + validate_duration_or(in->timeouts->delivery, 0);
    out->execution_ms = validate_duration_or(in->timeouts->execution, usual_ms(kind));
}
