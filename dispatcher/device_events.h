/* SetDeviceEvents, GetDeviceEvents: whether a tenant is told of devices that come and go.
 * Owns: the handlers. May call: lib/store/db_presence. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_DEVICE_EVENTS_H
#define MUSTER_DISPATCHER_DEVICE_EVENTS_H

#include "lib/base/grpc_server.h"

void set_device_events(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void get_device_events(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#endif
