#include "dispatcher/devices.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/device_labels.h"
#include "dispatcher/filter_find.h"
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
    if (err == ERR_OK || err == ERR_NOT_FOUND) {
        bool online = err == ERR_OK && live_presence_at(presence, slot_of(o->device->seq));
        o->device->connection =
            online ? MUSTER__V1__CONNECTION__CONNECTION_ONLINE : MUSTER__V1__CONNECTION__CONNECTION_OFFLINE;
    }
    reply_device(o);
}

static void ask_presence(struct one_device *o)
{
    if (o->device && live_up(o->r.d->live))
        live_presence(o->r.d->live, (uint32_t)o->r.tenant, block_of(o->device->seq), on_presence, o);
    else
        reply_device(o);
}

static void on_labels(struct request *r, const struct pg_result *const *results)
{
    struct one_device *o = (struct one_device *)r;
    device_labels_put(&r->arena, &o->device, 1, results);
    ask_presence(o);
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
    if (!o->device) {
        reply_device(o);
        return;
    }
    struct pg_txn *txn = request_txn(r);
    device_labels_ask(txn, r->tenant, &o->device, 1);
    request_query(r, txn, on_labels);
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

void devices_changed(struct dispatcher *d, int32_t tenant)
{
    char text[32];
    snprintf(text, sizeof text, "devices %" PRId32, tenant);
    live_publish(d->live, text);
    leader_devices(d->leader, (uint32_t)tenant);
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
    const Muster__V1__ListDevicesRequest *in; /* of the request taken */
    uint32_t limit;
    int64_t after;
    struct page_filter filter;
    Muster__V1__Device **devices;
    size_t n;
    bool more; /* behind them */
};

static void on_list_labels(struct request *r, const struct pg_result *const *results)
{
    struct device_list *l = (struct device_list *)r;
    Muster__V1__ListDevicesResponse out = MUSTER__V1__LIST_DEVICES_RESPONSE__INIT;
    char token[PAGE_TOKEN_MAX];
    size_t n = device_labels_put(&r->arena, l->devices, l->n, results);
    if (n && (l->more || n < l->n)) {
        page_token_write(token, &l->filter, l->devices[n - 1]->seq, NULL);
        out.next_page_token = token;
    }
    out.devices = l->devices;
    out.n_devices = n;
    request_reply(r, &out.base);
}

/* Rows: the devices, and one more where there are more. */
static void on_rows(struct request *r, const struct pg_result *const *results)
{
    struct device_list *l = (struct device_list *)r;
    size_t rows = (size_t)pg_rows(results[0]);
    struct db_device row = {0};
    l->n = rows < l->limit ? rows : l->limit;
    l->devices = request_alloc(r, l->n, sizeof *l->devices);
    for (size_t i = 0; l->devices && i < l->n; i++) {
        db_device_read(results[0], (int)i, &row);
        l->devices[i] = present_device(&r->arena, &row);
        if (!l->devices[i])
            l->devices = NULL;
    }
    if (!l->devices) {
        request_store_failed(r, ERR_NOMEM, NULL);
        return;
    }
    l->more = l->n && row.total > (int64_t)l->n;
    struct pg_txn *txn = request_txn(r);
    device_labels_ask(txn, r->tenant, l->devices, l->n);
    request_query(r, txn, on_list_labels);
}

/* --- by a filter --- */

static void on_found(void *arg, const struct status *st, bool store, struct target_set *set)
{
    struct device_list *l = arg;
    if (st->code != STATUS_OK) {
        l->r.d->figures.store_errors += store;
        request_fail(&l->r, st);
        return;
    }
    int32_t *seqs = request_alloc(&l->r, l->limit + 1, sizeof *seqs);
    size_t n = 0;
    for (size_t b = 0; seqs && b < set->count && n <= l->limit; b++) {
        const struct target_block *block = &set->blocks[b];
        for (unsigned slot = bitmap_next(&block->slots, 0); slot < BLOCK_SLOTS && n <= l->limit;
             slot = bitmap_next(&block->slots, slot + 1))
            if ((int64_t)block_seq(block->block, slot) > l->after)
                seqs[n++] = (int32_t)block_seq(block->block, slot);
    }
    if (!seqs) {
        request_store_failed(&l->r, ERR_NOMEM, NULL);
        return;
    }
    struct pg_txn *txn = request_txn(&l->r);
    db_device_list_of(txn, l->r.tenant, seqs, n, PAGE_BYTES);
    request_query(&l->r, txn, on_rows);
}

static void find(struct device_list *l)
{
    const struct filter_question question = {.tenant = l->r.tenant,
                                             .text = *l->in->filter ? l->in->filter : NULL,
                                             .groups = (char *const *)&l->in->group,
                                             .group_count = 1};
    filter_find(l->r.d->pg, &question, on_found, l);
}

/* Results: the devices, the group. */
static void on_members(struct request *r, const struct pg_result *const *results)
{
    struct device_list *l = (struct device_list *)r;
    struct db_group group;
    if (!pg_rows(results[1])) {
        request_refuse(r, STATUS_NOT_FOUND, "GROUP_NOT_FOUND", "there is no such group");
        return;
    }
    db_group_read(results[1], 0, &group);
    if (!*group.filter)
        on_rows(r, results);
    else if (l->in->platform)
        request_refuse(r, STATUS_FAILED_PRECONDITION, "GROUP_HAS_FILTER",
                       "group %s has a filter: ask for its members of one platform with a filter", l->in->group);
    else
        find(l);
}

static void check_list(struct device_list *l, struct status *st)
{
    const Muster__V1__ListDevicesRequest *in = l->in;
    struct page_token token;
    l->filter = page_filter_new(grpc_call_method(l->r.call)->path, l->r.tenant);
    page_filter_add_int(&l->filter, (int64_t)in->platform);
    page_filter_add(&l->filter, in->group, strlen(in->group));
    if (*in->filter)
        page_filter_add(&l->filter, in->filter, strlen(in->filter));
    l->limit = validate_page_size(st, in->page_size, 1000, 10000);
    validate_enum(st, "platform", &muster__v1__platform__descriptor, (int)in->platform, true);
    if (*in->group)
        validate_id(st, "group", in->group);
    if (*in->filter)
        filter_find_check(st, "filter", in->filter);
    if (*in->filter && (*in->group || in->platform))
        status_violation(st, "filter", "does not go with platform or group, which a filter can name");
    page_token_read(&token, st, &l->filter, "page_token", in->page_token, -1);
    l->after = token.after;
}

void list_devices(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct device_list *l = request_begin(call, service, sizeof *l);
    if (!l)
        return;
    struct status st = {0};
    grpc_call_take_request(call);
    l->in = (const Muster__V1__ListDevicesRequest *)request;
    check_list(l, &st);
    if (st.code != STATUS_OK) {
        request_fail(&l->r, &st);
        return;
    }
    if (*l->in->filter) {
        find(l);
        return;
    }
    struct pg_txn *txn = request_txn(&l->r);
    bool of_group = *l->in->group != 0;
    db_device_list(txn, l->r.tenant, l->after, (int)l->in->platform, of_group ? l->in->group : NULL,
                   (int32_t)l->limit + 1, PAGE_BYTES);
    if (of_group)
        db_group_get(txn, l->r.tenant, l->in->group);
    request_query(&l->r, txn, of_group ? on_members : on_rows);
}
