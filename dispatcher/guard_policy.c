#include "dispatcher/guard_policy.h"

#include <stdio.h>

#include "dispatcher/leader.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/store/db_guard.h"
#include "lib/store/live.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/command.pb-c.h"

#define COOLING_OFF_MAX_MS DAY_MS
#define APPROVAL_MIN_MS    1000
#define APPROVAL_MAX_MS    (7 * DAY_MS)
#define DEVICES_MAX        1000000000u

struct policy_call {
    struct request r;
    bool set;
};

/* --- telling ------------------------------------------------------------------------------------------------------ */

/* NULL without memory. */
static Muster__V1__GuardPolicy *present_policy(struct request *r, const struct db_guard_policy *row)
{
    const ProtobufCMessageDescriptor *type = &muster__v1__command__descriptor;
    Muster__V1__GuardPolicy *out = request_alloc(r, 1, sizeof *out);
    char **names = request_alloc(r, type->n_fields, sizeof *names);
    if (!out || !names)
        return NULL;
    muster__v1__guard_policy__init(out);
    for (unsigned i = 0; i < type->n_fields; i++)
        if (type->fields[i].id < 32 && row->kinds >> type->fields[i].id & 1)
            names[out->n_commands++] = (char *)(uintptr_t)type->fields[i].name;
    out->enabled = row->enabled;
    out->commands = names;
    out->devices_per_hour = (uint32_t)row->devices_per_hour;
    out->percent_per_hour = (uint32_t)row->percent_per_hour;
    out->cooling_off = present_duration(&r->arena, row->cooling_off_ms);
    out->delay = present_duration(&r->arena, row->delay_ms);
    out->approval_lifetime = present_duration(&r->arena, row->approval_ms);
    return out;
}

static void on_policy(struct request *r, const struct pg_result *const *results)
{
    struct policy_call *c = (struct policy_call *)r;
    struct db_guard_policy row;
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_NOT_FOUND, "TENANT_NOT_FOUND", "there is no such tenant");
        return;
    }
    db_guard_policy_read(results[0], 0, &row);
    if (c->set) { /* dynamic batches may have been sealed: whoever leads looks for what was asked */
        live_publish(r->d->live, "steer 0");
        leader_hint(r->d->leader, LEADER_HINT_CANCEL, 0);
    }
    Muster__V1__GetGuardPolicyResponse get = MUSTER__V1__GET_GUARD_POLICY_RESPONSE__INIT;
    Muster__V1__SetGuardPolicyResponse set = MUSTER__V1__SET_GUARD_POLICY_RESPONSE__INIT;
    get.policy = set.policy = present_policy(r, &row);
    get.devices_left = (uint32_t)row.left;
    request_reply(r, c->set ? &set.base : &get.base);
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

static int64_t read_duration(struct status *st, const char *field, const Google__Protobuf__Duration *d, int64_t min,
                             int64_t max)
{
    int64_t ms = 0;
    if (d && !validate_duration(&ms, d->seconds, d->nanos))
        status_violation(st, field, "is no duration");
    else if (ms < min || ms > max)
        status_violation(st, field, "is %lld ms, allowed are %lld to %lld", (long long)ms, (long long)min,
                         (long long)max);
    return ms;
}

static uint32_t read_commands(struct status *st, char *const *names, size_t n)
{
    uint32_t kinds = 0;
    for (size_t i = 0; i < n && i < STATUS_VIOLATIONS_MAX; i++) {
        const ProtobufCFieldDescriptor *f =
            protobuf_c_message_descriptor_get_field_by_name(&muster__v1__command__descriptor, names[i]);
        char field[40];
        snprintf(field, sizeof field, "policy.commands[%zu]", i);
        if (f && f->id < 32)
            kinds |= 1u << f->id;
        else
            status_violation(st, field, "\"%.80s\" is no command", names[i]);
    }
    return kinds;
}

static struct db_guard_policy read_policy(struct status *st, const Muster__V1__GuardPolicy *in)
{
    if (in->n_commands > muster__v1__command__descriptor.n_fields)
        status_violation(st, "policy.commands", "has %zu entries, allowed are %u", in->n_commands,
                         muster__v1__command__descriptor.n_fields);
    if (in->devices_per_hour > DEVICES_MAX)
        status_violation(st, "policy.devices_per_hour", "is %u, allowed are 0 to %u", in->devices_per_hour,
                         DEVICES_MAX);
    if (in->percent_per_hour > 100)
        status_violation(st, "policy.percent_per_hour", "is %u, allowed are 0 to 100", in->percent_per_hour);
    return (struct db_guard_policy){
        .enabled = in->enabled,
        .kinds = read_commands(st, in->commands, in->n_commands),
        .devices_per_hour = (int32_t)in->devices_per_hour,
        .percent_per_hour = (int32_t)in->percent_per_hour,
        .cooling_off_ms = read_duration(st, "policy.cooling_off", in->cooling_off, 0, COOLING_OFF_MAX_MS),
        .delay_ms = read_duration(st, "policy.delay", in->delay, 0, COOLING_OFF_MAX_MS),
        .approval_ms =
            read_duration(st, "policy.approval_lifetime", in->approval_lifetime, APPROVAL_MIN_MS, APPROVAL_MAX_MS)};
}

void get_guard_policy(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__GetGuardPolicyRequest *in = (const Muster__V1__GetGuardPolicyRequest *)request;
    struct policy_call *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    validate_tenant_name(&st, "tenant", in->tenant);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&c->r);
    db_guard_policy_get(txn, in->tenant);
    request_query(&c->r, txn, on_policy);
}

void set_guard_policy(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__SetGuardPolicyRequest *in = (const Muster__V1__SetGuardPolicyRequest *)request;
    struct policy_call *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    struct db_guard_policy policy = {0};
    validate_tenant_name(&st, "tenant", in->tenant);
    if (in->policy)
        policy = read_policy(&st, in->policy);
    else
        status_violation(&st, "policy", "must be set");
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    c->set = true;
    struct pg_txn *txn = request_txn(&c->r);
    db_guard_policy_set(txn, in->tenant, &policy, c->r.caller->key);
    request_query(&c->r, txn, on_policy);
}
