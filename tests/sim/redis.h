/* The simulated Redis server and what can happen to it. The client side of it is lib/store/redis.h.
 * Owns: connections of all processes, requests under way, clients that wait in BLMPOP. May call: world, net,
 * redis_model. Loop rule: events of the world. */
#ifndef MUSTER_TESTS_SIM_REDIS_H
#define MUSTER_TESTS_SIM_REDIS_H

#include "tests/sim/world.h"

void sim_redis_init(struct world *w);
void sim_redis_free(struct world *w);

/* The connections of one process (NULL: of all) break. What was on its way to Redis may still be carried out. */
void sim_redis_cut(struct world *w, const struct process *p);
/* Nothing gets through between the process and Redis until then. */
void sim_redis_stall(struct world *w, const struct process *p, int64_t until_us);
/* FLUSHALL. */
void sim_redis_flush(struct world *w);
/* The server ends, and comes again after `away_us` with what it had `lost_us` before its end (INT64_MAX: empty). */
void sim_redis_restart(struct world *w, int64_t away_us, int64_t lost_us);
/* Keeps the present content, for a restart that loses what follows. */
void sim_redis_remember(struct world *w);

#endif
