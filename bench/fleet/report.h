/* The fleet's lines: one per second, "ready", "recorded" and "done", as key=value or JSON.
 * Owns: their form. May call: stdio. Loop rule: writes are short and blocking. */
#ifndef MUSTER_FLEET_REPORT_H
#define MUSTER_FLEET_REPORT_H

#include <stdio.h>

#include "bench/fleet/stats.h"

struct report {
    FILE *out;
    bool json;
    bool begun; /* a key was written */
};

void report_begin(struct report *r, const char *event);
void report_count(struct report *r, const char *key, uint64_t value);
void report_number(struct report *r, const char *key, double value);
/* `value` is one of our own flags: control characters and quotes are escaped for JSON. */
void report_text(struct report *r, const char *key, const char *value);
/* All counters, and last_acked_us. */
void report_stats(struct report *r, const struct stats *s);
/* push_puback_p50_ms, _p99_ms, _p999_ms. */
void report_latency(struct report *r, const struct histogram *h);
/* Ends the line and flushes it. */
void report_end(struct report *r);

#endif
