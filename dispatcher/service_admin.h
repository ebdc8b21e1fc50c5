/* muster.v1.AdminService: tenants and API keys.
 * Owns: handlers and table. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_SERVICE_ADMIN_H
#define MUSTER_DISPATCHER_SERVICE_ADMIN_H

#include "lib/base/grpc_server.h"

/* Ends with a NULL path; tags are roles (see auth_admit). */
extern const struct grpc_method service_admin_methods[];

#endif
