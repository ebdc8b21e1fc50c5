/* The leader as keeper of the ledger: what transactions have noted in its inbox goes to the audit's chains, and
 * events get their numbers.
 * Owns: struct ledger. May call: lib/store/db_audit, db_event. Loop rule: as leader_reign.h.
 *
 * One step at a time, each a fenced transaction of its own, so that the order in which rows leave the inbox is the
 * order of commits for whoever reads on from what it has seen. */
#ifndef MUSTER_DISPATCHER_LEADER_LEDGER_H
#define MUSTER_DISPATCHER_LEADER_LEDGER_H

#include "dispatcher/leader_reign.h"

struct ledger;

/* Returns owned, or NULL without memory. */
struct ledger *ledger_new(struct reign *r);
void ledger_free(struct ledger **ledger);
/* Looks into the inbox, if it is time. */
void ledger_tick(struct reign *r);

#endif
