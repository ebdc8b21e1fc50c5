#include "dispatcher/guard.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/leader.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/store/db_guard.h"
#include "lib/store/live.h"

static char *copy(struct arena *a, const char *text)
{
    char *p = arena_copy(a, text, strlen(text));
    return p ? p : (char *)"";
}

Muster__V1__BatchApproval *guard_present(struct arena *a, const struct pg_result *r)
{
    struct db_approval row;
    Muster__V1__BatchApproval *out = pg_rows(r) ? arena_alloc(a, sizeof *out) : NULL;
    if (!out)
        return NULL;
    db_guard_approval_read(r, 0, &row);
    muster__v1__batch_approval__init(out);
    out->state = (Muster__V1__ApprovalState)row.state;
    out->needed = row.needed;
    out->requested_by = row.requested_by;
    out->target_digest = copy(a, row.target_digest);
    out->command_hash = copy(a, row.command_hash);
    out->expires_at = row.needed ? present_time(a, row.expires_ms) : NULL;
    out->decided_by = row.decided_by;
    out->decided_at = present_time(a, row.decided_ms);
    out->release_at = present_time(a, row.release_ms);
    out->reason = copy(a, row.reason);
    return out;
}

void guard_tell_leader(struct dispatcher *d, int64_t batch)
{
    char text[40];
    snprintf(text, sizeof text, "released %" PRId64, batch);
    live_publish(d->live, text);
    leader_hint(d->leader, LEADER_HINT_RELEASED, (uint64_t)batch);
}

void guard_too_long(struct status *st, int64_t kept_ms)
{
    status_set(st, STATUS_FAILED_PRECONDITION, "EXPIRES_BEFORE_RELEASE",
               "the policy keeps the batch for %" PRId64 " seconds, and it ends before", (kept_ms + 999) / 1000);
    status_metadata(st, "seconds", "%" PRId64, (kept_ms + 999) / 1000);
}

bool guard_refused(struct status *st, enum err err, const struct pg_error *error)
{
    if (err != ERR_INVALID || !error || strcmp(error->sqlstate, DB_GUARD_TOO_LONG_STATE) != 0)
        return false;
    guard_too_long(st, strtoll(error->message, NULL, 10));
    return true;
}

struct decision {
    struct request r;
    int64_t batch;
    bool approve;
};

/* Why the store did not do it, as callers are told. */
static void refuse(struct decision *c, const char *why)
{
    static const struct {
        const char *reason;
        enum status_code code;
        const char *words;
    } table[] = {
        {"NOT_AWAITING_APPROVAL", STATUS_FAILED_PRECONDITION, "the batch does not wait for approval"},
        {"APPROVAL_EXPIRED", STATUS_FAILED_PRECONDITION, "the time to approve the batch is over"},
        {"EXPIRES_BEFORE_RELEASE", STATUS_FAILED_PRECONDITION, "the batch ends before it would have cooled off"},
        {"SAME_KEY", STATUS_PERMISSION_DENIED, "the key that submitted the batch can't approve it"},
        {"TARGET_CHANGED", STATUS_FAILED_PRECONDITION, "the digest is not that of the batch's devices"},
        {"COMMAND_CHANGED", STATUS_FAILED_PRECONDITION, "the hash is not that of the batch's command"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(why, table[i].reason) == 0) {
            request_refuse(&c->r, table[i].code, table[i].reason, "%s", table[i].words);
            return;
        }
    request_refuse(&c->r, STATUS_INTERNAL, "STORE_REFUSED", "the store refused the request");
}

/* Results: what was decided, the batch, its approval. */
static void on_decided(struct request *r, const struct pg_result *const *results)
{
    struct decision *c = (struct decision *)r;
    struct db_batch row;
    if (!pg_rows(results[0]) || !pg_rows(results[1])) {
        request_refuse(r, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "there is no batch %" PRId64, c->batch);
        return;
    }
    if (*pg_text(results[0], 0, 0)) {
        refuse(c, pg_text(results[0], 0, 0));
        return;
    }
    db_batch_read(results[1], 0, &row);
    if (!row.held)
        guard_tell_leader(r->d, c->batch);
    Muster__V1__ApproveBatchResponse approved = MUSTER__V1__APPROVE_BATCH_RESPONSE__INIT;
    Muster__V1__RejectBatchResponse rejected = MUSTER__V1__REJECT_BATCH_RESPONSE__INIT;
    Muster__V1__Batch *batch = present_batch(&r->arena, &row, NULL);
    if (batch)
        batch->approval = guard_present(&r->arena, results[2]);
    approved.batch = rejected.batch = batch;
    request_reply(r, c->approve ? &approved.base : &rejected.base);
}

static void decide(struct decision *c, const char *digest, const char *command_hash, const char *reason)
{
    struct pg_txn *txn = request_txn(&c->r);
    db_guard_decide(txn, c->r.tenant, c->batch, c->r.caller->key, c->approve, digest, command_hash, reason);
    db_batch_get(txn, c->r.tenant, c->batch);
    db_guard_approval(txn, c->batch);
    request_query(&c->r, txn, on_decided);
}

static void check_hash(struct status *st, const char *field, const char *hash)
{
    if (strlen(hash) != DIGEST_TEXT || strspn(hash, "0123456789abcdef") != DIGEST_TEXT)
        status_violation(st, field, "must be %u hexadecimal digits in lower case", DIGEST_TEXT);
}

void approve_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ApproveBatchRequest *in = (const Muster__V1__ApproveBatchRequest *)request;
    struct decision *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    validate_number(&st, "batch_id", in->batch_id);
    check_hash(&st, "target_digest", in->target_digest);
    check_hash(&st, "command_hash", in->command_hash);
    validate_text(&st, "reason", in->reason, 0, DECISION_REASON_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    c->batch = in->batch_id;
    c->approve = true;
    decide(c, in->target_digest, in->command_hash, in->reason);
}

void reject_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__RejectBatchRequest *in = (const Muster__V1__RejectBatchRequest *)request;
    struct decision *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    validate_number(&st, "batch_id", in->batch_id);
    validate_text(&st, "reason", in->reason, 0, DECISION_REASON_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    c->batch = in->batch_id;
    decide(c, "", "", in->reason);
}
