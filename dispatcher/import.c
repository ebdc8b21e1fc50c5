#include "dispatcher/import.h"

#include <stdio.h>

#include "dispatcher/devices.h"
#include "dispatcher/label_set.h"
#include "dispatcher/request.h"
#include "dispatcher/target_set.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/store/db_audit.h"
#include "lib/store/db_label.h"
#include "muster/v1/device_service.pb-c.h"

#define MESSAGE_DEVICES_MAX 10000u

struct import {
    struct request r;
    uint32_t created, updated;
    bool writing, ended, cancelled;
};

static void reply(struct import *im)
{
    Muster__V1__ImportDevicesResponse out = MUSTER__V1__IMPORT_DEVICES_RESPONSE__INIT;
    out.created = im->created;
    out.updated = im->updated;
    request_reply(&im->r, &out.base);
}

static void on_written(struct request *r, const struct pg_result *const *results)
{
    struct import *im = (struct import *)r;
    im->writing = false;
    im->created += (uint32_t)pg_int(results[0], 0, 0);
    im->updated += (uint32_t)pg_int(results[0], 0, 1);
    r->d->figures.devices_imported += (uint64_t)pg_int(results[0], 0, 0);
    arena_reset(&r->arena);
    devices_changed(r->d, r->tenant);
    if (im->cancelled)
        request_done(r);
    else if (im->ended)
        reply(im);
    else
        grpc_call_pause(r->call, false);
}

static void check(struct status *st, const Muster__V1__ImportDevicesRequest *in)
{
    if (in->n_devices > MESSAGE_DEVICES_MAX)
        status_violation(st, "devices", "has %zu entries, allowed are %u", in->n_devices, MESSAGE_DEVICES_MAX);
    for (size_t i = 0; i < in->n_devices && st->violation_count < STATUS_VIOLATIONS_MAX; i++) {
        const Muster__V1__Device *d = in->devices[i];
        char path[64];
        if (d->n_tags || d->n_attributes || d->information || *d->time_zone) {
            snprintf(path, sizeof path, "devices[%zu]", i);
            label_set_check(st, path, d);
        }
        if (validate_id_ok(d->id) &&
            protobuf_c_enum_descriptor_get_value(&muster__v1__platform__descriptor, (int)d->platform))
            continue;
        snprintf(path, sizeof path, "devices[%zu].id", i);
        validate_id(st, path, d->id);
        snprintf(path, sizeof path, "devices[%zu].platform", i);
        validate_enum(st, path, &muster__v1__platform__descriptor, (int)d->platform, true);
    }
}

/* False without memory. Of a repeated id the last entry counts. */
static bool write_devices(struct import *im, struct pg_txn *txn, const Muster__V1__ImportDevicesRequest *in)
{
    size_t n = in->n_devices;
    const char **all = request_alloc(&im->r, n, sizeof *all), **ids = request_alloc(&im->r, n, sizeof *ids);
    int16_t *platforms = request_alloc(&im->r, n, sizeof *platforms);
    uint32_t *kept = request_alloc(&im->r, n, sizeof *kept);
    if (!all || !ids || !platforms || !kept)
        return false;
    for (size_t i = 0; i < n; i++)
        all[i] = in->devices[i]->id;
    size_t count = id_set_unique(all, n, true, kept);
    if (count == SIZE_MAX)
        return false;
    struct label_set set = {0};
    bool added = true;
    for (size_t i = 0; i < count; i++) {
        ids[i] = all[kept[i]];
        platforms[i] = (int16_t)in->devices[kept[i]]->platform;
        added = added && label_set_add(&set, (int32_t)i + 1, in->devices[kept[i]]);
    }
    struct db_labels labels = label_set_labels(&set, in->replace_labels);
    if (added) {
        db_label_import(txn, im->r.tenant, ids, platforms, count, &labels, clock_wall_ms());
        db_audit_add(txn, clock_wall_ms(), im->r.tenant, im->r.caller->key, "import_devices", ids[0], (int64_t)count,
                     "", "");
    }
    label_set_free(&set);
    return added;
}

void import_message(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ImportDevicesRequest *in = (const Muster__V1__ImportDevicesRequest *)request;
    struct import *im = request_begin(call, service, sizeof *im);
    if (!im || !in->n_devices)
        return;
    struct status st = {0};
    check(&st, in);
    if (st.code != STATUS_OK) {
        request_fail(&im->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&im->r);
    if (!write_devices(im, txn, in)) {
        pg_txn_free(&txn);
        request_store_failed(&im->r, ERR_NOMEM, NULL);
        return;
    }
    im->r.registering = (uint32_t)in->n_devices;
    im->writing = true;
    grpc_call_pause(call, true);
    request_query(&im->r, txn, on_written);
}

void import_end(struct grpc_call *call, void *service)
{
    struct import *im = request_begin(call, service, sizeof *im);
    if (!im)
        return;
    im->ended = true;
    if (!im->writing)
        reply(im);
}

void import_cancelled(struct grpc_call *call, void *service)
{
    (void)service;
    struct import *im = grpc_call_data(call);
    if (!im)
        return;
    im->cancelled = true;
    if (!im->writing)
        request_done(&im->r);
}
