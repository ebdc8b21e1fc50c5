/* GetDevice, ListDevices, DeleteDevice, IssueCredentials; the hint that devices have changed.
 * Owns: the handlers. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_DEVICES_H
#define MUSTER_DISPATCHER_DEVICES_H

#include <stdint.h>

#include "dispatcher/dispatcher.h"
#include "lib/base/grpc_server.h"

void get_device(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_devices(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void delete_device(struct grpc_call *call, void *service, const ProtobufCMessage *request);
/* Tells the leader that devices of the tenant (0: of some) may be meant by other targets now. */
void devices_changed(struct dispatcher *d, int32_t tenant);
void issue_credentials(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#endif
