/* muster batch submit --values FILE: a value per device, from CSV.
 * Owns: nothing. May call: cli/input, proto/fill. Loop rule: reads are blocking.
 *
 * The heading is `id,NAME[,NAME…]`, then comes a line per device; `*` in place of the id gives the values of all
 * devices that have no line. Fields with commas, quotes or line ends stand in double quotes, doubled inside (RFC 4180).
 */
#ifndef MUSTER_CLI_VALUES_H
#define MUSTER_CLI_VALUES_H

#include "cli/args.h"
#include "muster/v1/command_service.pb-c.h"

/* The message, of the call's memory; refuses, naming the line, what is no such file. */
Muster__V1__Values *values_from_file(struct invocation *inv, const char *path);

#endif
