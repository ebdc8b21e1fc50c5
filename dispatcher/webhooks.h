/* Web hooks for those who make and look after them: the methods of EventService but for WatchEvents.
 * Owns: nothing. May call: lib/store/db_webhook. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_WEBHOOKS_H
#define MUSTER_DISPATCHER_WEBHOOKS_H

#include "lib/base/grpc_server.h"

void create_webhook(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_webhooks(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void delete_webhook(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void rotate_webhook_secret(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void test_webhook(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void list_dead_events(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void replay_dead_events(struct grpc_call *call, void *service, const ProtobufCMessage *request);

#endif
