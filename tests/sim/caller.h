/* Who calls the service: submits batches, also steered ones and ones that supersede others, pauses and resumes, cancels
 * them, for some devices or all, holds and releases tenants, deletes devices, and repeats what was not answered.
 * Owns: struct caller. May call: dispatcher/accept, leader, gate_keeper, lib/store/db_*, process. Loop rule: events of
 * the world; what it does in a dispatcher's name it does as dispatcher/submit.c, batches.c, cancel_some.c, holds.c and
 * devices.c do. */
#ifndef MUSTER_TESTS_SIM_CALLER_H
#define MUSTER_TESTS_SIM_CALLER_H

#include "tests/sim/world.h"

/* What a device is given by a batch that has a value per device; gives its length. */
#define CALLER_VALUE_MAX 64
size_t caller_value(char out[CALLER_VALUE_MAX], uint32_t tenant, uint32_t seq, const char *request);

void caller_init(struct world *w, int batches, int64_t until_us);
/* The same with batches of one priority to all devices of a tenant. */
void caller_init_alike(struct world *w, int batches, int64_t until_us);
void caller_free(struct world *w);
/* Nothing of what it wanted is unanswered. */
bool caller_done(const struct world *w);
/* A dispatcher was killed: what it was asked is asked again. */
void caller_lost(struct world *w, const struct process *dispatcher);

#endif
