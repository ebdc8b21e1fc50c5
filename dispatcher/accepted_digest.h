/* The digest of those whom a batch addressed when it was accepted.
 * Owns: nothing. May call: lib/store/db_batch, db_control, dispatcher/target_set. Loop rule: none, pure: rows are
 * given.
 */
#ifndef MUSTER_DISPATCHER_ACCEPTED_DIGEST_H
#define MUSTER_DISPATCHER_ACCEPTED_DIGEST_H

#include "dispatcher/target_set.h"
#include "lib/store/pg.h"

/* From the results of db_batch_addressed and db_control_parts: who has joined since is left out. False without memory.
 */
MUST_CHECK bool accepted_digest(const struct pg_result *addressed, const struct pg_result *parts, int32_t tenant,
                                char out[TARGET_DIGEST_TEXT]);

#endif
