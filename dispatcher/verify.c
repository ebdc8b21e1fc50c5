#include "dispatcher/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/audit.h"
#include "dispatcher/validate.h"
#include "lib/base/log.h"
#include "lib/store/db_open.h"
#include "proto/inbox.h"

#define LOOKS    3   /* that a difference is at, until it is named */
#define REPAIR_S 2.0 /* until a repair shows; the sweep for dead workers comes each second */
#define REPAIRS  5   /* looks after a repair until what is left counts as left */

/* Between these looks, s: longer than anything is in transit, and than a busy machine lets a process stand still. */
static const double pauses[LOOKS - 1] = {1.5, 3};

static struct verify_finding nowhere;

/* --- what is noted ------------------------------------------------------------------------------------------------ */

struct verify_finding *verify_note(struct verify *v, Muster__V1__Difference kind, uint32_t tenant, uint32_t block,
                                   uint64_t batch, uint32_t worker, uint32_t count)
{
    struct verify_finding f = {
        .kind = kind, .tenant = tenant, .block = block, .batch = batch, .worker = worker, .count = count};
    if (buf_len(&v->found) >= VERIFY_FOUND_MAX * sizeof f) {
        v->more = true;
        return &nowhere;
    }
    buf_put(&v->found, &f, sizeof f);
    if (v->found.failed) {
        verify_failed(v, ERR_NOMEM);
        return &nowhere;
    }
    return (struct verify_finding *)(void *)(buf_head(&v->found) + buf_len(&v->found) - sizeof f);
}

static size_t count_of(const struct buf *found)
{
    return buf_len(found) / sizeof(struct verify_finding);
}

static struct verify_finding *findings(const struct buf *found)
{
    return (struct verify_finding *)(void *)(uintptr_t)buf_slice(found).data;
}

static int compare(const void *a, const void *b)
{
    const struct verify_finding *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->tenant != y->tenant)
        return x->tenant < y->tenant ? -1 : 1;
    if (x->batch != y->batch)
        return x->batch < y->batch ? -1 : 1;
    if (x->block != y->block)
        return x->block < y->block ? -1 : 1;
    return x->worker < y->worker ? -1 : x->worker > y->worker;
}

/* Keeps of the new ones those that were there before; a key that a scan has met twice counts once. */
static void keep_confirmed(struct verify *v)
{
    struct verify_finding *now = findings(&v->found);
    size_t n = count_of(&v->found), kept = 0;
    qsort(now, n, sizeof *now, compare);
    for (size_t i = 0; i < n; i++)
        if ((i == 0 || compare(&now[i - 1], &now[i]) != 0) && count_of(&v->before) &&
            bsearch(&now[i], findings(&v->before), count_of(&v->before), sizeof *now, compare))
            now[kept++] = now[i];
    v->found.end = v->found.start + kept * sizeof *now;
}

/* --- what is known ------------------------------------------------------------------------------------------------ */

const struct verify_tenant *verify_tenant(const struct verify *v, uint32_t id)
{
    size_t low = 0, high = v->tenant_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (v->tenants[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < v->tenant_count && v->tenants[low].id == id ? &v->tenants[low] : NULL;
}

const struct verify_worker *verify_worker(const struct verify *v, uint16_t number)
{
    for (size_t i = 0; i < v->worker_count; i++)
        if (v->workers[i].number == number)
            return &v->workers[i];
    return NULL;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static void forget_look(struct verify *v)
{
    free(v->tenants);
    free(v->workers);
    free(v->reports);
    free(v->part);
    v->tenants = NULL;
    v->workers = NULL;
    v->reports = NULL;
    v->part = NULL;
    v->tenant_count = v->worker_count = v->report_count = 0;
    buf_free(&v->told_by_workers);
    buf_free(&v->slots);
    buf_reset(&v->open);
}

static void end(struct verify *v)
{
    ev_timer_stop(v->r.d->loop, &v->wait);
    forget_look(v);
    free(v->blocks);
    buf_free(&v->open);
    buf_free(&v->found);
    buf_free(&v->before);
    if (v->failure.code != STATUS_OK)
        request_fail(&v->r, &v->failure);
    else
        request_done(&v->r);
}

bool verify_back(struct verify *v, enum err err)
{
    v->moves--;
    if (err)
        verify_failed(v, err);
    return verify_on(v);
}

bool verify_on(struct verify *v)
{
    if (!v->over)
        return true;
    if (!v->moves)
        end(v);
    return false;
}

void verify_no_memory(struct verify *v)
{
    verify_failed(v, ERR_NOMEM);
    if (!v->moves)
        end(v);
}

void verify_failed(struct verify *v, enum err err)
{
    if (v->over)
        return;
    v->over = true;
    if (err == ERR_NOMEM)
        status_set(&v->failure, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
    else
        status_set(&v->failure, STATUS_UNAVAILABLE, "STORE_UNAVAILABLE", "Redis or PostgreSQL is not available (%s)",
                   err_name(err));
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

/* What makes it good: who is told, and what is said of it. */
static const struct repair {
    const char *event; /* of muster:events, with the batch, or the worker */
    const char *said;
} repairs[] = {
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_GENERATION] = {"repair all", "filled again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_SPEC_MISSING] = {"repair batch %" PRIu64, "routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_STATES_MISSING] = {"repair batch %" PRIu64, "routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_NOT_LISTED] = {"repair batch %" PRIu64, "routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_WRONG_DEVICES] = {"repair redo %" PRIu64, "thrown away, routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_IMPOSSIBLE_STATE] = {"repair redo %" PRIu64, "thrown away, routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_REDIS_BEHIND] = {"repair batch %" PRIu64, "routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_REDIS_AHEAD] = {"repair batch %" PRIu64, "recorded"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_OUTCOMES_DIFFER] = {"repair redo %" PRIu64, "thrown away, routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_NOT_IN_HANDS] = {"repair batch %" PRIu64, "routed again"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_STATES_LEFT] = {"repair left %" PRIu64 " %u %u", "deleted"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_LISTED_LEFT] = {"repair left %" PRIu64 " %u %u", "deleted"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_SPEC_LEFT] = {"repair spec %" PRIu64, "deleted"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_PRESENCE_OF_NOBODY] = {"repair worker", "reaped"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_PRESENCE_WITHOUT_SESSION] = {NULL, "detached by the worker"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_SESSION_WITHOUT_PRESENCE] = {NULL, "attached by the worker"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_INBOX_OF_NOBODY] = {"repair worker", "deleted"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_WORKER_NOT_LISTED] = {"repair worker", "listed"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_WORKER_NOT_REAPED] = {NULL, "left to the leader"},
    [MUSTER__V1__DIFFERENCE__DIFFERENCE_WORKER_SILENT] = {NULL, "none"},
};

static void repair(struct verify *v, const struct verify_finding *f)
{
    struct live *live = v->r.d->live;
    const char *event = repairs[f->kind].event;
    char text[96];
    if (event && strcmp(event, "repair worker") == 0) {
        snprintf(text, sizeof text, "repair worker %u", f->worker);
        live_publish(live, text);
    } else if (event) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, event, f->batch, f->tenant, f->block);
#pragma GCC diagnostic pop
        live_publish(live, text);
    } else if (f->kind == MUSTER__V1__DIFFERENCE__DIFFERENCE_PRESENCE_WITHOUT_SESSION ||
               f->kind == MUSTER__V1__DIFFERENCE__DIFFERENCE_SESSION_WITHOUT_PRESENCE) {
        struct buf item = {0};
        inbox_put(&item, &(struct inbox_item){.kind = INBOX_CHECK, .tenant = f->tenant, .block = f->block});
        if (!item.failed)
            live_inbox_push(live, (uint16_t)f->worker, LIVE_URGENT, buf_slice(&item), NULL, NULL);
        buf_free(&item);
    }
}

static void tell(struct verify *v, const struct verify_finding *f)
{
    Muster__V1__VerifyResponse response = MUSTER__V1__VERIFY_RESPONSE__INIT;
    Muster__V1__Finding out = MUSTER__V1__FINDING__INIT;
    const struct verify_tenant *tenant = verify_tenant(v, f->tenant);
    out.difference = (Muster__V1__Difference)f->kind;
    out.tenant = tenant ? (char *)(uintptr_t)tenant->name : (char *)"";
    out.block = f->block;
    out.batch_id = (int64_t)f->batch;
    out.worker = f->worker;
    out.count = f->count;
    out.postgres = (char *)(uintptr_t)f->postgres;
    out.redis = (char *)(uintptr_t)f->redis;
    out.workers = (char *)(uintptr_t)f->workers;
    out.repair = v->repair ? (char *)(uintptr_t)repairs[f->kind].said : (char *)"";
    response.finding = &out;
    grpc_call_send(v->r.call, &response.base);
}

static void tell_summary(struct verify *v)
{
    Muster__V1__VerifyResponse response = MUSTER__V1__VERIFY_RESPONSE__INIT;
    v->summary.found = v->told;
    v->summary.left = v->left;
    v->summary.more = v->more;
    response.summary = &v->summary;
    grpc_call_send(v->r.call, &response.base);
    log_info("verified", "found=%u left=%u", v->told, v->left);
    end(v);
}

/* --- one look after the other ------------------------------------------------------------------------------------- */

static void look(struct verify *v);

static void on_wait(struct ev_loop *loop, ev_timer *t, int events)
{
    struct verify *v = container_of(t, struct verify, wait);
    (void)loop, (void)events;
    if (v->over)
        end(v);
    else
        v->after(v);
}

void verify_after(struct verify *v, double seconds, void (*fn)(struct verify *v))
{
    v->after = fn;
    ev_timer_set(&v->wait, seconds, 0);
    ev_timer_start(v->r.d->loop, &v->wait);
}

static void remember(struct verify *v)
{
    struct buf b = v->before;
    v->before = v->found;
    v->found = b;
    buf_reset(&v->found);
}

/* The look is over. */
static void looked(struct verify *v)
{
    v->looks++;
    if (v->looks == 1)
        qsort(findings(&v->found), count_of(&v->found), sizeof(struct verify_finding), compare);
    else
        keep_confirmed(v);
    v->left = (uint32_t)count_of(&v->found);
    if (v->looks < LOOKS && v->left) {
        remember(v);
        verify_after(v, pauses[v->looks - 1], look);
        return;
    }
    if (v->looks == LOOKS) {
        v->told = v->left;
        for (size_t i = 0; i < v->left; i++)
            tell(v, &findings(&v->found)[i]);
    }
    if (!v->repair || !v->left || v->looks == LOOKS + REPAIRS) {
        tell_summary(v);
        return;
    }
    for (size_t i = 0; i < v->left; i++)
        repair(v, &findings(&v->found)[i]);
    remember(v);
    verify_after(v, REPAIR_S, look);
}

static void got_generation(void *arg, enum err err, int64_t value)
{
    struct verify *v = arg;
    if (!verify_back(v, err))
        return;
    if (!value)
        verify_note(v, MUSTER__V1__DIFFERENCE__DIFFERENCE_GENERATION, 0, 0, 0, 0, 1);
    looked(v);
}

/* Parts in order: presence is looked at with the workers' reports; keys know the batches. */
static void (*const parts[])(struct verify *v) = {verify_workers, verify_batches, verify_presence, verify_keys};

void verify_next(struct verify *v)
{
    free(v->part);
    v->part = NULL;
    if (v->parts_done < sizeof parts / sizeof *parts) {
        parts[v->parts_done++](v);
        return;
    }
    verify_go(v);
    live_generation_get(v->r.d->live, got_generation, v);
}

static void got_tenants(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct verify *v = arg;
    (void)error, (void)count;
    if (!verify_back(v, err))
        return;
    size_t n = (size_t)pg_rows(results[0]);
    v->tenants = calloc(n + 1, sizeof *v->tenants);
    if (!v->tenants) {
        verify_no_memory(v);
        return;
    }
    v->tenant_count = n;
    for (size_t i = 0; i < n; i++) {
        struct verify_tenant *t = &v->tenants[i];
        struct slice name = pg_bytes(results[0], (int)i, 2);
        t->id = (uint32_t)pg_int(results[0], (int)i, 0);
        t->blocks = (uint32_t)pg_int(results[0], (int)i, 1);
        snprintf(t->name, sizeof t->name, "%.*s", (int)name.len, (const char *)name.data);
    }
    if (*v->tenant && !n) {
        v->over = true;
        status_set(&v->failure, STATUS_NOT_FOUND, "TENANT_NOT_FOUND", "there is no such tenant");
        end(v);
        return;
    }
    verify_next(v);
}

static void look(struct verify *v)
{
    forget_look(v);
    v->parts_done = 0;
    v->summary = (Muster__V1__VerifySummary)MUSTER__V1__VERIFY_SUMMARY__INIT;
    struct pg_txn *txn = pg_txn_new(v->r.d->pg, PG_ANY_LANE);
    if (txn)
        db_open_tenant_names(txn, v->tenant);
    verify_go(v);
    pg_txn_submit(txn, got_tenants, v);
}

/* --- the call ----------------------------------------------------------------------------------------------------- */

void verify_run(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__VerifyRequest *in = (const Muster__V1__VerifyRequest *)request;
    struct verify *v = request_begin(call, service, sizeof *v);
    if (!v)
        return;
    struct status st = {0};
    if (*in->tenant)
        validate_tenant_name(&st, "tenant", in->tenant);
    if (st.code != STATUS_OK) {
        request_fail(&v->r, &st);
        return;
    }
    snprintf(v->tenant, sizeof v->tenant, "%s", in->tenant);
    v->repair = in->repair;
    if (v->repair)
        audit_note(v->r.d, call, v->r.caller, "verify_repair", in->tenant, "", "");
    ev_timer_init(&v->wait, on_wait, 0, 0);
    look(v);
}

void verify_cancelled(struct grpc_call *call, void *service)
{
    struct verify *v = grpc_call_data(call);
    (void)service;
    if (!v || v->over)
        return;
    v->over = true;
    if (!v->moves)
        end(v);
}
