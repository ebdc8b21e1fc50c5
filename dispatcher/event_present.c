#include "dispatcher/event_present.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/json.h"

/* Owned by the message: made as json_to_message makes them. */
static Google__Protobuf__Timestamp *time_of(int64_t ms)
{
    Google__Protobuf__Timestamp *t = malloc(sizeof *t);
    if (!t)
        return NULL;
    google__protobuf__timestamp__init(t);
    t->seconds = ms / 1000;
    t->nanos = (int32_t)(ms % 1000) * 1000000;
    return t;
}

Muster__V1__Event *event_present(int64_t id, const struct db_event *event)
{
    char error[128];
    Muster__V1__Event *out = (Muster__V1__Event *)json_to_message(
        &muster__v1__event__descriptor, (const char *)event->data.data, event->data.len, error, sizeof error);
    if (!out)
        return NULL;
    if (!out->at)
        out->at = time_of(event->at_ms);
    if (!out->at) {
        protobuf_c_message_free_unpacked(&out->base, NULL);
        return NULL;
    }
    out->id = id;
    out->kind = (Muster__V1__EventKind)event->kind;
    out->batch_id = event->batch;
    return out;
}
