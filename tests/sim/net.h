/* How messages travel: the time they take, and what a fault does to a connection.
 * Owns: struct wire. May call: world. Loop rule: none. */
#ifndef MUSTER_TESTS_SIM_NET_H
#define MUSTER_TESTS_SIM_NET_H

#include "tests/sim/world.h"

/* One direction of a connection: what is sent first arrives first. */
struct wire {
    int64_t last_us;  /* when what was sent last arrives */
    int64_t stall_us; /* nothing arrives before */
};

/* Usually a fraction of a millisecond; now and then much more, up to what the seed's network does. */
int64_t net_delay(struct world *w);
/* When something sent now arrives. */
int64_t wire_arrival(struct world *w, struct wire *wire);
/* Nothing that is sent from now on arrives before; what is under way is for the caller to put off. */
void wire_stall(struct wire *wire, int64_t until_us);

#endif
