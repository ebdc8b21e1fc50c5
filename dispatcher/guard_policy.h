/* GetGuardPolicy, SetGuardPolicy: see guard.h.
 * Owns: the handlers. May call: lib/store/db_guard, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_GUARD_POLICY_H
#define MUSTER_DISPATCHER_GUARD_POLICY_H

#include "lib/base/grpc_server.h"

void get_guard_policy(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void set_guard_policy(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#endif
