#include "dispatcher/device_events.h"

#include "dispatcher/request.h"
#include "lib/base/clock.h"
#include "lib/store/db_presence.h"
#include "muster/v1/event_service.pb-c.h"

static void on_set(struct request *r, const struct pg_result *const *results)
{
    Muster__V1__SetDeviceEventsResponse out = MUSTER__V1__SET_DEVICE_EVENTS_RESPONSE__INIT;
    (void)results;
    request_reply(r, &out.base);
}

void set_device_events(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct request *r = request_begin(call, service, sizeof *r);
    if (!r)
        return;
    struct pg_txn *txn = request_txn(r);
    db_presence_set(txn, r->tenant, ((const Muster__V1__SetDeviceEventsRequest *)request)->enabled, r->caller->key,
                    clock_wall_ms());
    request_query(r, txn, on_set);
}

static void on_get(struct request *r, const struct pg_result *const *results)
{
    Muster__V1__GetDeviceEventsResponse out = MUSTER__V1__GET_DEVICE_EVENTS_RESPONSE__INIT;
    out.enabled = pg_bool(results[0], 0, 0);
    request_reply(r, &out.base);
}

void get_device_events(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct request *r = request_begin(call, service, sizeof *r);
    (void)request;
    if (!r)
        return;
    struct pg_txn *txn = request_txn(r);
    db_presence_get(txn, r->tenant);
    request_query(r, txn, on_get);
}
