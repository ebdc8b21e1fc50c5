/* What goes wrong in a seed: how rough the network is all the time, and what happens once.
 * Owns: struct faults. May call: everything of the simulation. Loop rule: events of the world. */
#ifndef MUSTER_TESTS_SIM_FAULT_H
#define MUSTER_TESTS_SIM_FAULT_H

#include "tests/sim/world.h"

/* Shares in a thousand. */
struct fault_plan {
    unsigned slow_per_mille; /* messages that take up to slow_us */
    int64_t slow_us;
    unsigned slow_commit; /* transactions that take up to slow_commit_us */
    int64_t slow_commit_us;
    unsigned ghosts;      /* what a client has given up and is carried out all the same */
    unsigned ghosts_late; /* of these, later than it would have been */
    unsigned hint_lost;   /* messages of muster:events that do not come, */
    unsigned hint_odd;    /* or late, or twice */
    int64_t in_flight, worker_lease_ms, not_now_ms;
    int64_t quarantine_after; /* as the worker's option; 0: no command breaks its device's connection either */
    int count;                /* things that happen once */
    bool skews;               /* clocks differ */
};

struct scenario;
/* What the seed says, what the scenario says, or nothing. */
void faults_init(struct world *w, bool none, const struct scenario *scenario);
void faults_free(struct world *w);
const struct fault_plan *fault_plan(const struct world *w);
/* How wrong the clock of a process that starts now is. */
int64_t fault_skew(struct world *w);
/* Whatever is stopped, cut or away is put right, for good. */
void faults_heal(struct world *w);
/* When nothing new goes wrong any more. */
int64_t faults_end_us(const struct world *w);

#endif
