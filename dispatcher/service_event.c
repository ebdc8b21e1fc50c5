#include "dispatcher/service_event.h"

#include "dispatcher/event_watch.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/event_service.pb-c.h"

const struct grpc_method service_event_methods[] = {
    {.path = "/muster.v1.EventService/WatchEvents",
     .request = &muster__v1__watch_events_request__descriptor,
     .response = &muster__v1__watch_events_response__descriptor,
     .server_streaming = true,
     .tag = MUSTER__V1__ROLE__ROLE_READ_ONLY,
     .message = watch_events,
     .cancelled = watch_events_cancelled},
    {0},
};
