/* A process's event loop on virtual time.
 * Owns: struct ev_loop as the simulation has it. May call: world. Loop rule: is the loop. */
#ifndef MUSTER_TESTS_SIM_LOOP_H
#define MUSTER_TESTS_SIM_LOOP_H

#include "tests/sim/world.h"

struct ev_loop;

/* Returns owned. */
struct ev_loop *sim_loop_new(struct process *p);
/* Timers still running are forgotten. */
void sim_loop_free(struct ev_loop **loop);
struct process *sim_loop_process(struct ev_loop *loop);
/* Something happens in the process's name: what is to come first in each turn does. */
void sim_loop_turn(struct ev_loop *loop);

#endif
