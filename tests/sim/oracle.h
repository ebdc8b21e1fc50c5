/* What must hold, watched while a seed runs and looked at when it is over.
 * Owns: struct oracle. May call: world, the models, device. Loop rule: called from events. */
#ifndef MUSTER_TESTS_SIM_ORACLE_H
#define MUSTER_TESTS_SIM_ORACLE_H

#include "lib/base/buf.h"
#include "tests/sim/world.h"

struct device;

void oracle_init(struct world *w);
void oracle_free(struct world *w);

/* --- while it runs ----------------------------------------------------------------------------------------------- */
/* Who is doing what to Redis, for what a violation says. */
void oracle_actor(struct world *w, const struct process *who, struct slice what);
/* A state string of Redis changes (redis_model.h). */
void oracle_state(struct world *w, struct slice key, struct slice before, struct slice after);
/* What Redis had said may be forgotten. */
void oracle_redis_lost(struct world *w);
/* A connection to it broke, or is stalled: what was under way may come again, or late. */
void oracle_redis_cut(struct world *w);
/* A transaction has committed. */
void oracle_committed(struct world *w);
/* SubmitBatch was answered. */
void oracle_accepted(struct world *w, uint64_t batch);
void oracle_delivered(struct world *w, struct device *d, uint64_t batch, unsigned attempt, int64_t sent_us,
                      int64_t sent_ms);
void oracle_executed(struct world *w, struct device *d, uint64_t batch, unsigned attempt, uint8_t outcome);
/* The device says "not now". */
void oracle_put_off(struct world *w, const struct device *d, uint64_t batch);
/* The device has PUBACK of its outcome. */
void oracle_acknowledged(struct world *w, struct device *d, uint64_t batch, uint8_t outcome);

/* --- at the end -------------------------------------------------------------------------------------------------- */
/* Everything accepted is over. */
bool oracle_quiet(const struct world *w);
void oracle_judge(struct world *w);

#endif
