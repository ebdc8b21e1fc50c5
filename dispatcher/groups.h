/* CreateGroup, UpdateGroup, ListGroups, DeleteGroup.
 * Owns: the handlers. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_GROUPS_H
#define MUSTER_DISPATCHER_GROUPS_H

#include "lib/base/grpc_server.h"

void create_group(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void update_group(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_groups(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void delete_group(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#endif
