#include "dispatcher/cancel_some.h"

#include <inttypes.h>

#include "dispatcher/batches.h"
#include "dispatcher/resolve.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_control.h"

struct some {
    struct one_batch o;
    struct resolution res;
};

static void release(struct request *r)
{
    struct some *s = (struct some *)r;
    resolution_free(&s->res);
}

/* What of the target the batch addresses, block by block. False without memory. */
static bool ask(struct some *s, const struct pg_result *rows)
{
    struct request *r = &s->o.r;
    size_t n = (size_t)pg_rows(rows), kept = 0;
    int32_t *blocks = request_alloc(r, n, sizeof *blocks);
    struct bitmap *maps = request_alloc(r, n, sizeof *maps);
    struct slice *slots = request_alloc(r, n, sizeof *slots);
    if (!blocks || !maps || !slots)
        return false;
    for (size_t i = 0; i < n; i++) {
        struct db_batch_block row;
        const struct target_block *wanted;
        if (!db_batch_block_read(rows, (int)i, &row) || !(wanted = target_set_find(&s->res.set, row.block)))
            continue;
        struct bitmap outside = wanted->slots;
        bitmap_and_not(&outside, &row.targets);
        maps[kept] = wanted->slots;
        bitmap_and_not(&maps[kept], &outside);
        unsigned count = bitmap_count(&maps[kept]);
        if (!count)
            continue;
        s->o.devices += count;
        blocks[kept] = (int32_t)row.block;
        slots[kept] = (struct slice){maps[kept].bytes, sizeof maps[kept].bytes};
        kept++;
    }
    if (!kept) {
        request_refuse(r, STATUS_FAILED_PRECONDITION, "OUTSIDE_BATCH", "the batch addresses none of these devices");
        return true;
    }
    struct pg_txn *txn = request_txn(r);
    db_control_cancel_some(txn, r->tenant, s->o.id, blocks, slots, kept, clock_wall_ms(), r->caller->key);
    one_batch_run(&s->o, txn);
    return true;
}

/* Results: the batch, its blocks. */
static void on_targets(struct request *r, const struct pg_result *const *results)
{
    struct some *s = (struct some *)r;
    if (!pg_rows(results[0]))
        request_refuse(r, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "there is no batch %" PRId64, s->o.id);
    else if (!ask(s, results[1]))
        request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
}

static void on_resolved(struct resolution *res)
{
    struct some *s = res->arg;
    struct request *r = &s->o.r;
    size_t n = s->res.set.count;
    int32_t *blocks = request_alloc(r, n, sizeof *blocks);
    if (res->st.code == STATUS_OK) /* a mistyped id must not be taken for one that is canceled, or spared */
        resolution_refuse_unknown(res, &res->st);
    s->o.r.d->figures.store_errors += res->store_failed;
    if (res->st.code != STATUS_OK) {
        request_fail(r, &res->st);
        return;
    }
    if (!blocks) {
        request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
        return;
    }
    for (size_t i = 0; i < n; i++)
        blocks[i] = (int32_t)s->res.set.blocks[i].block;
    struct pg_txn *txn = request_txn(r);
    db_batch_get(txn, r->tenant, s->o.id);
    db_batch_targets(txn, r->tenant, s->o.id, blocks, n);
    request_query(r, txn, on_targets);
}

void cancel_some(struct grpc_call *call, void *service, const Muster__V1__CancelBatchRequest *in)
{
    struct some *s = request_begin(call, service, sizeof *s);
    struct status st = {0};
    if (!s)
        return;
    s->o.r.release = release;
    validate_number(&st, "batch_id", in->batch_id);
    validate_target(&st, in->target);
    if (st.code != STATUS_OK) {
        request_fail(&s->o.r, &st);
        return;
    }
    grpc_call_take_request(call);
    s->o.id = in->batch_id;
    s->o.kind = BATCH_CANCEL_SOME;
    s->res = (struct resolution){
        .pg = s->o.r.d->pg, .tenant = s->o.r.tenant, .target = in->target, .done = on_resolved, .arg = s};
    resolution_run(&s->res);
}
