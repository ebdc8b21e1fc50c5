/* The wall clock of one process steps by an hour and back, by libfaketime, which reads the step from a file. */
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/chaos/fault.h"
#include "lib/base/clock.h"

#define READY_S 60
#define END_S   40
/* libfaketime looks at its file once a second. */
#define LOOK_S 1.2

static bool find_library(char out[DEV_PATH_BYTES])
{
    glob_t found;

    if (glob("/usr/lib/*/faketime/libfaketimeMT.so.1", 0, NULL, &found) != 0)
        return false;
    snprintf(out, DEV_PATH_BYTES, "%s", found.gl_pathv[0]);
    globfree(&found);
    return true;
}

const char *fault_clock_prevented(const struct chaos *c)
{
    char path[DEV_PATH_BYTES];

    (void)c;
    return find_library(path) ? NULL : "needs libfaketime";
}

static struct dev_process *victim(struct chaos *c, struct injury *i)
{
    uint32_t dispatchers = (uint32_t)c->options.dispatchers, all = dispatchers + (uint32_t)c->options.workers;
    uint32_t n = i->fault->victim % all;

    return n < dispatchers ? &c->dev.dispatchers[n] : &c->dev.workers[n - dispatchers];
}

static bool set_clock(struct chaos *c, const struct dev_process *p, const char *step)
{
    char path[DEV_PATH_BYTES + 64];

    snprintf(path, sizeof path, "%s/clock-%s", c->dev.data, p->name);
    FILE *out = fopen(path, "we");
    if (!out)
        return false;
    fprintf(out, "%s\n", step);
    return fclose(out) == 0;
}

/* The process is restarted in order, so that the library is in it; then its clock steps while it works. */
bool fault_step_clock(struct chaos *c, struct injury *i)
{
    struct dev_process *p = victim(c, i);
    const char *step = i->fault->victim >> 16 & 1 ? "+3600" : "-3600";
    char library[DEV_PATH_BYTES], text[DEV_PATH_BYTES + 96];

    snprintf(i->victim, sizeof i->victim, "%s %s s", p->name, step);
    if (!find_library(library) || !set_clock(c, p, "+0"))
        return false;
    snprintf(text, sizeof text, "LD_PRELOAD=%s", library);
    dev_process_env(p, text);
    snprintf(text, sizeof text, "FAKETIME_TIMESTAMP_FILE=%s/clock-%s", c->dev.data, p->name);
    dev_process_env(p, text);
    dev_process_env(p, "FAKETIME_CACHE_DURATION=1");
    dev_process_env(p, "DONT_FAKE_MONOTONIC=1");
    dev_process_end(p, SIGTERM, END_S);
    bool up = dev_process_again(p) && dev_process_wait_ready(p, READY_S);
    dev_process_env_clear(p); /* the next start is without it again */
    i->at_ms = clock_wall_ms();
    return up && set_clock(c, p, step);
}

bool fault_set_clock_right(struct chaos *c, struct injury *i)
{
    bool good = set_clock(c, victim(c, i), "+0") && chaos_pause(c, LOOK_S);
    struct slow_time *stepped = evidence_stepped(&c->evidence);

    stepped->from_ms = i->at_ms;
    stepped->to_ms = clock_wall_ms();
    return good;
}
