#include "cli/steering.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/show.h"

void steering_flags_table(struct steering_flags *f, struct arg_flag out[STEERING_FLAG_COUNT])
{
    const struct arg_flag flags[STEERING_FLAG_COUNT] = {
        {"not-before", ARG_TEXT, &f->not_before, "TIME", "send nothing before: 2026-12-01T22:00Z, or 8h from now", 0,
         0},
        {"window", ARG_TEXT, &f->window, "HH:MM-HH:MM", "send only then, by the clock where the device is", 0, 0},
        {"window-days", ARG_TEXT, &f->days, "DAYS", "days on which it opens, such as sat,sun (default all)", 0, 0},
        {"window-zone", ARG_TEXT, &f->zone, "ZONE", "of devices without the attribute time_zone (default UTC)", 0, 0},
        {"delivery-timeout", ARG_DURATION, &f->delivery_ms, "TIME", "what is not sent by then expires", 1000,
         3456000000},
        {"execution-timeout", ARG_DURATION, &f->execution_ms, "TIME", "what has no outcome by then times out", 1000,
         3456000000},
        {"wave", ARG_LIST, &f->waves, "SIZE[:WHEN]",
         "a wave: 1%, 500 or rest, then e.g. 10%:success=95, 20%:after=1h, rest:hand", 0, 0},
        {"canary", ARG_TEXT, &f->canary, "GROUP",
         "its members are the first wave; without --wave the rest goes by hand", 0, 0},
        {"canary-filter", ARG_TEXT, &f->canary_filter, "FILTER", "the same with those that match", 0, 0},
        {"rate", ARG_TEXT, &f->rate, "N[/s|/m|/h]", "send no faster: so many devices a second (minute, hour)", 0, 0},
        {"rate-growth", ARG_TEXT, &f->rate_growth, "PERCENT@N:SUCCESS[:MAX]",
         "to PERCENT after N outcomes, SUCCESS percent of them good: 150%@1000:95", 0, 0},
        {"pause-at", ARG_LIST, &f->pause_at, "PERCENT[:MINIMUM]", "pause when so much of MINIMUM outcomes went wrong",
         0, 0},
        {"abort-at", ARG_LIST, &f->abort_at, "PERCENT[:MINIMUM]", "the same, cancel", 0, 0},
        {"stop-platform-at", ARG_LIST, &f->stop_at, "PERCENT[:MINIMUM]", "the same by platform: hold that one", 0, 0},
        {"abort-platform-at", ARG_LIST, &f->abort_platform_at, "PERCENT[:MINIMUM]",
         "the same by platform: cancel for its devices", 0, 0},
        {"timeouts", ARG_BOOL, &f->timeouts, "", "limit the execution as is usual for the type", 0, 0},
    };
    memcpy(out, flags, sizeof flags);
}

static void read_days(struct invocation *inv, const char *list, Muster__V1__Window *w)
{
    static const char names[][4] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
    char *rest = invocation_copy(inv, list, strlen(list)), *name;

    w->days = invocation_alloc(inv, (strlen(list) + 1) * sizeof *w->days);
    while ((name = strsep(&rest, ",")) != NULL) {
        size_t day = 0;
        while (day < 7 && strcmp(name, names[day]) != 0)
            day++;
        if (day == 7)
            args_refuse(inv, "--window-days %s: \"%s\" is none of mon, tue, wed, thu, fri, sat, sun", list, name);
        w->days[w->n_days++] = (Muster__V1__Day)(day + 1);
    }
}

static Muster__V1__Window *read_window(struct invocation *inv, const struct steering_flags *f)
{
    Muster__V1__Window *w = invocation_alloc(inv, sizeof *w);
    size_t dash = strcspn(f->window, "-");

    if (!f->window[dash])
        args_refuse(inv, "--window %s: is not such as 22:00-05:00", f->window);
    muster__v1__window__init(w);
    w->from = invocation_copy(inv, f->window, dash);
    w->until = (char *)f->window + dash + 1;
    if (f->days)
        read_days(inv, f->days, w);
    if (f->zone)
        w->time_zone = (char *)f->zone;
    return w;
}

/* The number at `text`, in the flag's value `whole`, up to `end`; refuses anything else. */
static uint32_t read_number(struct invocation *inv, const char *flag, const char *whole, const char *text, char **end)
{
    unsigned long n = strtoul(text, end, 10);

    if (*end == text || *text == '-' || n > UINT32_MAX)
        args_refuse(inv, "--%s %s: \"%s\" begins with no number", flag, whole, text);
    return (uint32_t)n;
}

static void read_release(struct invocation *inv, const char *text, const char *whole, Muster__V1__Wave *w)
{
    long long n;
    char unit, rest;
    int end = 0;
    static const int64_t seconds[] = {['s'] = 1, ['m'] = 60, ['h'] = 3600, ['d'] = 86400};

    if (strcmp(text, "hand") == 0) {
        w->release_case = MUSTER__V1__WAVE__RELEASE_BY_HAND;
        w->by_hand = true;
    } else if (sscanf(text, "success=%lld%n", &n, &end) == 1 && (!text[end] || strcmp(text + end, "%") == 0) &&
               n >= 0 && n <= 100) {
        w->release_case = MUSTER__V1__WAVE__RELEASE_SUCCESS_PERCENT;
        w->success_percent = (uint32_t)n;
    } else if (sscanf(text, "after=%lld%c%c", &n, &unit, &rest) == 2 && strchr("smhd", unit) && n >= 0 && n < 100000) {
        w->release_case = MUSTER__V1__WAVE__RELEASE_AFTER;
        w->after = invocation_duration(inv, n * seconds[(unsigned char)unit] * 1000);
    } else {
        args_refuse(inv,
                    "--wave %s: is released by none of success=PERCENT, after=TIME, hand; \"%s\" is not one of them",
                    whole, text);
    }
}

static Muster__V1__Wave *read_wave(struct invocation *inv, const char *text)
{
    Muster__V1__Wave *w = invocation_alloc(inv, sizeof *w);
    char *end = (char *)text + 4;

    muster__v1__wave__init(w);
    if (strncmp(text, "rest", 4) != 0) {
        uint32_t n = read_number(inv, "wave", text, text, &end);
        w->size_case = *end == '%' ? MUSTER__V1__WAVE__SIZE_PERCENT : MUSTER__V1__WAVE__SIZE_DEVICES;
        if (*end == '%') {
            w->percent = n;
            end++;
        } else {
            w->devices = n;
        }
    }
    if (*end == ':')
        read_release(inv, end + 1, text, w);
    else if (*end)
        args_refuse(inv, "--wave %s: is not such as 1%%, 500, rest, 10%%:success=95", text);
    return w;
}

static void add_thresholds(struct invocation *inv, const char *flag, const struct arg_list *list,
                           Muster__V1__ThresholdAction action, bool per_platform, Muster__V1__Steering *s)
{
    for (size_t i = 0; i < list->count; i++) {
        Muster__V1__Threshold *t = invocation_alloc(inv, sizeof *t);
        char *end;
        muster__v1__threshold__init(t);
        t->percent = read_number(inv, flag, list->items[i], list->items[i], &end);
        end += *end == '%';
        if (*end == ':')
            t->minimum = read_number(inv, flag, list->items[i], end + 1, &end);
        if (*end)
            args_refuse(inv, "--%s %s: is not such as 5%%:100", flag, list->items[i]);
        t->action = action;
        t->per_platform = per_platform;
        s->thresholds[s->n_thresholds++] = t;
    }
}

static Muster__V1__RateGrowth *read_growth(struct invocation *inv, const char *text)
{
    Muster__V1__RateGrowth *g = invocation_alloc(inv, sizeof *g);
    uint32_t *const numbers[] = {&g->percent, &g->devices, &g->success_percent, &g->maximum};
    char *end = (char *)text;

    muster__v1__rate_growth__init(g);
    for (int i = 0; i < 4 && (i < 3 || *end); i++) {
        *numbers[i] = read_number(inv, "rate-growth", text, end, &end);
        end += *end == '%' && i != 1;
        if (i < 3 && *end && *end != (i ? ':' : '@'))
            break;
        end += i < 3 && *end;
    }
    if (*end || end[-1] == ':' || !g->success_percent)
        args_refuse(inv, "--rate-growth %s: is not such as 150%%@1000:95", text);
    return g;
}

static Muster__V1__Rate *read_rate(struct invocation *inv, const struct steering_flags *f)
{
    Muster__V1__Rate *rate = invocation_alloc(inv, sizeof *rate);
    char *end;

    muster__v1__rate__init(rate);
    rate->devices = read_number(inv, "rate", f->rate, f->rate, &end);
    if (strcmp(end, "/m") == 0)
        rate->per = invocation_duration(inv, 60 * 1000);
    else if (strcmp(end, "/h") == 0)
        rate->per = invocation_duration(inv, 3600 * 1000);
    else if (*end && strcmp(end, "/s") != 0)
        args_refuse(inv, "--rate %s: is not such as 50, 50/s, 30/m, 100/h", f->rate);
    if (f->rate_growth)
        rate->growth = read_growth(inv, f->rate_growth);
    return rate;
}

static Muster__V1__Wave *canary(struct invocation *inv, const struct steering_flags *f)
{
    Muster__V1__Wave *w = invocation_alloc(inv, sizeof *w);

    if (f->canary && f->canary_filter)
        args_refuse(inv, "takes one of --canary and --canary-filter");
    muster__v1__wave__init(w);
    w->size_case = f->canary ? MUSTER__V1__WAVE__SIZE_GROUP : MUSTER__V1__WAVE__SIZE_FILTER;
    if (f->canary)
        w->group = (char *)f->canary;
    else
        w->filter = (char *)f->canary_filter;
    return w;
}

static void add_rollout(struct invocation *inv, const struct steering_flags *f, Muster__V1__Steering *s)
{
    s->waves = invocation_alloc(inv, (f->waves.count + 2) * sizeof *s->waves);
    if (f->canary || f->canary_filter)
        s->waves[s->n_waves++] = canary(inv, f);
    for (size_t i = 0; i < f->waves.count; i++)
        s->waves[s->n_waves++] = read_wave(inv, f->waves.items[i]);
    if (s->n_waves == 1 && !f->waves.count)
        s->waves[s->n_waves++] = read_wave(inv, "rest:hand");
    s->thresholds = invocation_alloc(
        inv, (f->pause_at.count + f->abort_at.count + f->stop_at.count + f->abort_platform_at.count + 1) *
                 sizeof *s->thresholds);
    add_thresholds(inv, "pause-at", &f->pause_at, MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_PAUSE, false, s);
    add_thresholds(inv, "abort-at", &f->abort_at, MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_ABORT, false, s);
    add_thresholds(inv, "stop-platform-at", &f->stop_at, MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_PAUSE, true, s);
    add_thresholds(inv, "abort-platform-at", &f->abort_platform_at,
                   MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_ABORT, true, s);
}

Muster__V1__Steering *steering_from_flags(struct invocation *inv, const struct steering_flags *f)
{
    bool timeouts = f->timeouts || f->delivery_ms || f->execution_ms;

    if ((f->days || f->zone) && !f->window)
        args_refuse(inv, "--window-days and --window-zone go with --window");
    if (f->rate_growth && !f->rate)
        args_refuse(inv, "--rate-growth goes with --rate");
    if (!f->not_before && !f->rate && !f->canary && !f->canary_filter && !f->window && !timeouts && !f->waves.count &&
        !f->pause_at.count && !f->abort_at.count && !f->stop_at.count && !f->abort_platform_at.count)
        return NULL;
    Muster__V1__Steering *s = invocation_alloc(inv, sizeof *s);
    muster__v1__steering__init(s);
    add_rollout(inv, f, s);
    if (f->rate)
        s->rate = read_rate(inv, f);
    if (f->not_before)
        s->not_before = invocation_time(inv, "not-before", f->not_before);
    if (f->window)
        s->window = read_window(inv, f);
    if (timeouts) {
        s->timeouts = invocation_alloc(inv, sizeof *s->timeouts);
        muster__v1__timeouts__init(s->timeouts);
        s->timeouts->delivery = f->delivery_ms ? invocation_duration(inv, f->delivery_ms) : NULL;
        s->timeouts->execution = f->execution_ms ? invocation_duration(inv, f->execution_ms) : NULL;
    }
    return s;
}

void steering_show(const Muster__V1__Steering *s)
{
    char at[SHOW_TIME_BYTES];

    if (s->not_before)
        printf("  not before   %s\n", show_time(s->not_before, at));
    if (s->window) {
        printf("  window       %s-%s", s->window->from, s->window->until);
        for (size_t i = 0; i < s->window->n_days; i++)
            printf(" %s", show_enum(&muster__v1__day__descriptor, (int)s->window->days[i]));
        printf(", %s where no zone is known\n", s->window->time_zone[0] ? s->window->time_zone : "UTC");
    }
    if (s->n_waves)
        printf("  waves        %zu\n", s->n_waves);
    if (s->n_waves && s->waves[0]->size_case == MUSTER__V1__WAVE__SIZE_GROUP)
        printf("  canary       group %s\n", s->waves[0]->group);
    if (s->n_waves && s->waves[0]->size_case == MUSTER__V1__WAVE__SIZE_FILTER)
        printf("  canary       %s\n", s->waves[0]->filter);
    if (s->rate)
        printf("  rate         %" PRIu32 " devices in %" PRId64 " s\n", s->rate->devices,
               s->rate->per ? s->rate->per->seconds : 1);
    if (s->rate && s->rate->growth)
        printf("  growing      to %" PRIu32 " %% after %" PRIu32 " outcomes, if %" PRIu32 " %% of them are good\n",
               s->rate->growth->percent, s->rate->growth->devices, s->rate->growth->success_percent);
    for (size_t i = 0; i < s->n_thresholds; i++)
        printf("  threshold    %s at %" PRIu32 " %% of at least %" PRIu32 " outcomes%s\n",
               show_enum(&muster__v1__threshold_action__descriptor, (int)s->thresholds[i]->action),
               s->thresholds[i]->percent, s->thresholds[i]->minimum,
               s->thresholds[i]->per_platform ? " a platform" : "");
    if (s->timeouts && s->timeouts->delivery)
        printf("  delivery     within %" PRId64 " s\n", s->timeouts->delivery->seconds);
    if (s->timeouts && s->timeouts->execution)
        printf("  execution    within %" PRId64 " s\n", s->timeouts->execution->seconds);
    else if (s->timeouts)
        printf("  execution    within what is usual for the type\n");
}
