#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/chaos/chaos.h"
#include "lib/base/clock.h"
#include "muster/v1/command_service.pb-c.h"

#define PROBE_DEVICES 16
#define CALL_MS       2000
#define LOOK_S        0.04

struct probe {
    struct chaos *chaos;
    struct session sessions[CHAOS_DISPATCHERS];
    struct common common[CHAOS_DISPATCHERS];
    int count, at;
    double until;
    char request_id[48];
    int64_t expires_ms, batch;
};

/* As the load's callers do: one dispatcher after another. NULL when the time is over. */
static ProtobufCMessage *call(struct probe *p, const char *method, const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response)
{
    while (ev_time() < p->until && !p->chaos->dev.group.broken) {
        struct status status = {0};
        ProtobufCMessage *answer = session_try(&p->sessions[p->at], method, request, response, &status);
        if (answer)
            return answer;
        p->at = (p->at + 1) % p->count;
        session_pause(&p->sessions[p->at], LOOK_S);
    }
    return NULL;
}

static bool open_probe(struct probe *p)
{
    struct chaos *c = p->chaos;

    for (int i = 0; i < c->options.dispatchers; i++) {
        p->common[i] = chaos_caller(c, 0, i);
        p->common[i].timeout_ms = CALL_MS;
        if (session_open(&p->sessions[i], &p->common[i]) != ERR_OK)
            return false;
        p->sessions[i].stop = &c->dev.group.broken;
        p->count++;
    }
    return true;
}

static bool submit(struct probe *p)
{
    Muster__V1__LockCommand lock = MUSTER__V1__LOCK_COMMAND__INIT;
    Muster__V1__Command command = MUSTER__V1__COMMAND__INIT;
    Muster__V1__DeviceIds devices = MUSTER__V1__DEVICE_IDS__INIT;
    Muster__V1__Target target = MUSTER__V1__TARGET__INIT;
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Muster__V1__SubmitBatchRequest request = MUSTER__V1__SUBMIT_BATCH_REQUEST__INIT;
    char ids[PROBE_DEVICES][24], *list[PROBE_DEVICES];

    for (unsigned i = 0; i < PROBE_DEVICES; i++) {
        snprintf(ids[i], sizeof ids[i], "%.12s-%07u", chaos_prefix(0), i * (chaos_devices(p->chaos) / PROBE_DEVICES));
        list[i] = ids[i];
    }
    devices.ids = list;
    devices.n_ids = PROBE_DEVICES;
    target.kind_case = MUSTER__V1__TARGET__KIND_DEVICES;
    target.devices = &devices;
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    command.lock = &lock;
    expires.seconds = p->expires_ms / 1000;
    request.request_id = p->request_id;
    request.command = &command;
    request.target = &target;
    request.expires_at = &expires;
    request.priority = MUSTER__V1__PRIORITY__PRIORITY_URGENT;
    Muster__V1__SubmitBatchResponse *answer = (Muster__V1__SubmitBatchResponse *)call(
        p, "CommandService/SubmitBatch", &request.base, &muster__v1__submit_batch_response__descriptor);
    struct request *said = evidence_request(&p->chaos->evidence);
    snprintf(said->id, sizeof said->id, "%s", p->request_id);
    said->expires_ms = p->expires_ms;
    if (answer && answer->batch) {
        p->batch = answer->batch->id;
        said->batch = (uint64_t)p->batch;
        said->devices = answer->batch->device_count;
    }
    session_free_message((ProtobufCMessage *)answer);
    return p->batch != 0;
}

static bool wait_closed(struct probe *p)
{
    Muster__V1__GetBatchRequest request = MUSTER__V1__GET_BATCH_REQUEST__INIT;
    bool closed = false;

    request.batch_id = p->batch;
    while (!closed && ev_time() < p->until && !p->chaos->dev.group.broken) {
        Muster__V1__GetBatchResponse *answer = (Muster__V1__GetBatchResponse *)call(
            p, "CommandService/GetBatch", &request.base, &muster__v1__get_batch_response__descriptor);
        closed = answer && answer->batch && answer->batch->state == MUSTER__V1__BATCH_STATE__BATCH_STATE_CLOSED;
        session_free_message((ProtobufCMessage *)answer);
        if (!closed)
            session_pause(&p->sessions[p->at], LOOK_S);
    }
    return closed;
}

bool chaos_probe(struct chaos *c, double seconds)
{
    struct probe p = {.chaos = c, .until = ev_time() + seconds};

    snprintf(p.request_id, sizeof p.request_id, "t0-probe-%" PRIu64, ++c->probes);
    p.expires_ms = (clock_wall_ms() + c->options.patience_ms) / 1000 * 1000;
    bool good = open_probe(&p) && submit(&p) && wait_closed(&p);
    for (int i = 0; i < p.count; i++)
        session_close(&p.sessions[i]);
    if (!good && !c->dev.group.broken)
        verdict_complain(&c->verdict, BREACH_HANG, "%s batch %" PRId64 " to %d devices was not %s within %.0f s",
                         p.request_id, p.batch, PROBE_DEVICES, p.batch ? "closed" : "accepted", seconds);
    return good;
}
