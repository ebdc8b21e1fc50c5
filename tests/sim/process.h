/* The simulated processes: the parts of a dispatcher and of a worker as their main.c put them together.
 * Owns: what process->parts points to. May call: dispatcher/, workers/, world. Loop rule: events of the world. */
#ifndef MUSTER_TESTS_SIM_PROCESS_H
#define MUSTER_TESTS_SIM_PROCESS_H

#include "tests/sim/world.h"

void process_start(struct process *p);
/* SIGKILL: nothing it does from here on reaches anybody. */
void process_kill(struct process *p);
/* SIGTERM: ends by itself, or is killed in the end. */
void process_drain(struct process *p);

struct dispatcher_parts;
struct pg *process_pg(const struct process *p);
struct live *process_live(const struct process *p);
struct leader *process_leader(const struct process *p);
struct gate_keeper *process_gates(const struct process *p);
struct acceptor *process_acceptor(const struct process *p);
/* A batch is durable that the leader of the dispatcher was not given: announced with the commit. */
void process_unannounced(struct process *p, int64_t batch);

#endif
