/* Brings the values of a batch's devices into Redis, before its blocks are routed.
 * Owns: nothing that outlives a call. May call: lib/store/db_values, live, dispatcher/leader_reign. Loop rule:
 * non-blocking; a few MiB are in memory at a time. */
#ifndef MUSTER_DISPATCHER_LEADER_VALUES_H
#define MUSTER_DISPATCHER_LEADER_VALUES_H

#include "dispatcher/leader_reign.h"

/* `done` comes when all are there, or something failed: then they are to be put once more. The batch is busy until
 * then. */
typedef void values_put_fn(struct reign *r, struct open_batch *batch, enum err err);
void values_put(struct reign *r, struct open_batch *batch, values_put_fn *done);

#endif
