/* Asking for what keeps commands of one device: PostgreSQL and Redis, a few reads each, however many commands.
 * Owns: struct pending. May call: lib/store, pending_reasons. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_PENDING_H
#define MUSTER_DISPATCHER_PENDING_H

#include "dispatcher/dispatcher.h"
#include "dispatcher/pending_reasons.h"
#include "lib/base/err.h"

/* Every command is answered, those of batches that have closed meanwhile with nothing. `err`, `error` as pg_done_fn;
 * Redis may be away. */
typedef void pending_fn(void *arg, enum err err, const struct pg_error *error);

/* Fills in the commands' answers, whose memory comes from the arena; both are borrowed until `done`, which comes
 * once, perhaps before this returns. */
void pending_find(struct dispatcher *d, struct arena *a, int32_t tenant, uint32_t seq, struct pending_command *commands,
                  size_t count, pending_fn *done, void *arg);

#endif
