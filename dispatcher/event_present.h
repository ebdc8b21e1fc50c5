/* A stored event as the message that callers and web hooks see.
 * Owns: nothing. May call: lib/store/db_event, proto/json. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_EVENT_PRESENT_H
#define MUSTER_DISPATCHER_EVENT_PRESENT_H

#include "lib/store/db_event.h"
#include "muster/v1/event_service.pb-c.h"

/* Returns owned (protobuf_c_message_free_unpacked); NULL without memory, or when it is no event. */
Muster__V1__Event *event_present(int64_t id, const struct db_event *event);

#endif
