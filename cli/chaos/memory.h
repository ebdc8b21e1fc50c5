/* How much memory the daemons use, looked at every second and held against their bounds.
 * Owns: struct chaos_memory, the bounds. May call: /proc. Loop rule: a timer on the loop. */
#ifndef MUSTER_CLI_CHAOS_MEMORY_H
#define MUSTER_CLI_CHAOS_MEMORY_H

#include "cli/chaos/chaos.h"

/* Begins to look; borrows the run. Aborts without memory. */
struct chaos_memory *memory_new(struct chaos *c);
void memory_free(struct chaos_memory **m);

/* What was seen of processes of one kind. */
struct memory_peak {
    const char *name;
    uint64_t peak, bound; /* bytes */
};
#define MEMORY_KINDS 3
void memory_peaks(const struct chaos_memory *m, struct memory_peak out[MEMORY_KINDS]);

#endif
