/* Who calls: API keys as `authorization: Bearer muster_<id>_<hex>`, and the role each method needs.
 * Owns: struct auth, the memory of keys looked up. May call: lib/store, lib/base. Loop rule: non-blocking.
 *
 * What PostgreSQL said of a key counts for one second from the moment it was asked, so a revoked key is refused by
 * every dispatcher within a second. While PostgreSQL is away a key asked for less than a second ago still works; then
 * calls get UNAVAILABLE, for nobody can say whether the key still holds. */
#ifndef MUSTER_DISPATCHER_AUTH_H
#define MUSTER_DISPATCHER_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/dispatcher.h"
#include "lib/base/grpc_server.h"

/* What a call's data pointer points to: see grpc_call_data. */
enum call_data_kind { CALL_CALLER, CALL_REQUEST };

/* Lives as long as struct auth; tenant and role of a key never change. */
struct caller {
    enum call_data_kind kind; /* CALL_CALLER */
    int64_t key;
    int32_t tenant;
    int role;         /* muster.v1.Role */
    uint32_t guarded; /* bit n: field n of muster.v1.Command is guarded, as of when the key was asked for */
};

struct auth;
/* Returns owned, or NULL without memory. */
struct auth *auth_new(void);
void auth_free(struct auth **auth);

/* Admission hook; the service is a struct dispatcher. A method's tag is the role it needs. Leaves a const struct caller
 * as the call's data. */
bool auth_admit(struct grpc_call *call, void *service);
/* For handlers that look at the role themselves: notes in the audit that it did not do, as admission does. */
void auth_denied(struct dispatcher *d, const struct grpc_call *call, const struct caller *caller);

#endif
