/* The table of muster.v1.ControlService.
 * Owns: the table. May call: nothing. Loop rule: none. */
#ifndef MUSTER_DISPATCHER_SERVICE_CONTROL_H
#define MUSTER_DISPATCHER_SERVICE_CONTROL_H

#include "lib/base/grpc_server.h"

/* Ends with a NULL path; tags are roles (see auth_admit). */
extern const struct grpc_method service_control_methods[];

#endif
