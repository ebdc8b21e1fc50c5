/* The table of muster.v1.CommandService.
 * Owns: the table. May call: nothing. Loop rule: none. */
#ifndef MUSTER_DISPATCHER_SERVICE_COMMAND_H
#define MUSTER_DISPATCHER_SERVICE_COMMAND_H

#include "lib/base/grpc_server.h"

/* Ends with a NULL path; tags are roles (see auth_admit). */
extern const struct grpc_method service_command_methods[];

#endif
