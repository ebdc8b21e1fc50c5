/* WatchBatch: progress of batches to whoever watches (DESIGN step 6).
 * Owns: struct watches, a struct for each batch watched and each watcher. May call: lib/store, view. Loop rule:
 * non-blocking.
 *
 * A batch is looked at once per interval (the shortest its watchers want), however many they are. A watcher that does
 * not read gets no messages until it does, then the newest: nothing piles up. */
#ifndef MUSTER_DISPATCHER_WATCH_H
#define MUSTER_DISPATCHER_WATCH_H

#include <stdint.h>

#include "dispatcher/dispatcher.h"
#include "lib/base/grpc_server.h"

struct watches;

/* Returns owned, or NULL without memory. */
struct watches *watches_new(struct dispatcher *d);
/* All streams must have ended. */
void watches_free(struct watches **watches);
/* Ends all streams with UNAVAILABLE, so that the callers go to another dispatcher. */
void watches_end(struct watches *watches);
/* A text of muster:events; "closed <id>", "canceled <id>" and "cancel <id>" make the batch be looked at now. */
void watches_event(struct watches *watches, struct slice text);

void watch_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void watch_cancelled(struct grpc_call *call, void *service);

#endif
