/* GetDevice, ListDevices, DeleteDevice, IssueCredentials.
 * Owns: the handlers. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_DEVICES_H
#define MUSTER_DISPATCHER_DEVICES_H

#include "lib/base/grpc_server.h"

void get_device(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_devices(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void delete_device(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void issue_credentials(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#endif
