/* The table of muster.v1.EventService.
 * Owns: the table. May call: nothing. Loop rule: none. */
#ifndef MUSTER_DISPATCHER_SERVICE_EVENT_H
#define MUSTER_DISPATCHER_SERVICE_EVENT_H

#include "lib/base/grpc_server.h"

/* Ends with a NULL path; tags are roles (see auth_admit). */
extern const struct grpc_method service_event_methods[];

#endif
