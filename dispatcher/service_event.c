#include "dispatcher/service_event.h"

#include "dispatcher/device_events.h"
#include "dispatcher/event_watch.h"
#include "dispatcher/webhooks.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/event_service.pb-c.h"

#define METHOD(name, lower)                                                                                            \
    {                                                                                                                  \
        .path = "/muster.v1.EventService/" name, .request = &muster__v1__##lower##_request__descriptor,                \
        .response = &muster__v1__##lower##_response__descriptor, .tag = MUSTER__V1__ROLE__ROLE_OPERATOR,               \
        .message = lower                                                                                               \
    }

const struct grpc_method service_event_methods[] = {
    {.path = "/muster.v1.EventService/WatchEvents",
     .request = &muster__v1__watch_events_request__descriptor,
     .response = &muster__v1__watch_events_response__descriptor,
     .server_streaming = true,
     .tag = MUSTER__V1__ROLE__ROLE_READ_ONLY,
     .message = watch_events,
     .cancelled = watch_events_cancelled},
    METHOD("CreateWebhook", create_webhook),
    METHOD("ListWebhooks", list_webhooks),
    METHOD("DeleteWebhook", delete_webhook),
    METHOD("RotateWebhookSecret", rotate_webhook_secret),
    METHOD("TestWebhook", test_webhook),
    METHOD("ListDeadEvents", list_dead_events),
    METHOD("ReplayDeadEvents", replay_dead_events),
    METHOD("SetDeviceEvents", set_device_events),
    {.path = "/muster.v1.EventService/GetDeviceEvents",
     .request = &muster__v1__get_device_events_request__descriptor,
     .response = &muster__v1__get_device_events_response__descriptor,
     .tag = MUSTER__V1__ROLE__ROLE_READ_ONLY,
     .message = get_device_events},
    {0},
};
