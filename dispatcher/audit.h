/* The audit for those who look at it: ListAudit, VerifyAudit; and noting what no transaction notes.
 * Owns: nothing. May call: lib/store/db_audit. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_AUDIT_H
#define MUSTER_DISPATCHER_AUDIT_H

#include "dispatcher/auth.h"
#include "dispatcher/dispatcher.h"
#include "lib/base/grpc_server.h"

void list_audit(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void verify_audit(struct grpc_call *call, void *service, const ProtobufCMessage *request);

/* Notes what is not done by a transaction that could note it: tried once, in the background. */
void audit_note(struct dispatcher *d, const struct grpc_call *call, const struct caller *caller, const char *action,
                const char *detail, const char *outcome, const char *note);

#endif
