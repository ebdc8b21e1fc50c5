/* WatchEvents: the events of a tenant to whoever watches.
 * Owns: struct event_watches, a struct for each watcher. May call: lib/store/db_event. Loop rule: non-blocking.
 *
 * One question a second says of all tenants that are watched how far their events are, and one more when the leader
 * says that there are new ones. A watcher is given the next part only when it has read the one before: nothing piles
 * up. */
#ifndef MUSTER_DISPATCHER_EVENT_WATCH_H
#define MUSTER_DISPATCHER_EVENT_WATCH_H

#include "dispatcher/dispatcher.h"
#include "lib/base/buf.h"
#include "lib/base/grpc_server.h"

struct event_watches;

/* Returns owned, or NULL without memory. */
struct event_watches *event_watches_new(struct dispatcher *d);
/* All streams must have ended. */
void event_watches_free(struct event_watches **watches);
/* Ends all streams with UNAVAILABLE, so that the callers go to another dispatcher. */
void event_watches_end(struct event_watches *watches);
/* A text of muster:events; "events 0" means that there are new ones. */
void event_watches_told(struct event_watches *watches, struct slice text);

void watch_events(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void watch_events_cancelled(struct grpc_call *call, void *service);

#endif
