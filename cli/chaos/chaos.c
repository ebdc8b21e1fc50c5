/* muster chaos: a table of contents of a run. */
#include "cli/chaos/chaos.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chaos/proxy.h"
#include "cli/commands.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

void chaos_say(const struct chaos *c, const char *fmt, ...)
{
    FILE *out = c->inv->common.json ? stderr : stdout;
    double seconds = (double)(clock_mono_us() - c->began_us) / 1e6;
    va_list ap;

    fprintf(out, "%7.1f  ", seconds);
    va_start(ap, fmt);
    vfprintf(out, fmt, ap);
    va_end(ap);
    fputc('\n', out);
    fflush(out);
}

static void on_time(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)events;
    *(bool *)w->data = true;
    ev_break(loop, EVBREAK_ALL);
}

bool chaos_pause(struct chaos *c, double seconds)
{
    struct dev_group *g = &c->dev.group;
    bool over = false;
    ev_timer timer;

    ev_timer_init(&timer, on_time, seconds > 0 ? seconds : 0, 0.);
    timer.data = &over;
    ev_now_update(g->loop);
    ev_timer_start(g->loop, &timer);
    while (!over && !g->broken)
        ev_run(g->loop, 0);
    ev_timer_stop(g->loop, &timer);
    return !g->broken;
}

static void list_faults(void)
{
    for (int i = 0; i < FAULT_KINDS; i++) {
        const struct fault_kind_info *info = fault_kind_info((enum fault_kind)i);
        printf("%-17s %-5s %s\n", info->name, info->kill ? "kill" : "", info->what);
    }
}

static void print_schedule(const struct chaos_options *o)
{
    for (unsigned round = 1; round <= o->rounds; round++) {
        struct schedule s;
        chaos_schedule_make(&s, (uint64_t)o->seed + (uint64_t)(round - 1) * 0x9e3779b97f4a7c15u, o->count);
        for (size_t i = 0; i < s.count; i++)
            printf("%u %-4zu %s %-17s victim %-10" PRIu32 " hold %u ms, pause %u ms\n", round, i + 1,
                   s.faults[i].together ? "with" : "then", fault_kind_info(s.faults[i].kind)->name, s.faults[i].victim,
                   s.faults[i].hold_ms, s.faults[i].together ? 0u : s.faults[i].pause_ms);
        chaos_schedule_free(&s);
    }
}

/* "kill-worker" or "kill-worker=7" into the counts. */
static void count_one(struct invocation *inv, struct chaos_options *o, const char *text)
{
    char name[32];
    const char *equals = strchr(text, '=');
    enum fault_kind kind;

    snprintf(name, sizeof name, "%.*s", (int)(equals ? equals - text : (ptrdiff_t)strlen(text)), text);
    if (!fault_kind_find(name, &kind))
        args_refuse(inv, "--fault %s: is no fault; --list-faults lists them", text);
    o->count[kind] = equals ? (unsigned)args_number(inv, "--fault", equals + 1)
                            : (unsigned)(fault_kind_info(kind)->kill ? o->kills : o->others);
}

static void count_faults(struct invocation *inv, struct chaos_options *o)
{
    for (size_t i = 0; i < o->faults.count; i++)
        count_one(inv, o, o->faults.items[i]);
    if (o->faults.count)
        return;
    /* The four that a process can die of; the other ways of losing Redis and PostgreSQL count with the others. */
    for (int i = 0; i < FAULT_KINDS; i++)
        o->count[i] = (unsigned)(i <= FAULT_KILL_POSTGRES ? o->kills : o->others);
}

static int verdict_of(struct chaos *c)
{
    bool good = verdict_is_good(&c->verdict);

    chaos_report(c);
    if (c->dev.group.stopping && good) {
        fprintf(stderr, "Interrupted: no verdict.\n");
        return EXIT_NOT_ALL;
    }
    if (!c->inv->common.json)
        printf("%s\n", good ? "Good: every promise was kept." : "BROKEN: see above.");
    return good ? EXIT_DONE : EXIT_NOT_ALL;
}

static int run(struct chaos *c)
{
    bool up = dev_group_init(&c->dev.group, c->inv->command) && chaos_bring_up(c), good = up;
    int status = EXIT_NOT_ALL;

    for (unsigned round = 1; good && round <= c->options.rounds && verdict_is_good(&c->verdict); round++)
        good = chaos_round(c, round);
    if (c->dev.group.failed)
        verdict_complain(&c->verdict, BREACH_PROCESS, "a process ended by itself: see the lines before");
    else if (up && !good && !c->dev.group.stopping && verdict_is_good(&c->verdict))
        verdict_complain(&c->verdict, BREACH_HANG, "the run could not go on: see the lines before");
    if (up)
        status = verdict_of(c);
    bool keep = c->options.keep || (!c->dev.group.stopping && status != EXIT_DONE);
    chaos_take_down(c);
    chaos_small_disks_end(c, keep);
    if (keep && c->dev.run[0])
        fprintf(stderr, "Data and logs are left in %s\n", c->dev.data);
    else
        dev_folders_remove(&c->dev);
    dev_group_free(&c->dev.group);
    return status;
}

int chaos_run(struct invocation *inv)
{
    struct chaos *c = calloc(1, sizeof *c); /* too large for a stack, and gone with the process */
    struct chaos_options *o = c ? &c->options : NULL;

    if (!c)
        return EXIT_NOT_ALL;
    *o = (struct chaos_options){.seed = 1,
                                .rounds = 1,
                                .devices = 5000,
                                .dispatchers = 2,
                                .workers = 3,
                                .rate = 240,
                                .kills = 10,
                                .others = 3,
                                .patience_ms = 3600000,
                                .log_level = "info"};
    const struct arg_flag flags[] = {
        {"seed", ARG_INT, &o->seed, "N", "the schedule follows from it (default 1)", 0, INT64_MAX},
        {"rounds", ARG_INT, &o->rounds, "N", "rounds of faults, each judged at its end (default 1)", 1, 100000},
        {"kills", ARG_INT, &o->kills, "N", "of dispatchers, workers, Redis, PostgreSQL each, in a round (default 10)",
         0, 10000},
        {"others", ARG_INT, &o->others, "N", "of every other fault in a round (default 3)", 0, 10000},
        {"fault", ARG_LIST, &o->faults, "NAME[=N]", "only this one; may be repeated", 0, 0},
        {"list-faults", ARG_BOOL, &o->list_faults, "", "say which there are, and end", 0, 0},
        {"print-schedule", ARG_BOOL, &o->print_schedule, "", "say what would be done when, and end", 0, 0},
        {"devices", ARG_INT, &o->devices, "N", "simulated devices (default 5000)", 200, PROXY_DEVICES_MAX},
        {"dispatchers", ARG_INT, &o->dispatchers, "N", "dispatcher processes (default 2)", 1, CHAOS_DISPATCHERS},
        {"workers", ARG_INT, &o->workers, "N", "worker processes (default 3)", 1, CHAOS_WORKERS - 1},
        {"rate", ARG_INT, &o->rate, "N", "batches a minute of each tenant (default 240)", 1, 60000},
        {"keep", ARG_BOOL, &o->keep, "", "leave data and logs, however it ends", 0, 0},
        {"daemon-log-level", ARG_TEXT, &o->log_level, "LEVEL", "of dispatchers and workers (default info)", 0, 0},
        {0},
    };
    struct args a = {
        .positional = "",
        .flags = flags,
        .notes = "Exit status 0 when every promise was kept, 1 when one was broken or the run did not end; data "
                 "and logs are\nleft then. The same seed makes the same schedule."};

    args_parse(inv, &a);
    c->inv = inv;
    c->proxy_socket = -1;
    c->began_us = clock_mono_us();
    count_faults(inv, o);
    if (o->list_faults || o->print_schedule) {
        if (o->list_faults)
            list_faults();
        else
            print_schedule(o);
        free(c);
        return EXIT_DONE;
    }
    c->dev.inv = inv;
    c->dev.options = (struct dev_options){
        .devices = o->devices, .workers = o->workers, .dispatchers = o->dispatchers, .log_level = o->log_level};
    log_init("muster", LOG_ERROR);
    int status = run(c);
    free(c);
    return status;
}
