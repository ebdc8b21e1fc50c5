/* What goes wrong when: a list of faults that follows from a seed alone, so that a run can be repeated.
 * Owns: the kinds of faults, struct schedule. May call: the C library. Loop rule: none, pure.
 *
 * Faults come in volleys: those of one volley are injected together, and the next waits until the installation has
 * recovered. A volley never touches one resource twice. */
#ifndef MUSTER_CLI_CHAOS_SCHEDULE_H
#define MUSTER_CLI_CHAOS_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

enum fault_kind {
    FAULT_KILL_DISPATCHER,
    FAULT_KILL_WORKER,
    FAULT_KILL_REDIS,
    FAULT_KILL_POSTGRES,
    FAULT_LOSE_REDIS,  /* killed, and comes back with no append-only file */
    FAULT_TEAR_REDIS,  /* killed, and the end of its append-only file is cut off */
    FAULT_FLUSH_REDIS, /* FLUSHALL */
    FAULT_STOP_DISPATCHER,
    FAULT_STOP_WORKER, /* past its lease, then it goes on */
    FAULT_PROMOTE_POSTGRES,
    FAULT_CUT_NETWORK,
    FAULT_DELAY_NETWORK,
    FAULT_LOSE_PACKETS,
    FAULT_FILL_WAL,
    FAULT_FILL_AOF,
    FAULT_STEP_CLOCK,
    FAULT_RECONNECT_ALL,
    FAULT_RESTART_ALL,
    FAULT_KINDS
};

/* What a fault touches. */
enum {
    TOUCHES_DISPATCHER = 1,
    TOUCHES_WORKER = 2,
    TOUCHES_REDIS = 4,
    TOUCHES_POSTGRES = 8,
    TOUCHES_NETWORK = 16,
    TOUCHES_FLEET = 32,
    TOUCHES_ALL = 63
};

struct fault_kind_info {
    const char *name; /* "kill-worker" */
    const char *what; /* one line */
    bool kill;        /* counts among the kills */
    bool forgets;     /* Redis may lose its last second by it, or all; a worker what it sent */
    unsigned touches;
    uint16_t hold_min_ms, hold_max_ms; /* from injecting to healing */
};

const struct fault_kind_info *fault_kind_info(enum fault_kind kind);
/* False when there is no such name. */
MUST_CHECK bool fault_kind_find(const char *name, enum fault_kind *kind);

struct fault {
    enum fault_kind kind;
    uint32_t victim; /* a number drawn for the kind to choose by: taken modulo what there is */
    uint16_t hold_ms;
    uint16_t pause_ms; /* of the first of a volley: load without faults before it */
    bool together;     /* injected with the fault before it */
};

struct schedule {
    struct fault *faults;
    size_t count;
};

/* A round of `count[kind]` faults of each kind, shuffled. Aborts without memory. */
void chaos_schedule_make(struct schedule *s, uint64_t seed, const unsigned count[FAULT_KINDS]);
void chaos_schedule_free(struct schedule *s);

/* SplitMix64 (Steele, Lea, Flood 2014): the next number of a sequence. */
uint64_t schedule_random(uint64_t *state);

#endif
