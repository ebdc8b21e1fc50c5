#include "dispatcher/batches.h"

#include <inttypes.h>
#include <stdio.h>

#include "dispatcher/breakdown.h"
#include "dispatcher/cancel_some.h"
#include "dispatcher/guard.h"
#include "dispatcher/leader.h"
#include "dispatcher/page_token.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/store/db_control.h"
#include "lib/store/db_dynamic.h"
#include "lib/store/db_guard.h"
#include "lib/store/live.h"
#include "muster/v1/control_service.pb-c.h"

struct view_batch batches_view(int32_t tenant, const struct db_batch *row)
{
    return (struct view_batch){.tenant = tenant,
                               .id = row->id,
                               .created_ms = row->created_ms,
                               .held = row->held || row->paused || clock_wall_ms() < row->not_before_ms,
                               .routed = !row->closed_ms && !row->held};
}

/* `counts` NULL: the progress is there. */
static void reply_batch(struct one_batch *o, const uint32_t *counts)
{
    if (o->batch && counts)
        o->batch->progress = present_progress(&o->r.arena, counts);
    Muster__V1__GetBatchResponse get = MUSTER__V1__GET_BATCH_RESPONSE__INIT;
    Muster__V1__CancelBatchResponse cancel = MUSTER__V1__CANCEL_BATCH_RESPONSE__INIT;
    Muster__V1__PauseBatchResponse pause = MUSTER__V1__PAUSE_BATCH_RESPONSE__INIT;
    Muster__V1__ResumeBatchResponse resume = MUSTER__V1__RESUME_BATCH_RESPONSE__INIT;
    Muster__V1__ReleaseWaveResponse wave = MUSTER__V1__RELEASE_WAVE_RESPONSE__INIT;
    Muster__V1__SealBatchResponse seal = MUSTER__V1__SEAL_BATCH_RESPONSE__INIT;
    const ProtobufCMessage *answers[] = {
        [BATCH_GET] = &get.base,     [BATCH_CANCEL] = &cancel.base, [BATCH_CANCEL_SOME] = &cancel.base,
        [BATCH_PAUSE] = &pause.base, [BATCH_RESUME] = &resume.base, [BATCH_WAVE] = &wave.base,
        [BATCH_SEAL] = &seal.base};
    get.batch = cancel.batch = pause.batch = resume.batch = wave.batch = seal.batch = o->batch;
    cancel.devices = o->devices;
    request_reply(&o->r, answers[o->kind]);
}

static void on_progress(void *arg, enum err err, const uint32_t counts[STATE_COUNT])
{
    struct one_batch *o = arg;
    if (err != ERR_OK) {
        request_store_failed(&o->r, err, NULL);
        return;
    }
    reply_batch(o, counts);
}

static void on_breakdown(void *arg, enum err err, const struct breakdown *b)
{
    struct one_batch *o = arg;
    if (err != ERR_OK) {
        request_store_failed(&o->r, err, NULL);
        return;
    }
    if (o->batch)
        breakdown_present(&o->r.arena, b, o->wishes, o->batch);
    reply_batch(o, NULL);
}

/* Tells the leader what was asked for. */
static void announce(struct one_batch *o, const struct pg_result *asked)
{
    struct dispatcher *d = o->r.d;
    char text[40];
    bool cancel = o->kind == BATCH_CANCEL;
    if (!pg_rows(asked) || (!cancel && !pg_bool(asked, 0, 0)))
        return; /* nothing has changed */
    snprintf(text, sizeof text, "%s %" PRId64, cancel ? "cancel" : "steer", o->id);
    live_publish(d->live, text);
    leader_hint(d->leader, LEADER_HINT_CANCEL, (uint64_t)o->id);
}

/* One that is released already is answered as it is. */
static bool wave_refused(struct one_batch *o, const struct pg_result *asked)
{
    uint32_t released = (uint32_t)pg_int(asked, 0, 1), waves = (uint32_t)pg_int(asked, 0, 2);
    if (pg_bool(asked, 0, 0) || (o->wave && o->wave <= released))
        return false;
    if (o->wave > waves || released >= waves)
        request_refuse(&o->r, STATUS_FAILED_PRECONDITION, "NO_MORE_WAVES", "batch %" PRId64 " has no %s wave", o->id,
                       o->wave ? "such" : "further");
    else
        request_refuse(&o->r, STATUS_FAILED_PRECONDITION, "WAVE_NOT_NEXT",
                       "of batch %" PRId64 " wave %" PRIu32 " is the next one", o->id, released + 1);
    return true;
}

/* Results: [what was asked for,] the batch, its blocks, its approval. */
static void on_batch(struct request *r, const struct pg_result *const *results)
{
    struct one_batch *o = (struct one_batch *)r;
    size_t at = o->kind == BATCH_GET ? 0 : 1;
    const struct pg_result *row = results[at], *list = results[at + 1];
    if (!pg_rows(row)) {
        request_refuse(r, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "there is no batch %" PRId64, o->id);
        return;
    }
    if (o->kind > BATCH_CANCEL && !pg_rows(results[0])) {
        request_refuse(r, STATUS_FAILED_PRECONDITION, "BATCH_ENDING", "batch %" PRId64 " is canceled or closed", o->id);
        return;
    }
    if (o->kind == BATCH_WAVE && wave_refused(o, results[0]))
        return;
    if (o->kind == BATCH_SEAL && !pg_bool(results[0], 0, 1)) {
        request_refuse(r, STATUS_FAILED_PRECONDITION, "NOT_DYNAMIC", "batch %" PRId64 " is not dynamic", o->id);
        return;
    }
    if (o->kind != BATCH_GET)
        announce(o, results[0]);
    if (o->kind == BATCH_CANCEL && pg_rows(results[0]) && pg_rows(results[at + 2]))
        guard_tell_leader(r->d, o->id); /* it may have been held */
    db_batch_read(row, 0, &o->row);
    o->batch = present_batch(&r->arena, &o->row, NULL);
    if (o->batch)
        o->batch->approval = guard_present(&r->arena, results[at + 2]);
    /* What the row points to ends with this call. */
    o->row.request_id = o->row.description = o->row.reason = o->row.supersede_key = "";
    o->row.command = o->row.steering = (struct slice){0};
    if (o->wishes) {
        struct view_batch whole = batches_view(r->tenant, &o->row);
        breakdown_run(r->d, &whole, on_breakdown, o);
        return;
    }
    if (o->row.closed_ms) {
        reply_batch(o, o->row.counts);
        return;
    }
    size_t n = pg_int_array(list, 0, 0, NULL, 0);
    int64_t *wide = request_alloc(r, n, sizeof *wide);
    int32_t *blocks = request_alloc(r, n, sizeof *blocks);
    if (!wide || !blocks) {
        request_store_failed(r, ERR_NOMEM, NULL);
        return;
    }
    pg_int_array(list, 0, 0, wide, n);
    for (size_t i = 0; i < n; i++)
        blocks[i] = (int32_t)wide[i];
    struct view_batch view = batches_view(r->tenant, &o->row);
    view_progress(r->d, &view, blocks, n, on_progress, o);
}

void one_batch_run(struct one_batch *o, struct pg_txn *txn)
{
    db_batch_get(txn, o->r.tenant, o->id);
    db_batch_blocks(txn, o->id);
    db_guard_approval(txn, o->id);
    request_query(&o->r, txn, on_batch);
}

/* NULL when the call has ended already. */
static struct one_batch *one_batch(struct grpc_call *call, void *service, int64_t id, enum one_batch_kind kind,
                                   const char *reason)
{
    struct one_batch *o = request_begin(call, service, sizeof *o);
    struct status st = {0};
    if (!o)
        return NULL;
    validate_number(&st, "batch_id", id);
    validate_text(&st, "reason", reason, 0, REASON_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&o->r, &st);
        return NULL;
    }
    o->id = id;
    o->kind = kind;
    return o;
}

void get_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__GetBatchRequest *in = (const Muster__V1__GetBatchRequest *)request;
    struct one_batch *o = one_batch(call, service, in->batch_id, BATCH_GET, "");
    if (!o)
        return;
    o->wishes = breakdown_wishes(in->by_platform, in->by_wave, in->latency);
    one_batch_run(o, request_txn(&o->r));
}

void cancel_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__CancelBatchRequest *in = (const Muster__V1__CancelBatchRequest *)request;
    if (in->target) {
        cancel_some(call, service, in);
        return;
    }
    struct one_batch *o = one_batch(call, service, in->batch_id, BATCH_CANCEL, "");
    if (!o)
        return;
    struct pg_txn *txn = request_txn(&o->r);
    db_batch_cancel(txn, o->r.tenant, o->id, clock_wall_ms(), o->r.caller->key);
    one_batch_run(o, txn);
}

static void steer(struct grpc_call *call, void *service, int64_t id, enum one_batch_kind kind, const char *reason)
{
    struct one_batch *o = one_batch(call, service, id, kind, reason);
    if (!o)
        return;
    struct pg_txn *txn = request_txn(&o->r);
    db_control_pause(txn, o->r.tenant, id, kind == BATCH_PAUSE, reason, clock_wall_ms(), o->r.caller->key);
    one_batch_run(o, txn);
}

void pause_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__PauseBatchRequest *in = (const Muster__V1__PauseBatchRequest *)request;
    steer(call, service, in->batch_id, BATCH_PAUSE, in->reason);
}

void resume_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ResumeBatchRequest *in = (const Muster__V1__ResumeBatchRequest *)request;
    steer(call, service, in->batch_id, BATCH_RESUME, in->reason);
}

void release_wave(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ReleaseWaveRequest *in = (const Muster__V1__ReleaseWaveRequest *)request;
    struct one_batch *o = one_batch(call, service, in->batch_id, BATCH_WAVE, "");
    if (!o)
        return;
    o->wave = in->wave;
    struct pg_txn *txn = request_txn(&o->r);
    db_control_release_wave(txn, o->r.tenant, o->id, in->wave, clock_wall_ms(), o->r.caller->key);
    one_batch_run(o, txn);
}

void seal_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__SealBatchRequest *in = (const Muster__V1__SealBatchRequest *)request;
    struct one_batch *o = one_batch(call, service, in->batch_id, BATCH_SEAL, "");
    if (!o)
        return;
    struct pg_txn *txn = request_txn(&o->r);
    db_dynamic_seal(txn, o->r.tenant, o->id, clock_wall_ms(), o->r.caller->key);
    one_batch_run(o, txn);
}

struct batch_list {
    struct request r;
    uint32_t limit;
    struct page_filter filter;
};

static void on_list(struct request *r, const struct pg_result *const *results)
{
    struct batch_list *l = (struct batch_list *)r;
    size_t rows = (size_t)pg_rows(results[0]), n = rows < l->limit ? rows : l->limit;
    Muster__V1__ListBatchesResponse out = MUSTER__V1__LIST_BATCHES_RESPONSE__INIT;
    Muster__V1__Batch **list = request_alloc(r, n, sizeof *list);
    char token[PAGE_TOKEN_MAX];
    struct db_batch row = {0};
    for (size_t i = 0; list && i < n; i++) {
        db_batch_read(results[0], (int)i, &row);
        list[i] = present_batch(&r->arena, &row, row.closed_ms ? row.counts : NULL);
    }
    if (n && row.total > (int64_t)n) {
        page_token_write(token, &l->filter, row.id, NULL);
        out.next_page_token = token;
    }
    out.batches = list;
    out.n_batches = n;
    request_reply(r, &out.base);
}

void list_batches(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListBatchesRequest *in = (const Muster__V1__ListBatchesRequest *)request;
    struct batch_list *l = request_begin(call, service, sizeof *l);
    if (!l)
        return;
    struct status st = {0};
    struct page_token token;
    l->filter = page_filter_new(grpc_call_method(call)->path, l->r.tenant);
    page_filter_add_int(&l->filter, (int64_t)in->state);
    l->limit = validate_page_size(&st, in->page_size, 100, 1000);
    validate_enum(&st, "state", &muster__v1__batch_state__descriptor, (int)in->state, true);
    page_token_read(&token, &st, &l->filter, "page_token", in->page_token, INT64_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&l->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&l->r);
    db_batch_list(txn, l->r.tenant, token.after, (int)in->state, (int32_t)l->limit + 1, PAGE_BYTES);
    request_query(&l->r, txn, on_list);
}
