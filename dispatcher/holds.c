#include "dispatcher/holds.h"

#include <string.h>

#include "dispatcher/gate_keeper.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "dispatcher/view.h"
#include "lib/base/clock.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_gate.h"
#include "muster/v1/control_service.pb-c.h"

/* Hold and Release. */
struct change {
    struct request r;
    bool closed, confirmed, own;
    struct gate_wait wait;
    ev_timer timer;
    Muster__V1__HeldScope *hold;
    int32_t tenant; /* 0: all */
    /* The open batches, one after another. */
    Muster__V1__HeldBatch **batches;
    struct view_batch *views;
    int32_t **blocks;
    size_t *block_counts;
    size_t count, next;
    uint32_t open; /* all of them: more than `count` where only the newest are told */
};

static Muster__V1__HeldScope *present_hold(struct arena *a, const struct db_gate *gate)
{
    Muster__V1__HeldScope *h = arena_alloc(a, sizeof *h);
    if (!h)
        return NULL;
    muster__v1__held_scope__init(h);
    char *tenant = arena_copy(a, gate->tenant_name, strlen(gate->tenant_name));
    char *reason = arena_copy(a, gate->reason, strlen(gate->reason));
    if (tenant)
        h->tenant = tenant;
    if (reason)
        h->reason = reason;
    h->held_at = present_time(a, gate->changed_ms);
    h->confirmed_at = present_time(a, gate->confirmed_ms);
    return h;
}

static void answer(struct change *c)
{
    Muster__V1__HoldResponse held = MUSTER__V1__HOLD_RESPONSE__INIT;
    Muster__V1__ReleaseResponse released = MUSTER__V1__RELEASE_RESPONSE__INIT;
    held.hold = c->hold;
    held.batches = c->batches;
    held.n_batches = c->next;
    held.open_batches = c->open;
    if (!c->closed && c->hold)
        released.confirmed_at = c->hold->confirmed_at;
    request_reply(&c->r, c->closed ? &held.base : &released.base);
}

/* --- what had been sent ------------------------------------------------------------------------------------------- */

static void tell_next(struct change *c);

static void on_given(void *arg, enum err err, const uint32_t counts[STATE_COUNT], uint32_t given)
{
    struct change *c = arg;
    if (err != ERR_OK) {
        request_store_failed(&c->r, err, NULL);
        return;
    }
    c->batches[c->next]->progress = present_progress(&c->r.arena, counts);
    c->batches[c->next]->given = given;
    c->next++;
    tell_next(c);
}

static void tell_next(struct change *c)
{
    if (c->next >= c->count)
        answer(c);
    else
        view_given(c->r.d, &c->views[c->next], c->blocks[c->next], c->block_counts[c->next], on_given, c);
}

static bool keep_batch(struct change *c, const struct pg_result *rows, size_t i)
{
    struct arena *a = &c->r.arena;
    Muster__V1__HeldBatch *b = request_alloc(&c->r, 1, sizeof *b);
    size_t n = pg_int_array(rows, (int)i, 4, NULL, 0);
    int64_t *wide = request_alloc(&c->r, n, sizeof *wide);
    c->blocks[i] = request_alloc(&c->r, n, sizeof **c->blocks);
    char *name = arena_copy(a, pg_text(rows, (int)i, 2), strlen(pg_text(rows, (int)i, 2)));
    if (!b || !wide || !c->blocks[i] || !name)
        return false;
    muster__v1__held_batch__init(b);
    b->batch_id = pg_int(rows, (int)i, 0);
    b->tenant = name;
    c->batches[i] = b;
    bool held = pg_bool(rows, (int)i, 5);
    c->views[i] = (struct view_batch){.tenant = (int32_t)pg_int(rows, (int)i, 1),
                                      .id = b->batch_id,
                                      .created_ms = pg_int(rows, (int)i, 3),
                                      .held = held,
                                      .routed = !held};
    c->block_counts[i] = n;
    pg_int_array(rows, (int)i, 4, wide, n);
    for (size_t k = 0; k < n; k++)
        c->blocks[i][k] = (int32_t)wide[k];
    return true;
}

static void on_batches(struct request *r, const struct pg_result *const *results)
{
    struct change *c = (struct change *)r;
    size_t n = (size_t)pg_rows(results[0]);
    c->batches = request_alloc(r, n, sizeof *c->batches);
    c->views = request_alloc(r, n, sizeof *c->views);
    c->blocks = request_alloc(r, n, sizeof *c->blocks);
    c->block_counts = request_alloc(r, n, sizeof *c->block_counts);
    bool kept = c->batches && c->views && c->blocks && c->block_counts;
    for (size_t i = 0; i < n && kept; i++)
        kept = keep_batch(c, results[0], i);
    c->count = kept ? n : 0;
    c->open = n ? (uint32_t)pg_int(results[0], 0, 6) : 0;
    tell_next(c); /* without memory the answer says so */
}

static void tell_batches(struct change *c)
{
    struct pg_txn *txn = request_txn(&c->r);
    db_batch_open(txn, c->tenant, HOLD_BATCHES_MAX);
    request_query(&c->r, txn, on_batches);
}

/* --- the change --------------------------------------------------------------------------------------------------- */

static void waited(struct change *c)
{
    ev_timer_stop(c->r.d->loop, &c->timer);
    if (c->hold && !c->hold->confirmed_at)
        c->hold->confirmed_at = present_time(&c->r.arena, c->wait.confirmed_ms);
    if (c->closed && c->confirmed)
        tell_batches(c);
    else
        answer(c);
}

static void on_confirmed(struct gate_wait *wait)
{
    struct change *c = container_of(wait, struct change, wait);
    c->confirmed = true;
    waited(c);
}

static void on_timeout(struct ev_loop *loop, ev_timer *t, int events)
{
    struct change *c = container_of(t, struct change, timer);
    (void)loop, (void)events;
    gate_wait_end(&c->wait);
    waited(c);
}

static void on_set(struct request *r, const struct pg_result *const *results)
{
    struct change *c = (struct change *)r;
    struct db_gate gate;
    if (!pg_rows(results[0]) && (c->closed || c->own)) {
        request_refuse(r, STATUS_NOT_FOUND, c->closed ? "TENANT_NOT_FOUND" : "NOT_HELD",
                       c->closed ? "there is no such tenant" : "it is not held");
        return;
    }
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_NOT_FOUND, "NOT_HELD", "it is not held, or there is no such tenant");
        return;
    }
    db_gate_read(results[0], 0, &gate);
    c->tenant = gate.tenant;
    c->hold = present_hold(&r->arena, &gate);
    if (gate.confirmed_ms) { /* it was so before */
        c->confirmed = true;
        waited(c);
        return;
    }
    ev_timer_init(&c->timer, on_timeout, HOLD_WAIT_S, 0);
    ev_timer_start(r->d->loop, &c->timer);
    c->wait.done = on_confirmed;
    gate_keeper_changed(r->d->gates, (uint64_t)gate.number, &c->wait);
    live_publish(r->d->live, "gates 0");
}

static void change(struct grpc_call *call, void *service, bool closed, bool all_set, bool all, const char *tenant,
                   const char *reason)
{
    struct change *c = request_begin(call, service, sizeof *c);
    struct status st = {0};
    if (!c)
        return;
    if (all_set && !all)
        status_violation(&st, "all", "must be true when it is set");
    if (tenant)
        validate_tenant_name(&st, "tenant", tenant);
    validate_text(&st, "reason", reason, 0, REASON_MAX);
    c->own = !all_set && !tenant;
    if (st.code == STATUS_OK && !c->own && c->r.caller->role != MUSTER__V1__ROLE__ROLE_ADMIN)
        status_set(&st, STATUS_PERMISSION_DENIED, "ROLE_INSUFFICIENT", "another tenant's or all needs the role admin");
    if (st.code == STATUS_PERMISSION_DENIED)
        auth_denied(c->r.d, call, c->r.caller);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    c->closed = closed;
    struct pg_txn *txn = request_txn(&c->r);
    db_gate_set(txn, c->own ? c->r.tenant : 0, tenant, closed, reason, clock_wall_ms(), c->r.caller->key);
    request_query(&c->r, txn, on_set);
}

void hold_scope(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__HoldRequest *in = (const Muster__V1__HoldRequest *)request;
    change(call, service, true, in->scope_case == MUSTER__V1__HOLD_REQUEST__SCOPE_ALL, in->all,
           in->scope_case == MUSTER__V1__HOLD_REQUEST__SCOPE_TENANT ? in->tenant : NULL, in->reason);
}

void release_scope(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ReleaseRequest *in = (const Muster__V1__ReleaseRequest *)request;
    change(call, service, false, in->scope_case == MUSTER__V1__RELEASE_REQUEST__SCOPE_ALL, in->all,
           in->scope_case == MUSTER__V1__RELEASE_REQUEST__SCOPE_TENANT ? in->tenant : NULL, in->reason);
}

/* --- listing ------------------------------------------------------------------------------------------------------ */

static void on_list(struct request *r, const struct pg_result *const *results)
{
    Muster__V1__ListHoldsResponse out = MUSTER__V1__LIST_HOLDS_RESPONSE__INIT;
    size_t n = (size_t)pg_rows(results[0]);
    out.holds = request_alloc(r, n, sizeof *out.holds);
    for (size_t i = 0; out.holds && i < n; i++) {
        struct db_gate gate;
        db_gate_read(results[0], (int)i, &gate);
        if (gate.closed)
            out.holds[out.n_holds++] = present_hold(&r->arena, &gate);
    }
    request_reply(r, &out.base);
}

void list_holds(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct request *r = request_begin(call, service, sizeof *r);
    (void)request;
    if (!r)
        return;
    struct pg_txn *txn = request_txn(r);
    db_gate_list(txn, r->caller->role == MUSTER__V1__ROLE__ROLE_ADMIN ? 0 : r->tenant);
    request_query(r, txn, on_list);
}
