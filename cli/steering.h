/* When a batch may be sent, as flags of `muster batch submit`.
 * Owns: the flags. May call: cli/args, show. Loop rule: start-up only. */
#ifndef MUSTER_CLI_STEERING_H
#define MUSTER_CLI_STEERING_H

#include "cli/args.h"
#include "muster/v1/steering.pb-c.h"

struct steering_flags {
    const char *not_before, *window, *days, *zone, *rate, *rate_growth, *canary, *canary_filter;
    int64_t delivery_ms, execution_ms;
    bool timeouts;
    struct arg_list waves, pause_at, abort_at, stop_at, abort_platform_at;
};

/* Entries for a table of flags. */
#define STEERING_FLAG_COUNT 16
void steering_flags_table(struct steering_flags *f, struct arg_flag out[STEERING_FLAG_COUNT]);
/* The message, of the call's memory; NULL when no flag was given. */
Muster__V1__Steering *steering_from_flags(struct invocation *inv, const struct steering_flags *f);
/* Prints what a batch's steering says. */
void steering_show(const Muster__V1__Steering *s);

#endif
