/* The batches that a batch has superseded: nothing of it is sent before none of theirs can be that it takes the place
 * of. Owns: struct control_older. May call: lib/store/db_supersede, dispatcher/control, leader_reign. Loop rule:
 * non-blocking.
 *
 * What they lose is asked for of each of them as a cancel for some devices is (batch_cancel), in the transaction that
 * accepts the newer one, so that dispatcher/control.h carries it out, whoever leads. Here is only the waiting. */
#ifndef MUSTER_DISPATCHER_CONTROL_OLDER_H
#define MUSTER_DISPATCHER_CONTROL_OLDER_H

#include "dispatcher/leader_reign.h"

struct control_older;

struct control_older *control_older_new(struct reign *r, struct open_batch *batch);
void control_older_free(struct control_older **older);
/* Whether the batch has to wait. */
bool control_older_holds(const struct control_older *o);
/* True when it has not to any more. */
bool control_older_tick(struct control_older *o);

#endif
