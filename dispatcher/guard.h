/* The blast radius: guarded batches that are held, and who lets them go: ApproveBatch, RejectBatch.
 * Owns: the handlers. May call: lib/store/db_guard, other parts of the dispatcher. Loop rule: non-blocking.
 *
 * What a tenant's policy guards (commands that can't be undone) takes from a budget of devices an hour in the
 * transaction that accepts it; what goes beyond is held until another key approves. A held batch does not exist for the
 * leader. */
#ifndef MUSTER_DISPATCHER_GUARD_H
#define MUSTER_DISPATCHER_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/dispatcher.h"
#include "lib/base/arena.h"
#include "lib/base/grpc_server.h"
#include "lib/store/pg.h"
#include "muster/v1/command_service.pb-c.h"
#include "proto/status.h"

void approve_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void reject_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);

/* Of rows of db_guard_approval; NULL when there is none. */
Muster__V1__BatchApproval *guard_present(struct arena *a, const struct pg_result *r);
/* The batch would end before it is let go, which takes so long. */
void guard_too_long(struct status *st, int64_t kept_ms);
/* Whether this is why the transaction of an acceptance has failed; then `st` says so. */
bool guard_refused(struct status *st, enum err err, const struct pg_error *error);
/* A batch that was held is no longer, or is canceled: whoever leads looks for it. */
void guard_tell_leader(struct dispatcher *d, int64_t batch);

#endif
