#include "dispatcher/quota.h"

#include <inttypes.h>
#include <stdio.h>

#include "dispatcher/refusals.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "muster/v1/admin_service.pb-c.h"

#define QUOTA_MAX 2000000000u
/* Devices are removed, and quotas raised, by people. */
#define DEVICES_RETRY_MS 60000

struct quota_call {
    struct request r;
    bool set;
};

/* --- who goes beyond ---------------------------------------------------------------------------------------------- */

const char *quota_batch_reason(const struct db_quota_refusal *refusal)
{
    return refusal->kind == DB_QUOTA_BATCHES ? "QUOTA_BATCHES" : "QUOTA_RATE";
}

static void batches_status(struct status *st, const struct db_quota *q)
{
    status_set(st, STATUS_RESOURCE_EXHAUSTED, "QUOTA_BATCHES",
               "the tenant has %" PRId32 " open batches, as many as it may", q->open_batches);
    status_metadata(st, "limit", "%" PRId32, q->open_batches);
}

static void rate_status(struct status *st, const struct db_quota *q, uint32_t commands)
{
    int32_t burst = q->burst ? q->burst : q->commands_per_second;
    status_set(st, STATUS_RESOURCE_EXHAUSTED, "QUOTA_RATE",
               "the tenant may send %" PRId32 " commands a second and %" PRId32 " at once, and this batch has %" PRIu32,
               q->commands_per_second, burst, commands);
    status_metadata(st, "limit", "%" PRId32, q->commands_per_second);
    status_metadata(st, "burst", "%" PRId32, burst);
}

void quota_batch_status(struct status *st, const struct db_quota_refusal *refusal, uint32_t commands,
                        const struct pg_result *limits)
{
    struct db_quota q = {0};
    if (pg_rows(limits))
        db_quota_read(limits, 0, &q);
    if (refusal->kind == DB_QUOTA_BATCHES)
        batches_status(st, &q);
    else
        rate_status(st, &q, commands);
    st->retry_ms = refusal->retry_ms;
}

void quota_note_refused(const struct request *r, const char *reason, uint32_t devices)
{
    r->d->figures.quota_refused++;
    refusals_note(r->d->refusals, r->tenant, r->caller->key, grpc_call_peer(r->call), reason, devices);
}

void quota_devices_status(struct status *st, const char *message)
{
    int32_t limit = 0, registered = 0;
    if (sscanf(message, "%" SCNd32 " %" SCNd32, &limit, &registered) != 2)
        limit = registered = 0;
    status_set(st, STATUS_RESOURCE_EXHAUSTED, QUOTA_DEVICES,
               "the tenant may have %" PRId32 " devices, has %" PRId32 ", and would have more", limit, registered);
    status_metadata(st, "limit", "%" PRId32, limit);
    st->retry_ms = DEVICES_RETRY_MS;
}

/* --- GetQuota, SetQuota ------------------------------------------------------------------------------------------- */

static void on_quota(struct request *r, const struct pg_result *const *results)
{
    struct quota_call *c = (struct quota_call *)r;
    struct db_quota row;
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_NOT_FOUND, "TENANT_NOT_FOUND", "there is no such tenant");
        return;
    }
    db_quota_read(results[0], 0, &row);
    Muster__V1__Quota quota = MUSTER__V1__QUOTA__INIT;
    quota.devices = (uint32_t)row.devices;
    quota.open_batches = (uint32_t)row.open_batches;
    quota.commands_per_second = (uint32_t)row.commands_per_second;
    quota.burst = (uint32_t)row.burst;
    Muster__V1__GetQuotaResponse get = MUSTER__V1__GET_QUOTA_RESPONSE__INIT;
    Muster__V1__SetQuotaResponse set = MUSTER__V1__SET_QUOTA_RESPONSE__INIT;
    get.quota = set.quota = &quota;
    get.devices = (uint32_t)row.used_devices;
    get.open_batches = (uint32_t)row.used_batches;
    get.commands_left = row.commands_left;
    request_reply(r, c->set ? &set.base : &get.base);
}

void get_quota(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__GetQuotaRequest *in = (const Muster__V1__GetQuotaRequest *)request;
    struct quota_call *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    validate_tenant_name(&st, "tenant", in->tenant);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&c->r);
    db_quota_get(txn, in->tenant);
    request_query(&c->r, txn, on_quota);
}

static int32_t read_limit(struct status *st, const char *field, uint32_t value)
{
    if (value > QUOTA_MAX)
        status_violation(st, field, "is %" PRIu32 ", allowed are 0 to %u", value, QUOTA_MAX);
    return (int32_t)value;
}

static struct db_quota read_quota(struct status *st, const Muster__V1__Quota *in)
{
    if (in->burst && !in->commands_per_second)
        status_violation(st, "quota.burst", "means nothing without commands_per_second");
    return (struct db_quota){.devices = read_limit(st, "quota.devices", in->devices),
                             .open_batches = read_limit(st, "quota.open_batches", in->open_batches),
                             .commands_per_second =
                                 read_limit(st, "quota.commands_per_second", in->commands_per_second),
                             .burst = read_limit(st, "quota.burst", in->burst)};
}

void set_quota(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__SetQuotaRequest *in = (const Muster__V1__SetQuotaRequest *)request;
    struct quota_call *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    struct db_quota quota = {0};
    validate_tenant_name(&st, "tenant", in->tenant);
    if (in->quota)
        quota = read_quota(&st, in->quota);
    else
        status_violation(&st, "quota", "must be set");
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    c->set = true;
    struct pg_txn *txn = request_txn(&c->r);
    db_quota_set(txn, in->tenant, &quota, c->r.caller->key, clock_wall_ms());
    request_query(&c->r, txn, on_quota);
}
