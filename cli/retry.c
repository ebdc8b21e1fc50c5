#include "cli/retry.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ATTEMPTS 5

void retry_flags_table(struct retry_flags *f, struct arg_flag out[RETRY_FLAG_COUNT])
{
    const struct arg_flag flags[RETRY_FLAG_COUNT] = {
        {"retry", ARG_TEXT, &f->after, "OUTCOMES", "try again after these: failed,rejected,timed-out", 0, 0},
        {"retry-attempts", ARG_INT, &f->attempts, "N", "deliveries in all (default 5)", 2, 15},
        {"retry-wait", ARG_DURATION, &f->initial_ms, "TIME", "after the first outcome (default 10s)", 1000, 86400000},
        {"retry-factor", ARG_INT, &f->factor, "N", "each wait is so many times the one before (default 2)", 1, 10},
        {"retry-max", ARG_DURATION, &f->max_ms, "TIME", "but no longer than (default 1h)", 1000, 86400000},
    };
    memcpy(out, flags, sizeof flags);
}

static void read_outcomes(struct invocation *inv, const char *text, Muster__V1__Retry *r)
{
    char *rest = invocation_alloc(inv, strlen(text) + 1);
    memcpy(rest, text, strlen(text) + 1);
    for (char *word; (word = strsep(&rest, ",")) != NULL;) {
        if (strcmp(word, "failed") == 0)
            r->failed = 1;
        else if (strcmp(word, "rejected") == 0)
            r->rejected = 1;
        else if (strcmp(word, "timed-out") == 0)
            r->timed_out = 1;
        else
            args_refuse(inv, "--retry %s: is none of failed, rejected, timed-out", word);
    }
}

Muster__V1__Retry *retry_from_flags(struct invocation *inv, const struct retry_flags *f)
{
    if (!f->after && (f->attempts || f->initial_ms || f->factor || f->max_ms))
        args_refuse(inv, "--retry-… needs --retry");
    if (!f->after)
        return NULL;
    Muster__V1__Retry *r = invocation_alloc(inv, sizeof *r);
    muster__v1__retry__init(r);
    read_outcomes(inv, f->after, r);
    r->attempts = f->attempts ? (uint32_t)f->attempts : ATTEMPTS;
    r->factor = (uint32_t)f->factor;
    r->initial = f->initial_ms ? invocation_duration(inv, f->initial_ms) : NULL;
    r->max = f->max_ms ? invocation_duration(inv, f->max_ms) : NULL;
    return r;
}

void retry_show(const Muster__V1__Retry *r)
{
    printf("  retry        after%s%s%s, %" PRIu32 " deliveries", r->failed ? " FAILED" : "",
           r->rejected ? " REJECTED" : "", r->timed_out ? " TIMED_OUT" : "", r->attempts);
    printf(", waiting %" PRId64 " s, then %" PRIu32 " times as long, at most %" PRId64 " s\n",
           r->initial ? r->initial->seconds : 0, r->factor, r->max ? r->max->seconds : 0);
}
