/* Gates, as the leader sees them: what is behind a closed one is not routed, and when a gate is open again all that was
 * behind it is routed anew, for workers have forgotten it.
 * Owns: struct reign_gates. May call: lib/store/db_gate, dispatcher/route, leader_write, leader_reign. Loop rule:
 * non-blocking.
 *
 * Only the workers hold back what must not be sent (workers/gates.h); that the leader does not route is to spare them.
 * So it matters little when the leader learns of a closed gate, but an open one must be confirmed by every worker
 * before it routes. */
#ifndef MUSTER_DISPATCHER_LEADER_GATES_H
#define MUSTER_DISPATCHER_LEADER_GATES_H

#include "dispatcher/leader_reign.h"

struct reign_gates *reign_gates_new(struct reign *r);
void reign_gates_free(struct reign_gates **g);
/* The rows of db_gate_list, all of them. */
void reign_gates_seen(struct reign *r, const struct pg_result *rows);
/* Whether batches of the tenant are not to be routed now. */
bool reign_gates_closed(const struct reign_gates *g, uint32_t tenant);
void reign_gates_tick(struct reign *r);

#endif
