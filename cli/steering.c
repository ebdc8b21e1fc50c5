#include "cli/steering.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/show.h"
#include "lib/base/clock.h"

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
        {"timeouts", ARG_BOOL, &f->timeouts, "", "limit the execution as is usual for the type", 0, 0},
    };
    memcpy(out, flags, sizeof flags);
}

static Google__Protobuf__Timestamp *read_time(struct invocation *inv, const char *text)
{
    Google__Protobuf__Timestamp *out = invocation_alloc(inv, sizeof *out);
    struct tm t = {0};
    long long n;
    char unit, rest;

    google__protobuf__timestamp__init(out);
    if (sscanf(text, "%lld%c%c", &n, &unit, &rest) == 2 && strchr("smhd", unit) && n >= 0 && n < 100000) {
        static const int64_t seconds[] = {['s'] = 1, ['m'] = 60, ['h'] = 3600, ['d'] = 86400};
        out->seconds = clock_wall_ms() / 1000 + n * seconds[(unsigned char)unit];
        return out;
    }
    const char *end = strptime(text, "%Y-%m-%dT%H:%M", &t);
    if (end && *end == ':')
        end = strptime(end, ":%S", &t);
    if (!end || strcmp(end, "Z") != 0)
        args_refuse(inv, "--not-before %s: is neither a time such as 2026-12-01T22:00Z nor one from now such as 8h",
                    text);
    out->seconds = timegm(&t);
    return out;
}

static Google__Protobuf__Duration *duration(struct invocation *inv, int64_t ms)
{
    Google__Protobuf__Duration *out = invocation_alloc(inv, sizeof *out);

    google__protobuf__duration__init(out);
    out->seconds = ms / 1000;
    out->nanos = (int32_t)(ms % 1000) * 1000000;
    return out;
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
    const char *dash = strchr(f->window, '-');

    if (!dash)
        args_refuse(inv, "--window %s: is not such as 22:00-05:00", f->window);
    muster__v1__window__init(w);
    w->from = invocation_copy(inv, f->window, (size_t)(dash - f->window));
    w->until = (char *)dash + 1;
    if (f->days)
        read_days(inv, f->days, w);
    if (f->zone)
        w->time_zone = (char *)f->zone;
    return w;
}

Muster__V1__Steering *steering_from_flags(struct invocation *inv, const struct steering_flags *f)
{
    bool timeouts = f->timeouts || f->delivery_ms || f->execution_ms;

    if ((f->days || f->zone) && !f->window)
        args_refuse(inv, "--window-days and --window-zone go with --window");
    if (!f->not_before && !f->window && !timeouts)
        return NULL;
    Muster__V1__Steering *s = invocation_alloc(inv, sizeof *s);
    muster__v1__steering__init(s);
    if (f->not_before)
        s->not_before = read_time(inv, f->not_before);
    if (f->window)
        s->window = read_window(inv, f);
    if (timeouts) {
        s->timeouts = invocation_alloc(inv, sizeof *s->timeouts);
        muster__v1__timeouts__init(s->timeouts);
        s->timeouts->delivery = f->delivery_ms ? duration(inv, f->delivery_ms) : NULL;
        s->timeouts->execution = f->execution_ms ? duration(inv, f->execution_ms) : NULL;
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
    if (s->timeouts && s->timeouts->delivery)
        printf("  delivery     within %" PRId64 " s\n", s->timeouts->delivery->seconds);
    if (s->timeouts && s->timeouts->execution)
        printf("  execution    within %" PRId64 " s\n", s->timeouts->execution->seconds);
    else if (s->timeouts)
        printf("  execution    within what is usual for the type\n");
}
