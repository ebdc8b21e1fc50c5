/* A plan on the terminal, and as JSON.
 * Owns: the look, and what to do about each limit. May call: cli/plan_model, jansson. Loop rule: writes are blocking.
 */
#ifndef MUSTER_CLI_PLAN_SHOW_H
#define MUSTER_CLI_PLAN_SHOW_H

#include <stdbool.h>

#include "cli/plan_model.h"

/* Assumptions, rates, components, limits, the first bottleneck and what to do about it, on standard output. */
void plan_show(const struct plan_input *in, const struct plan *p, const char *measured_on);
/* The same as one line of JSON. False without memory. */
bool plan_show_json(const struct plan_input *in, const struct plan *p, const char *measured_on);

#endif
