#include "dispatcher/submit_internal.h"

#include <sodium.h>
#include <string.h>

#include "dispatcher/accepted_digest.h"
#include "dispatcher/guard.h"
#include "dispatcher/present.h"
#include "lib/store/db_control.h"
#include "lib/store/db_guard.h"

void submit_no_memory(struct submit *s)
{
    request_refuse(&s->r, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
}

/* The batch as it is in the moment of acceptance. */
static Muster__V1__Batch *present_accepted(struct submit *s)
{
    const struct db_accept *b = &s->job.batch;
    uint32_t counts[STATE_COUNT] = {0};
    counts[s->job.state ? STATE_HELD : STATE_QUEUED] = b->device_count;
    struct db_batch row = {.id = s->job.id,
                           .request_id = b->request_id,
                           .description = b->description,
                           .command = b->command,
                           .priority = b->priority,
                           .device_count = b->device_count,
                           .reason = "",
                           .supersede_key = b->supersede_key,
                           .retry = b->steer.retry,
                           .steered = b->steering.len || b->dynamic.len,
                           .dynamic = b->dynamic.len,
                           .steering = b->steering,
                           .not_before_ms = b->steer.not_before_ms,
                           .waves_released = b->steer.waves > 0,
                           .described = s->values.values.described};
    if (!s->in->validate_only) {
        row.created_ms = b->created_ms;
        row.expires_ms = b->expires_ms;
    }
    return present_batch(&s->r.arena, &row, s->in->validate_only ? NULL : counts);
}

/* Whom it addresses, and whom not. */
static void put_others(struct submit *s, Muster__V1__SubmitBatchResponse *out)
{
    const struct db_accept *b = &s->job.batch;
    out->target_digest = s->digest;
    out->unknown_count = s->res.unknown_count;
    out->n_unknown_device_ids = s->res.unknown_kept;
    out->unknown_device_ids = (char **)(uintptr_t)s->res.unknown;
    out->skipped_count = b->skipped_count;
    out->n_skipped_device_ids = b->skipped_kept;
    out->skipped_device_ids = (char **)(uintptr_t)b->skipped_ids;
}

void submit_answer_accepted(struct submit *s)
{
    Muster__V1__SubmitBatchResponse out = MUSTER__V1__SUBMIT_BATCH_RESPONSE__INIT;
    out.batch = present_accepted(s);
    put_others(s, &out);
    request_reply(&s->r, &out.base);
}

static void on_approval(struct request *r, const struct pg_result *const *results)
{
    struct submit *s = (struct submit *)r;
    Muster__V1__SubmitBatchResponse out = MUSTER__V1__SUBMIT_BATCH_RESPONSE__INIT;
    out.batch = present_accepted(s);
    if (out.batch)
        out.batch->approval = guard_present(&r->arena, results[0]);
    put_others(s, &out);
    request_reply(&s->r, &out.base);
}

void submit_answer_held(struct submit *s)
{
    struct pg_txn *txn = request_txn(&s->r);
    db_guard_approval(txn, s->job.id);
    request_query(&s->r, txn, on_approval);
}

void submit_answer_validated(struct submit *s, bool approval_needed)
{
    Muster__V1__PlatformCount counts[RESOLVE_PLATFORMS], *list[RESOLVE_PLATFORMS];
    Muster__V1__SubmitBatchResponse out = MUSTER__V1__SUBMIT_BATCH_RESPONSE__INIT;
    out.approval_needed = approval_needed;
    for (int p = 0; p < RESOLVE_PLATFORMS; p++) {
        if (!s->res.platforms[p])
            continue;
        muster__v1__platform_count__init(&counts[p]);
        counts[p].platform = (Muster__V1__Platform)p;
        counts[p].devices = s->res.platforms[p];
        list[out.n_platforms++] = &counts[p];
    }
    out.platforms = list;
    out.batch = present_accepted(s);
    put_others(s, &out);
    request_reply(&s->r, &out.base);
}

struct id_list {
    struct arena *arena;
    char **ids; /* room for RESOLVE_UNKNOWN_KEPT */
    size_t n;
};

static void keep_id(void *arg, struct slice id)
{
    struct id_list *list = arg;
    char *text = list->n < RESOLVE_UNKNOWN_KEPT ? arena_copy(list->arena, id.data, id.len) : NULL;
    if (text)
        list->ids[list->n++] = text;
}

/* How it stood when it was accepted. */
static void put_approval(struct submit *s, const struct pg_result *row)
{
    Muster__V1__Batch *batch = s->replayed.batch;
    Muster__V1__BatchApproval *a = guard_present(&s->r.arena, row);
    if (!a || !batch)
        return;
    a->state = a->needed ? MUSTER__V1__APPROVAL_STATE__APPROVAL_STATE_PENDING
                         : MUSTER__V1__APPROVAL_STATE__APPROVAL_STATE_COOLING_OFF;
    a->release_at = a->needed ? NULL : a->release_at;
    a->decided_at = NULL;
    a->decided_by = 0;
    a->reason = (char *)"";
    batch->approval = a;
    if (batch->progress) {
        batch->progress->held = batch->device_count;
        batch->progress->queued = 0;
    }
}

/* Row by row: the batch's blocks. */
static void on_replayed_targets(struct request *r, const struct pg_result *const *results)
{
    struct submit *s = (struct submit *)r;
    put_approval(s, results[3]);
    struct id_list skipped = {.arena = &r->arena, .ids = request_alloc(r, RESOLVE_UNKNOWN_KEPT, sizeof(char *))};
    s->replayed.target_digest = s->digest;
    if (pg_rows(results[2]) && skipped.ids) {
        s->replayed.skipped_count = (uint32_t)pg_int(results[2], 0, 0);
        db_batch_skipped_each(results[2], keep_id, &skipped);
        s->replayed.skipped_device_ids = skipped.ids;
        s->replayed.n_skipped_device_ids = skipped.n;
    }
    if (!accepted_digest(results[0], results[1], r->tenant, s->digest))
        submit_no_memory(s);
    else
        request_reply(&s->r, &s->replayed.base);
}

/* As it was when it was accepted, whatever was done to it since. */
static void make_new(struct db_batch *row)
{
    row->device_count -= row->joined;
    row->joined = row->stopped = row->cohorts_canceled = row->rate_steps = 0;
    row->waves_released = row->waves_released > 0;
    row->steered = row->steering.len || row->dynamic;
    row->sealed = row->paused = row->asked = false;
    row->handled_ms = row->cancel_requested_ms = row->canceled_ms = row->closed_ms = 0;
    row->reason = "";
}

void submit_answer_replayed(struct submit *s, const struct pg_result *result)
{
    struct db_batch row;
    db_batch_read(result, 0, &row);
    if (row.request_hash.len != 32 || sodium_memcmp(row.request_hash.data, s->job.batch.request_hash, 32) != 0) {
        request_refuse(&s->r, STATUS_ALREADY_EXISTS, "REQUEST_ID_REUSED", "the request id stands for another request");
        return;
    }
    uint32_t counts[STATE_COUNT] = {0};
    make_new(&row);
    counts[STATE_QUEUED] = row.device_count;
    struct id_list unknown = {.arena = &s->r.arena, .ids = request_alloc(&s->r, RESOLVE_UNKNOWN_KEPT, sizeof(char *))};
    if (unknown.ids)
        db_batch_unknown(result, 0, keep_id, &unknown);
    Muster__V1__SubmitBatchResponse *out = &s->replayed;
    muster__v1__submit_batch_response__init(out);
    out->batch = present_batch(&s->r.arena, &row, counts);
    out->unknown_count = row.unknown_count;
    out->unknown_device_ids = unknown.ids;
    out->n_unknown_device_ids = unknown.n;
    out->replayed = 1;
    s->r.d->figures.batches_replayed++;
    struct pg_txn *txn = request_txn(&s->r);
    db_batch_addressed(txn, row.id);
    db_control_parts(txn, (uint64_t)row.id);
    db_batch_skipped(txn, row.id);
    db_guard_approval(txn, row.id);
    request_query(&s->r, txn, on_replayed_targets);
}
