/* What every dispatcher does now and then, whoever leads: what devices said of their system goes into the labels, and
 * the hours in which they were seen become days. Owns: struct upkeep. May call: lib/store/db_label. Loop rule:
 * non-blocking. */
#ifndef MUSTER_DISPATCHER_UPKEEP_H
#define MUSTER_DISPATCHER_UPKEEP_H

#include <ev.h>

struct pg;
struct upkeep;

/* Returns owned, or NULL without memory. */
struct upkeep *upkeep_new(struct ev_loop *loop, struct pg *pg);
/* After pg_free: what is under way must have ended. */
void upkeep_free(struct upkeep **upkeep);

#endif
