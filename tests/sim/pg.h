/* The simulated PostgreSQL server and what can happen to it. The client side of it is lib/store/pg.h.
 * Owns: sessions, transactions under way. May call: world, net, pg_model. Loop rule: events of the world.
 *
 * A transaction draws its numbers and passes the fence when it begins, and does all else when it commits. One that only
 * reads may read each statement at a time of its own. */
#ifndef MUSTER_TESTS_SIM_PG_H
#define MUSTER_TESTS_SIM_PG_H

#include "tests/sim/world.h"

void sim_pg_init(struct world *w);
void sim_pg_free(struct world *w);

/* The connections of one process (NULL: of all) break. What was on its way may still be committed. */
void sim_pg_cut(struct world *w, const struct process *p);
/* Nothing gets through between the process and PostgreSQL until then. */
void sim_pg_stall(struct world *w, const struct process *p, int64_t until_us);
/* The server ends, and comes again: what has not committed never will. */
void sim_pg_restart(struct world *w, int64_t away_us);

#endif
