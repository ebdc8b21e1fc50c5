/* What is tried again, as flags of `muster batch submit`.
 * Owns: the flags. May call: cli/args, show. Loop rule: start-up only. */
#ifndef MUSTER_CLI_RETRY_H
#define MUSTER_CLI_RETRY_H

#include "cli/args.h"
#include "muster/v1/retry.pb-c.h"

struct retry_flags {
    const char *after;
    int64_t attempts, initial_ms, factor, max_ms;
};

/* Entries for a table of flags. */
#define RETRY_FLAG_COUNT 5
void retry_flags_table(struct retry_flags *f, struct arg_flag out[RETRY_FLAG_COUNT]);
/* The message, of the call's memory; NULL when no flag was given. */
Muster__V1__Retry *retry_from_flags(struct invocation *inv, const struct retry_flags *f);
/* Prints it. */
void retry_show(const Muster__V1__Retry *r);

#endif
