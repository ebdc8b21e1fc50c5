/* muster chaos load: one tenant's caller, a process of its own that keeps batches of mixed kinds coming whatever
 * happens, and writes a journal of what it asked for and was told (cli/chaos/evidence.h). Owns: the mix of batches,
 * repetition until there is an answer. May call: cli/session. Loop rule: calls run the loop until they have ended. */
#ifndef MUSTER_CLI_CHAOS_LOAD_H
#define MUSTER_CLI_CHAOS_LOAD_H

#include "cli/args.h"

/* Ends on SIGTERM, once every request has an answer and every cancel asked for is confirmed. */
int chaos_load_run(struct invocation *inv);

/* Groups that the tenant must have: "group-0" … */
#define LOAD_GROUPS 4

#endif
