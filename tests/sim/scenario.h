/* Faults that come one after another, as they once did when a promise was not kept: what a seed then adds is the
 * moments, the devices and what callers want. So a mend has its test, whatever else changes the seeds. Owns: the list
 * of scenarios. May call: world. Loop rule: none. */
#ifndef MUSTER_TESTS_SIM_SCENARIO_H
#define MUSTER_TESTS_SIM_SCENARIO_H

#include <stdint.h>

#include "tests/sim/world.h"

#define SCENARIO_STEPS 10

struct scenario_step {
    int64_t at_ms;     /* at the earliest: up to half a second later */
    const char *fault; /* a name of fault.c's table; NULL: no more steps */
    const char *who;   /* d0 …, w0 …; NULL: all */
    int64_t for_ms;
};

struct scenario {
    const char *name;
    int dispatchers, workers;
    struct scenario_step steps[SCENARIO_STEPS];
    int times; /* all steps come so often, 0: once, */
    int64_t every_ms;
    int batches;      /* all of one priority, to all devices of a tenant; 0: as the seed says */
    int64_t lease_ms; /* of workers; 0: the same */
    /* Commands that break their devices' connection are given up after so many losses; 0: there are none. */
    int64_t quarantine_after;
    enum wants wants; /* of callers; WANTS_USUAL: as the seed says */
};

/* NULL: there is none of this name. */
const struct scenario *scenario_find(const char *name);
/* The i-th; NULL behind the last. */
const struct scenario *scenario_at(int i);

#endif
