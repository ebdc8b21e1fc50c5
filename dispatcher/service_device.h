/* The table of muster.v1.DeviceService.
 * Owns: the table. May call: nothing. Loop rule: none. */
#ifndef MUSTER_DISPATCHER_SERVICE_DEVICE_H
#define MUSTER_DISPATCHER_SERVICE_DEVICE_H

#include "lib/base/grpc_server.h"

/* Ends with a NULL path; tags are roles (see auth_admit). */
extern const struct grpc_method service_device_methods[];

#endif
