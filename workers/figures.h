/* The worker's metrics: which figure of which part is shown under which name.
 * Owns: the gauges computed at each scrape. May call: lib/base/metrics, every part of workers/. Loop rule: as
 * metrics.h. */
#ifndef MUSTER_WORKERS_FIGURES_H
#define MUSTER_WORKERS_FIGURES_H

#include <stdint.h>

struct metrics;
struct worker;

struct figures {
    struct worker *worker;
    uint64_t redis_up, postgres_up, number, sessions, held;
};

/* Registers all; `figures` must live as long as the metrics. */
void figures_register(struct figures *figures, struct worker *worker, struct metrics *metrics);

#endif
