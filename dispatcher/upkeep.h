/* What every dispatcher does now and then, whoever leads: what devices said of their system goes into the labels, the
 * hours in which they were seen become days, and batches that have cooled off, or were not approved in time, are let
 * go. Owns: struct upkeep. May call: lib/store/db_label, db_guard. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_UPKEEP_H
#define MUSTER_DISPATCHER_UPKEEP_H

#include "dispatcher/dispatcher.h"

struct upkeep;

/* Returns owned, or NULL without memory. */
struct upkeep *upkeep_new(struct dispatcher *d);
/* After pg_free: what is under way must have ended. */
void upkeep_free(struct upkeep **upkeep);

#endif
