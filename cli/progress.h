/* A progress bar with counts, rate and time left.
 * Owns: struct progress. May call: the C library. Loop rule: writes are blocking and short. */
#ifndef MUSTER_CLI_PROGRESS_H
#define MUSTER_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised, then progress_begin. */
struct progress {
    bool terminal;  /* standard error is one: draw over the same line */
    char said[512]; /* the last plain line: none comes twice */
    bool drawn;     /* the cursor stands behind a bar */
    int64_t began_us, last_us;
    uint32_t began_done, last_done;
    double rate; /* commands a second, smoothed over some seconds */
};

void progress_begin(struct progress *p, uint32_t done);
/* Draws `done` of `total` and `counts`, a text such as "9990 SUCCEEDED, 10 SENT". */
void progress_show(struct progress *p, uint32_t done, uint32_t total, const char *counts);
/* Leaves the bar's line. */
void progress_end(struct progress *p);

#endif
