/* Quotas: GetQuota, SetQuota, and what callers are told who go beyond one.
 * Owns: the handlers. May call: lib/store/db_quota, other parts of the dispatcher. Loop rule: non-blocking.
 *
 * Whether something goes beyond is decided by PostgreSQL, in the transaction that would have done it: see db_quota.h.
 */
#ifndef MUSTER_DISPATCHER_QUOTA_H
#define MUSTER_DISPATCHER_QUOTA_H

#include "dispatcher/request.h"
#include "lib/base/grpc_server.h"
#include "lib/store/db_quota.h"
#include "proto/status.h"

#define QUOTA_DEVICES "QUOTA_DEVICES" /* the reason that devices which were refused are answered with */

void get_quota(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void set_quota(struct grpc_call *call, void *service, const ProtobufCMessage *request);

/* The reason that a batch which was refused is answered with: a literal. */
const char *quota_batch_reason(const struct db_quota_refusal *refusal);
/* A batch of `commands` commands was refused; rows of db_quota_limits, none when the quota has gone since. */
void quota_batch_status(struct status *st, const struct db_quota_refusal *refusal, uint32_t commands,
                        const struct pg_result *limits);
/* For the audit and the figures: a quota has refused this, and for that many devices. `reason` is a literal. */
void quota_note_refused(const struct request *r, const char *reason, uint32_t devices);
/* Devices were refused: DB_QUOTA_DEVICES_STATE with this message. */
void quota_devices_status(struct status *st, const char *message);

#endif
