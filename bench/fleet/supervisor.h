/* The fleet's first process: starts the others, watches them, reports, and takes them down.
 * Owns: the child processes, the shared counters, the lines on stdout and stderr. May call: process, record, stats.
 * Loop rule: one poll() over signals, a ticking timer, the children's eventfd and standard input. */
#ifndef MUSTER_FLEET_SUPERVISOR_H
#define MUSTER_FLEET_SUPERVISOR_H

#include "bench/fleet/credentials.h"
#include "bench/fleet/options.h"

/* Runs the fleet until it is told to end. Returns the exit status: 0, or 1 when a process of it failed. */
int supervisor_run(const struct options *options, const struct credentials *credentials);

#endif
