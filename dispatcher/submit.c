#include "dispatcher/submit.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "dispatcher/guard.h"
#include "dispatcher/leader.h"
#include "dispatcher/mailboxes.h"
#include "dispatcher/quota.h"
#include "dispatcher/retry_check.h"
#include "dispatcher/steering.h"
#include "dispatcher/submit_hash.h"
#include "dispatcher/submit_internal.h"
#include "dispatcher/submit_note.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/store/live.h"

/* --- what the request asks for ---------------------------------------------------------------------------------- */

static int16_t priority_of(const Muster__V1__SubmitBatchRequest *in)
{
    if (in->priority)
        return (int16_t)in->priority;
    switch (in->command->kind_case) {
    case MUSTER__V1__COMMAND__KIND_LOCK:
    case MUSTER__V1__COMMAND__KIND_UNLOCK:
    case MUSTER__V1__COMMAND__KIND_WIPE:
    case MUSTER__V1__COMMAND__KIND_LOST_MODE:
        return MUSTER__V1__PRIORITY__PRIORITY_URGENT;
    default:
        return MUSTER__V1__PRIORITY__PRIORITY_NORMAL;
    }
}

static bool describe_steering(struct submit *s)
{
    struct db_accept *b = &s->job.batch;
    const Muster__V1__Steering *in = s->in->steering;
    size_t n = in ? muster__v1__steering__get_packed_size(in) : 0;
    if (!n)
        return true; /* it asks for nothing */
    uint8_t *bytes = request_alloc(&s->r, 1, n);
    if (!bytes)
        return false;
    muster__v1__steering__pack(in, bytes);
    b->steering = (struct slice){bytes, n};
    steering_read(&b->steer, in, s->in->command->kind_case, b->created_ms);
    return true;
}

static bool describe_dynamic(struct submit *s)
{
    size_t n = muster__v1__target__get_packed_size(s->in->target);
    uint8_t *bytes = request_alloc(&s->r, 1, n);
    if (!bytes)
        return false;
    muster__v1__target__pack(s->in->target, bytes);
    s->job.batch.dynamic = (struct slice){bytes, n};
    return true;
}

/* Fills the job but for the target. False without memory. */
static bool describe(struct submit *s)
{
    struct db_accept *b = &s->job.batch;
    size_t n = muster__v1__command__get_packed_size(s->in->command);
    uint8_t *command = request_alloc(&s->r, 1, n);
    if (!command)
        return false;
    muster__v1__command__pack(s->in->command, command);
    b->tenant = s->r.tenant;
    b->request_id = s->in->request_id;
    b->description = s->in->description;
    b->supersede_key = s->in->supersede_key;
    b->command = (struct slice){command, n};
    b->priority = priority_of(s->in);
    b->key = s->r.caller->key;
    b->role = (int16_t)s->r.caller->role;
    b->address = grpc_call_peer(s->r.call);
    b->note = s->note;
    submit_note(s->note, s->in);
    b->created_ms = leader_now_ms(s->r.d->leader);
    b->expires_ms = b->created_ms + BATCH_LIFE_DEFAULT_MS;
    if (s->in->expires_at && !validate_timestamp(&b->expires_ms, s->in->expires_at))
        return false;
    submit_hash(&s->r, s->in, b->request_hash);
    if (s->in->dynamic && !describe_dynamic(s))
        return false;
    if (!describe_steering(s))
        return false;
    if (s->in->retry)
        retry_read(&b->steer.retry, s->in->retry);
    return !s->r.arena.failed;
}

/* The set as the arrays acceptance takes. False without memory. */
static bool describe_target(struct submit *s)
{
    struct db_accept *b = &s->job.batch;
    size_t n = s->res.set.count;
    int32_t *blocks = request_alloc(&s->r, n, sizeof *blocks);
    int16_t *firsts = request_alloc(&s->r, n, sizeof *firsts);
    struct slice *targets = request_alloc(&s->r, n, sizeof *targets);
    if (!blocks || !firsts || !targets)
        return false;
    for (size_t i = 0; i < n; i++) {
        uint16_t first = 0;
        const struct target_block *block = &s->res.set.blocks[i];
        blocks[i] = (int32_t)block->block;
        targets[i] = b->dynamic.len ? (struct slice){block->slots.bytes, BITMAP_BYTES} /* with room for who joins */
                                    : bitmap_trim(&block->slots, &first);
        firsts[i] = (int16_t)first;
    }
    b->blocks = blocks;
    b->firsts = firsts;
    b->targets = targets;
    b->block_count = n;
    b->device_count = target_set_count(&s->res.set);
    target_set_digest(&s->res.set, s->r.tenant, s->digest);
    b->unknown_count = s->res.unknown_count;
    b->unknown_ids = s->res.unknown;
    b->unknown_kept = s->res.unknown_kept;
    return true;
}

/* --- the steps -------------------------------------------------------------------------------------------------- */

static void on_earlier(struct request *r, const struct pg_result *const *results)
{
    struct submit *s = (struct submit *)r;
    if (pg_rows(results[0]))
        submit_answer_replayed(s, results[0]);
    else
        request_fail(&s->r, &s->refusal);
}

/* Looks for the batch that the request id made before; `refusal` is the answer when there is none. */
static void find_earlier(struct submit *s)
{
    struct pg_txn *txn = request_txn(&s->r);
    db_batch_find(txn, s->r.tenant, s->in->request_id);
    request_query(&s->r, txn, on_earlier);
}

static void announce(struct submit *s)
{
    struct dispatcher *d = s->r.d;
    /* A held batch is nothing to the leader yet; one that supersedes others it reads together with what they lose. */
    if (!s->job.state && (s->job.superseded || !leader_accepted(d->leader, (uint64_t)s->job.id, &s->job.batch)))
        d->unannounced = s->job.id;
    d->figures.batches_accepted++;
    d->figures.commands_accepted += s->job.batch.device_count;
    histogram_add(&d->figures.accept, clock_mono_us() - s->began_us);
}

/* One hint for all of a commit: whoever looks finds all there is. */
void submit_committed(void *arg)
{
    struct dispatcher *d = arg;
    char text[40];
    if (!d->unannounced)
        return;
    snprintf(text, sizeof text, "accepted %" PRId64, d->unannounced);
    live_publish(d->live, text);
    leader_hint(d->leader, LEADER_HINT_ACCEPTED, (uint64_t)d->unannounced);
    d->unannounced = 0;
}

/* What is wrong with the devices found. */
static void check_target(struct submit *s, struct status *st)
{
    if (st->code != STATUS_OK)
        return;
    if (s->in->require_all_known && resolution_refuse_unknown(&s->res, st))
        return;
    if (*s->in->target_digest && strcmp(s->in->target_digest, s->digest) != 0) {
        status_set(st, STATUS_FAILED_PRECONDITION, "TARGET_CHANGED",
                   "the target now addresses other devices than those of the digest: %u of them",
                   s->job.batch.device_count);
        status_metadata(st, "device_count", "%u", s->job.batch.device_count);
        status_metadata(st, "target_digest", "%s", s->digest);
    } else if (!s->job.batch.device_count && !s->in->dynamic) {
        status_set(st, STATUS_FAILED_PRECONDITION, "EMPTY_TARGET", "the target addresses no device");
    }
}

/* The target of a batch to one device, once its seq is known: what accept_devices has written. */
static void place_device(struct submit *s)
{
    struct db_accept *b = &s->job.batch;
    unsigned slot = slot_of((uint32_t)s->job.seq);
    s->place.block = (int32_t)block_of((uint32_t)s->job.seq);
    s->place.first = (int16_t)(slot / 8 * 8);
    s->place.bit = (uint8_t)(1u << slot % 8);
    s->place.target = (struct slice){&s->place.bit, 1};
    b->blocks = &s->place.block;
    b->firsts = &s->place.first;
    b->targets = &s->place.target;
    b->block_count = b->device_count = 1;
    struct target_set set = {0};
    struct bitmap slots = {{0}};
    bitmap_set(&slots, slot);
    target_set_add(&set, block_of((uint32_t)s->job.seq), &slots);
    if (!set.failed)
        target_set_digest(&set, s->r.tenant, s->digest);
    target_set_free(&set);
}

static void on_unknown_device(struct submit *s)
{
    s->res.unknown[0] = s->job.device;
    s->res.unknown_count = 1;
    s->res.unknown_kept = 1;
    check_target(s, &s->refusal);
    find_earlier(s);
}

/* Of a device addressed by its id, which was not looked for, there is no count yet. */
static uint32_t refused_devices(const struct submit *s)
{
    return s->job.device ? 1 : s->job.batch.device_count;
}

static void on_limits(struct request *r, const struct pg_result *const *results)
{
    struct submit *s = (struct submit *)r;
    struct status st = {0};
    quota_batch_status(&st, &s->beyond, refused_devices(s), results[0]);
    request_fail(&s->r, &st);
}

static void answer_beyond_quota(struct submit *s)
{
    struct pg_txn *txn = request_txn(&s->r);
    quota_note_refused(&s->r, quota_batch_reason(&s->beyond), refused_devices(s));
    db_quota_limits(txn, s->r.tenant);
    request_query(&s->r, txn, on_limits);
}

static void on_accepted(struct accept_job *job, enum err err, const struct pg_error *error)
{
    struct submit *s = container_of(job, struct submit, job);
    if (err != ERR_OK) {
        struct status st = {0};
        if (!guard_refused(&st, err, error))
            request_store_status(&st, err, error);
        request_fail(&s->r, &st);
    } else if (job->created) {
        if (job->device)
            place_device(s);
        announce(s);
        if (s->job.state)
            submit_answer_held(s);
        else
            submit_answer_accepted(s);
    } else if (db_quota_refused(&s->beyond, job->id)) {
        answer_beyond_quota(s);
    } else if (job->device && job->seq < 0) {
        on_unknown_device(s);
    } else {
        status_set(&s->refusal, STATUS_ABORTED, "REQUEST_ID_REUSED", "the batch with this request id has gone");
        find_earlier(s);
    }
}

/* --- guarded commands: see guard.h --- */

static bool is_guarded(const struct submit *s)
{
    return s->r.caller->guarded >> (unsigned)s->in->command->kind_case & 1;
}

static void describe_guard(struct submit *s)
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    struct slice command = s->job.batch.command;
    s->guard.kind = (int)s->in->command->kind_case;
    s->guard.key = s->r.caller->key;
    memcpy(s->guard.digest, s->digest, sizeof s->guard.digest);
    if (s->in->values) {
        if (is_guarded(s)) /* else nobody asks */
            batch_values_hash(&s->values, command, s->guard.command_hash);
        return;
    }
    crypto_hash_sha256(hash, command.data, command.len);
    sodium_bin2hex(s->guard.command_hash, sizeof s->guard.command_hash, hash, sizeof hash);
}

static void on_guard(struct request *r, const struct pg_result *const *results)
{
    struct submit *s = (struct submit *)r;
    struct status st = {0};
    if (pg_int(results[0], 0, 1)) {
        guard_too_long(&st, pg_int(results[0], 0, 1));
        request_fail(r, &st);
    } else {
        submit_answer_validated(s, pg_bool(results[0], 0, 0));
    }
}

static void ask_guard(struct submit *s)
{
    if (!is_guarded(s)) {
        submit_answer_validated(s, false);
        return;
    }
    struct pg_txn *txn = request_txn(&s->r);
    const struct db_accept *b = &s->job.batch;
    db_guard_foresee(txn, s->r.tenant, (int)s->in->command->kind_case, b->device_count, steer_ends_ms(b));
    request_query(&s->r, txn, on_guard);
}

static void accept_it(struct submit *s)
{
    struct status st = {0};
    s->job.done = on_accepted;
    if (is_guarded(s)) {
        s->job.guard = &s->guard;
        s->job.alone = true;
    }
    if (s->in->values) {
        s->job.batch.values = &s->values.values;
        s->job.alone = true;
    }
    if (acceptor_submit(s->r.d->acceptor, &s->job))
        return;
    request_overload_status(&st);
    request_fail(&s->r, &st);
}

/* All is well. */
static void go_on(struct submit *s)
{
    if (s->in->validate_only) {
        ask_guard(s);
    } else {
        describe_guard(s);
        accept_it(s);
    }
}

static void on_steered(struct steer_check *c)
{
    struct submit *s = container_of(c, struct submit, steer);
    s->refusal = c->st;
    s->r.d->figures.store_errors += c->failed;
    if (c->st.code == STATUS_OK)
        go_on(s);
    else if (c->failed || s->in->validate_only)
        request_fail(&s->r, &s->refusal);
    else
        find_earlier(s);
}

static void check_steering(struct submit *s)
{
    s->steer =
        (struct steer_check){.pg = s->r.d->pg,
                             .arena = &s->r.arena,
                             .in = s->job.batch.steering.len ? s->in->steering : NULL,
                             .batch = &s->job.batch,
                             .whom = &s->res.set,
                             .guarded = is_guarded(s) || s->in->command->kind_case == MUSTER__V1__COMMAND__KIND_WIPE,
                             .done = on_steered};
    steer_check_run(&s->steer);
}

static void on_values(void *arg)
{
    struct submit *s = arg;
    s->refusal = s->values.st;
    if (s->values.store_failed || (s->refusal.code != STATUS_OK && s->in->validate_only)) {
        s->r.d->figures.store_errors += s->values.store_failed;
        request_fail(&s->r, &s->refusal);
    } else if (s->refusal.code != STATUS_OK) {
        find_earlier(s);
    } else {
        check_steering(s);
    }
}

static void match_values(struct submit *s)
{
    s->values.pg = s->r.d->pg;
    s->values.tenant = s->r.tenant;
    s->values.set = &s->res.set;
    s->values.skipped = &s->full.full;
    s->values.listed = s->in->target ? NULL : &s->res;
    s->values.done = on_values;
    s->values.arg = s;
    batch_values_run(&s->values);
}

/* What is wrong so far is told; else it goes on. */
static void check_rest(struct submit *s)
{
    if (s->refusal.code == STATUS_OK && s->in->values)
        match_values(s);
    else if (s->refusal.code == STATUS_OK)
        check_steering(s);
    else if (s->in->validate_only)
        request_fail(&s->r, &s->refusal);
    else
        find_earlier(s); /* the fleet may have changed since the request was accepted: then the first answer stands */
}

/* --- devices with too many open commands: see mailboxes.h --- */

static void on_full_named(struct mailbox_check *c)
{
    struct submit *s = container_of(c, struct submit, full);
    if (c->st.code != STATUS_OK) {
        s->r.d->figures.store_errors++;
        request_fail(&s->r, &c->st);
        return;
    }
    if (!s->in->skip_full || (!s->res.set.count && !s->in->dynamic)) {
        s->r.d->figures.mailbox_refused += !s->in->validate_only;
        mailbox_check_refuse(c, &s->refusal);
    } else {
        s->job.batch.skipped_count = c->count;
        s->job.batch.skipped_ids = c->ids;
        s->job.batch.skipped_kept = c->kept;
        check_target(s, &s->refusal);
    }
    check_rest(s);
}

/* With skip_full. */
static void leave_full(struct resolution *res)
{
    struct submit *s = res->arg;
    mailbox_check_find(&s->full, &res->set);
    target_set_subtract(&res->set, &s->full.full);
}

static void on_resolved(struct resolution *res)
{
    struct submit *s = res->arg;
    if (res->store_failed) {
        s->r.d->figures.store_errors++;
        request_fail(&s->r, &res->st);
        return;
    }
    s->refusal = res->st;
    if (!describe_target(s)) {
        submit_no_memory(s);
        return;
    }
    if (!s->full.count)
        check_target(s, &s->refusal);
    if (!s->in->skip_full && s->refusal.code == STATUS_OK)
        mailbox_check_find(&s->full, &res->set);
    if (s->full.full.failed)
        submit_no_memory(s);
    else if (s->refusal.code == STATUS_OK && s->full.count)
        mailbox_check_name(&s->full);
    else
        check_rest(s);
}

static void resolve(struct submit *s)
{
    struct dispatcher *d = s->r.d;
    s->full = (struct mailbox_check){.mailboxes = d->mailboxes,
                                     .pg = d->pg,
                                     .arena = &s->r.arena,
                                     .tenant = s->r.tenant,
                                     .limit = d->mailbox_max,
                                     .done = on_full_named};
    s->values.in = s->in->values;
    s->target = s->in->target;
    if (!s->target) {
        batch_values_target(&s->values);
        s->target = &s->values.target;
        s->res.ids_field = "values.device_ids";
    }
    s->res.pg = d->pg;
    s->res.tenant = s->r.tenant;
    s->res.target = s->target;
    s->res.per_platform = s->in->validate_only;
    s->res.leave_out = s->in->skip_full ? leave_full : NULL;
    s->res.done = on_resolved;
    s->res.arg = s;
    resolution_run(&s->res);
}

/* The id, when the request addresses one device by it: found and accepted in one step. */
static const char *only_device(const struct submit *s)
{
    const Muster__V1__SubmitBatchRequest *in = s->in;
    const Muster__V1__Target *target = in->target;
    if (mailboxes_any(s->r.d->mailboxes, (uint32_t)s->r.tenant, clock_mono_us()))
        return NULL; /* whether it is one of these must be known before */
    bool one = !in->validate_only && !in->values && !is_guarded(s) &&
               target->kind_case == MUSTER__V1__TARGET__KIND_DEVICES && target->devices->n_ids == 1 &&
               !target->exclude && !*in->target_digest;
    return one ? target->devices->ids[0] : NULL;
}

static void release(struct request *r)
{
    struct submit *s = (struct submit *)r;
    resolution_free(&s->res);
    batch_values_free(&s->values);
    mailbox_check_free(&s->full);
}

/* Nothing is wrong with the request but the time that it is: it may have come before, when that was not wrong. Then it
 * gets its first answer, like one whose devices have gone since. */
static bool may_have_come(const Muster__V1__SubmitBatchRequest *in, int64_t now_ms)
{
    struct status st = {0};
    int64_t expires_ms;
    if (in->validate_only || !in->expires_at || !validate_timestamp(&expires_ms, in->expires_at) ||
        expires_ms - BATCH_LIFE_MAX_MS > now_ms)
        return false;
    validate_submit(&st, in, expires_ms - BATCH_LIFE_MAX_MS); /* the earliest it was allowed */
    return st.code == STATUS_OK;
}

void submit_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct submit *s = request_begin(call, service, sizeof *s);
    if (!s)
        return;
    s->r.release = release;
    s->in = (const Muster__V1__SubmitBatchRequest *)request;
    s->began_us = clock_mono_us();
    int64_t now_ms = leader_now_ms(s->r.d->leader);
    validate_submit(&s->refusal, s->in, now_ms);
    bool valid = s->refusal.code == STATUS_OK;
    if (!valid && !may_have_come(s->in, now_ms)) {
        request_fail(&s->r, &s->refusal);
        return;
    }
    grpc_call_take_request(call);
    if (!describe(s)) {
        submit_no_memory(s);
        return;
    }
    if (!valid) {
        find_earlier(s);
        return;
    }
    s->job.device = s->job.batch.steering.len || s->in->retry || *s->in->supersede_key ? NULL : only_device(s);
    if (s->job.device) {
        accept_it(s);
        return;
    }
    resolve(s);
}
