/* ListCommands, GetCommand, ListDeviceCommands: what became of single commands.
 * Owns: the handlers. May call: lib/store, other parts of the dispatcher. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_COMMANDS_H
#define MUSTER_DISPATCHER_COMMANDS_H

#include "lib/base/grpc_server.h"

void list_commands(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void get_command(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_device_commands(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#endif
