/* Which devices have as many open commands as they may have, told to those who accept.
 * Owns: nothing; the counts are open_batch.h's. May call: dispatcher/mailboxes, open_counts, lib/store/live. Loop rule:
 * non-blocking. */
#ifndef MUSTER_DISPATCHER_LEADER_MAILBOXES_H
#define MUSTER_DISPATCHER_LEADER_MAILBOXES_H

#include "dispatcher/leader_reign.h"

/* To be called at every tick. */
void leader_mailboxes_tick(struct reign *r);

#endif
