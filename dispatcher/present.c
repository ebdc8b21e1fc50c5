#include "dispatcher/present.h"

#include <string.h>

#include "dispatcher/pace.h"
#include "dispatcher/retry_check.h"
#include "lib/base/clock.h"
#include "proto/command_id.h"

/* A message in the arena, initialised; `type` is its name in the generated code. */
#define NEW(arena, init_fn, var)                                                                                       \
    do {                                                                                                               \
        (var) = arena_alloc((arena), sizeof *(var));                                                                   \
        if (!(var))                                                                                                    \
            return NULL;                                                                                               \
        init_fn(var);                                                                                                  \
    } while (0)

static char *copy(struct arena *a, const char *text)
{
    char *p = arena_copy(a, text, strlen(text));
    return p ? p : (char *)"";
}

Google__Protobuf__Timestamp *present_time(struct arena *a, int64_t ms)
{
    Google__Protobuf__Timestamp *t;
    if (!ms)
        return NULL;
    NEW(a, google__protobuf__timestamp__init, t);
    t->seconds = ms / 1000;
    t->nanos = (int32_t)(ms % 1000) * 1000000;
    return t;
}

Google__Protobuf__Duration *present_duration(struct arena *a, int64_t ms)
{
    Google__Protobuf__Duration *d;
    NEW(a, google__protobuf__duration__init, d);
    d->seconds = ms / 1000;
    d->nanos = (int32_t)(ms % 1000) * 1000000;
    return d;
}

Muster__V1__Progress *present_progress(struct arena *a, const uint32_t *counts)
{
    Muster__V1__Progress *p;
    NEW(a, muster__v1__progress__init, p);
    p->held = counts[STATE_HELD];
    p->queued = counts[STATE_QUEUED];
    p->routed = counts[STATE_ROUTED];
    p->sent = counts[STATE_SENT];
    p->succeeded = counts[STATE_SUCCEEDED];
    p->failed = counts[STATE_FAILED];
    p->rejected = counts[STATE_REJECTED];
    p->timed_out = counts[STATE_TIMED_OUT];
    p->expired = counts[STATE_EXPIRED];
    p->canceled = counts[STATE_CANCELED];
    p->superseded = counts[STATE_SUPERSEDED];
    return p;
}

/* Returns how many; without memory none. */
static size_t present_platforms(struct arena *a, uint32_t bits, Muster__V1__Platform **out)
{
    size_t n = 0;
    *out = arena_alloc(a, 32 * sizeof **out);
    for (unsigned p = 0; *out && p < 32; p++)
        if (bits >> p & 1)
            (*out)[n++] = (Muster__V1__Platform)p;
    return n;
}

static Muster__V1__BatchControl *present_control(struct arena *a, const struct db_batch *batch)
{
    Muster__V1__BatchControl *c;
    NEW(a, muster__v1__batch_control__init, c);
    bool asked = batch->asked && !(batch->held && batch->paused); /* no worker has heard of what is held */
    c->state = asked           ? batch->paused ? MUSTER__V1__CONTROL_STATE__CONTROL_STATE_PAUSING
                                               : MUSTER__V1__CONTROL_STATE__CONTROL_STATE_CHANGING
               : batch->paused ? MUSTER__V1__CONTROL_STATE__CONTROL_STATE_PAUSED
               : clock_wall_ms() < batch->not_before_ms ? MUSTER__V1__CONTROL_STATE__CONTROL_STATE_WAITING
                                                        : MUSTER__V1__CONTROL_STATE__CONTROL_STATE_RUNNING;
    c->reason = copy(a, batch->reason);
    c->waves_released = batch->waves_released;
    c->joined = batch->joined;
    c->sealed = batch->sealed;
    c->n_stopped_platforms = present_platforms(a, batch->stopped, &c->stopped_platforms);
    c->n_canceled_platforms = present_platforms(a, batch->cohorts_canceled, &c->canceled_platforms);
    c->since = batch->asked ? NULL : present_time(a, batch->handled_ms);
    return c;
}

static uint32_t present_rate(const Muster__V1__Rate *rate, uint32_t steps)
{
    struct pace pace;
    pace_read(&pace, rate);
    pace.steps = steps;
    return (uint32_t)(pace_rate(&pace) * (double)pace_per_ms(rate) + 0.5);
}

Muster__V1__Batch *present_batch(struct arena *a, const struct db_batch *batch, const uint32_t *counts)
{
    Muster__V1__Batch *b;
    NEW(a, muster__v1__batch__init, b);
    b->id = batch->id;
    b->request_id = copy(a, batch->request_id);
    b->description = copy(a, batch->description);
    b->command = muster__v1__command__unpack(arena_allocator(a), batch->command.len, batch->command.data);
    b->priority = (Muster__V1__Priority)batch->priority;
    b->device_count = batch->device_count;
    b->created_at = present_time(a, batch->created_ms);
    b->expires_at = present_time(a, batch->expires_ms);
    b->state = batch->closed_ms             ? MUSTER__V1__BATCH_STATE__BATCH_STATE_CLOSED
               : batch->cancel_requested_ms ? MUSTER__V1__BATCH_STATE__BATCH_STATE_CANCELING
                                            : MUSTER__V1__BATCH_STATE__BATCH_STATE_OPEN;
    b->progress = counts ? present_progress(a, counts) : NULL;
    b->cancel_requested_at = present_time(a, batch->cancel_requested_ms);
    b->canceled_at = present_time(a, batch->canceled_ms);
    b->closed_at = present_time(a, batch->closed_ms);
    b->control = batch->steered ? present_control(a, batch) : NULL;
    b->dynamic = batch->dynamic;
    b->retry = retry_present(a, &batch->retry);
    b->supersede_key = copy(a, batch->supersede_key);
    if (batch->steering.len)
        b->steering = muster__v1__steering__unpack(arena_allocator(a), batch->steering.len, batch->steering.data);
    if (b->control && b->steering && b->steering->rate)
        b->control->rate = present_rate(b->steering->rate, batch->rate_steps);
    if (batch->described.len)
        b->values = muster__v1__batch_values__unpack(arena_allocator(a), batch->described.len, batch->described.data);
    return b;
}

Muster__V1__Device *present_device(struct arena *a, const struct db_device *device)
{
    Muster__V1__Device *d;
    NEW(a, muster__v1__device__init, d);
    d->id = copy(a, device->id);
    d->platform = (Muster__V1__Platform)device->platform;
    d->seq = device->seq;
    if (device->information.len)
        d->information = muster__v1__device_information__unpack(arena_allocator(a), device->information.len,
                                                                device->information.data);
    d->created_at = present_time(a, device->created_ms);
    return d;
}

Muster__V1__Group *present_group(struct arena *a, const struct db_group *group)
{
    Muster__V1__Group *g;
    NEW(a, muster__v1__group__init, g);
    g->name = copy(a, group->name);
    g->device_count = group->devices;
    g->created_at = present_time(a, group->created_ms);
    g->filter = copy(a, group->filter);
    return g;
}

Muster__V1__Tenant *present_tenant(struct arena *a, const struct db_tenant *tenant)
{
    Muster__V1__Tenant *t;
    NEW(a, muster__v1__tenant__init, t);
    t->name = copy(a, tenant->name);
    t->device_count = tenant->devices;
    t->created_at = present_time(a, tenant->created_ms);
    return t;
}

Muster__V1__ApiKey *present_key(struct arena *a, const struct db_key *key)
{
    Muster__V1__ApiKey *k;
    NEW(a, muster__v1__api_key__init, k);
    k->id = key->id;
    k->tenant = copy(a, key->tenant_name);
    k->role = (Muster__V1__Role)key->role;
    k->description = copy(a, key->description);
    k->created_at = present_time(a, key->created_ms);
    k->revoked_at = present_time(a, key->revoked_ms);
    return k;
}

/* A time is told for what is final or sent: "back in the queue" has none. */
static bool has_time(uint8_t state)
{
    return state_is_terminal(state_of(state)) || state_of(state) == STATE_SENT;
}

Muster__V1__CommandStatus *present_command(struct arena *a, const struct present_command *c)
{
    Muster__V1__CommandStatus *s;
    NEW(a, muster__v1__command_status__init, s);
    char id[COMMAND_ID_TEXT];
    command_id_write(id, &(struct command_id){(uint64_t)c->batch, (uint32_t)c->tenant, c->seq});
    char *text = arena_copy(a, id, sizeof id);
    if (text)
        s->command_id = text;
    s->batch_id = c->batch;
    s->device_id = copy(a, c->device_id);
    s->state = (Muster__V1__CommandState)state_of(c->state);
    s->attempts = state_attempts(c->state);
    if (c->time && has_time(c->state))
        s->updated_at = present_time(a, block_time_at(c->created_ms, c->time));
    if (c->result.len)
        s->result = muster__v1__command_result__unpack(arena_allocator(a), c->result.len, c->result.data);
    return s;
}
