#include "dispatcher/devices.h"

#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/leader.h"
#include "dispatcher/page_token.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/revoke.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/store/db_device.h"
#include "lib/store/live.h"

/* --- GetDevice, DeleteDevice -------------------------------------------------------------------------------------- */

struct one_device {
    struct request r;
    const char *id; /* of the request taken */
    Muster__V1__Device *device;
};

static void not_found(struct one_device *o)
{
    request_refuse(&o->r, STATUS_NOT_FOUND, "DEVICE_NOT_FOUND", "there is no device %s", o->id);
}

/* NULL when the call was refused. */
static struct one_device *one_device(struct grpc_call *call, void *service, const char *id)
{
    struct one_device *o = request_begin(call, service, sizeof *o);
    if (!o)
        return NULL;
    struct status st = {0};
    grpc_call_take_request(call);
    o->id = id;
    validate_id(&st, "device_id", id);
    if (st.code == STATUS_OK)
        return o;
    request_fail(&o->r, &st);
    return NULL;
}

static void reply_device(struct one_device *o)
{
    Muster__V1__GetDeviceResponse out = MUSTER__V1__GET_DEVICE_RESPONSE__INIT;
    out.device = o->device;
    request_reply(&o->r, &out.base);
}

static void on_presence(void *arg, enum err err, struct slice presence)
{
    struct one_device *o = arg;
    size_t at = 2u * slot_of(o->device->seq);
    if (err == ERR_OK || err == ERR_NOT_FOUND) {
        bool online = err == ERR_OK && at + 2 <= presence.len && load_u16le(presence.data + at) != 0;
        o->device->connection =
            online ? MUSTER__V1__CONNECTION__CONNECTION_ONLINE : MUSTER__V1__CONNECTION__CONNECTION_OFFLINE;
    }
    reply_device(o);
}

static void on_device(struct request *r, const struct pg_result *const *results)
{
    struct one_device *o = (struct one_device *)r;
    struct db_device row;
    if (!pg_rows(results[0])) {
        not_found(o);
        return;
    }
    db_device_read(results[0], 0, &row);
    o->device = present_device(&r->arena, &row);
    if (o->device && live_up(r->d->live))
        live_presence(r->d->live, (uint32_t)r->tenant, block_of(row.seq), on_presence, o);
    else
        reply_device(o);
}

void get_device(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct one_device *o = one_device(call, service, ((const Muster__V1__GetDeviceRequest *)request)->device_id);
    if (!o)
        return;
    struct pg_txn *txn = request_txn(&o->r);
    db_device_get(txn, o->r.tenant, o->id);
    request_query(&o->r, txn, on_device);
}

static void on_deleted(struct request *r, const struct pg_result *const *results)
{
    struct one_device *o = (struct one_device *)r;
    if (!pg_rows(results[0])) {
        not_found(o);
        return;
    }
    struct revoke_entry entry = {(uint32_t)pg_int(results[0], 0, 0), DB_REVOKED_FOR_GOOD_MS};
    revoke_tell_workers(r->d, r->tenant, &entry, 1);
    live_publish(r->d->live, "deleted 0");
    leader_hint(r->d->leader, LEADER_HINT_DELETED, 0);
    Muster__V1__DeleteDeviceResponse out = MUSTER__V1__DELETE_DEVICE_RESPONSE__INIT;
    request_reply(r, &out.base);
}

void delete_device(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct one_device *o = one_device(call, service, ((const Muster__V1__DeleteDeviceRequest *)request)->device_id);
    if (!o)
        return;
    struct pg_txn *txn = request_txn(&o->r);
    db_device_delete(txn, o->r.tenant, o->id, clock_wall_ms(), o->r.caller->key);
    request_query(&o->r, txn, on_deleted);
}

/* --- ListDevices -------------------------------------------------------------------------------------------------- */

struct device_list {
    struct request r;
    uint32_t limit;
    bool of_group;
    struct page_filter filter;
};

/* Results: the devices[, the group]. */
static void on_list(struct request *r, const struct pg_result *const *results)
{
    struct device_list *l = (struct device_list *)r;
    if (l->of_group && !pg_rows(results[1])) {
        request_refuse(r, STATUS_NOT_FOUND, "GROUP_NOT_FOUND", "there is no such group");
        return;
    }
    size_t rows = (size_t)pg_rows(results[0]), n = rows < l->limit ? rows : l->limit;
    Muster__V1__ListDevicesResponse out = MUSTER__V1__LIST_DEVICES_RESPONSE__INIT;
    Muster__V1__Device **list = request_alloc(r, n, sizeof *list);
    char token[PAGE_TOKEN_MAX];
    struct db_device row = {0};
    for (size_t i = 0; list && i < n; i++) {
        db_device_read(results[0], (int)i, &row);
        list[i] = present_device(&r->arena, &row);
    }
    if (n && row.total > (int64_t)n) {
        page_token_write(token, &l->filter, row.seq, NULL);
        out.next_page_token = token;
    }
    out.devices = list;
    out.n_devices = n;
    request_reply(r, &out.base);
}

void list_devices(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListDevicesRequest *in = (const Muster__V1__ListDevicesRequest *)request;
    struct device_list *l = request_begin(call, service, sizeof *l);
    if (!l)
        return;
    struct status st = {0};
    struct page_token token;
    l->filter = page_filter_new(grpc_call_method(call)->path, l->r.tenant);
    page_filter_add_int(&l->filter, (int64_t)in->platform);
    page_filter_add(&l->filter, in->group, strlen(in->group));
    l->limit = validate_page_size(&st, in->page_size, 1000, 10000);
    l->of_group = in->group[0] != 0;
    validate_enum(&st, "platform", &muster__v1__platform__descriptor, (int)in->platform, true);
    if (l->of_group)
        validate_id(&st, "group", in->group);
    page_token_read(&token, &st, &l->filter, "page_token", in->page_token, -1);
    if (st.code != STATUS_OK) {
        request_fail(&l->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&l->r);
    db_device_list(txn, l->r.tenant, token.after, (int)in->platform, l->of_group ? in->group : NULL,
                   (int32_t)l->limit + 1, PAGE_BYTES);
    if (l->of_group)
        db_group_get(txn, l->r.tenant, in->group);
    request_query(&l->r, txn, on_list);
}
