#include "tests/sim/caller.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/accept.h"
#include "dispatcher/gate_keeper.h"
#include "dispatcher/leader.h"
#include "dispatcher/revoke.h"
#include "lib/store/block.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_control.h"
#include "lib/store/db_device.h"
#include "lib/store/db_dynamic.h"
#include "lib/store/db_gate.h"
#include "lib/store/live.h"
#include "lib/store/value_block.h"
#include "muster/v1/command_service.pb-c.h"
#include "muster/v1/steering.pb-c.h"
#include "proto/fill.h"
#include "tests/sim/caller_parts.h"
#include "tests/sim/device.h"
#include "tests/sim/oracle.h"
#include "tests/sim/pg_model.h"
#include "tests/sim/process.h"

#define REPEAT_MIN_US (20 * MS)
#define REPEAT_MAX_US (1 * S)
#define CALLER_MEANT  1 /* the platform of devices that dynamic batches mean: the others' is not known */

/* A job in a dispatcher's hands; outlives the wish's patience. */
struct ask {
    struct accept_job job;
    struct wish *wish;
    struct process *process;
    struct ask *next;
    int32_t blocks[BLOCKS_MAX];
    int16_t firsts[BLOCKS_MAX];
    struct slice targets[BLOCKS_MAX];
    struct bitmap bitmaps[BLOCKS_MAX];
    struct db_values values;
    struct slice vals[BLOCKS_MAX], canary_slots[BLOCKS_MAX];
    struct bitmap canaries[BLOCKS_MAX];
    int32_t canary_blocks[BLOCKS_MAX];
    struct buf packed, described;
    bool answered;
};

struct caller {
    struct world *world;
    struct wish *wishes;
    int count, room;
    struct ask *asks; /* in acceptors */
};

static void ask(void *arg);

static void again(struct wish *x)
{
    struct world *w = x->caller->world;
    x->asked = false;
    event_plan(w, &x->event, w->now_us + between(w, REPEAT_MIN_US, REPEAT_MAX_US), NULL, ask, x);
}

static struct wish *wish_new(struct caller *c, enum wish_kind kind, int64_t at_us)
{
    if (c->count == c->room)
        abort(); /* room is for all */
    struct wish *x = &c->wishes[c->count++];
    x->caller = c;
    x->kind = kind;
    event_plan(c->world, &x->event, at_us, NULL, ask, x);
    return x;
}

/* --- submitting -------------------------------------------------------------------------------------------------- */

/* A wish about the same batch, or tenant. */
static struct wish *follow(const struct wish *x, enum wish_kind kind, int64_t after_us)
{
    if (!after_us)
        return NULL;
    struct wish *next = wish_new(x->caller, kind, x->caller->world->now_us + after_us);
    next->batch = x->batch;
    next->tenant = x->tenant;
    return next;
}

static void accepted(struct wish *x, int64_t id)
{
    struct world *w = x->caller->world;
    if (x->done)
        return;
    x->done = true;
    x->batch = id;
    trace(w, "batch %" PRId64 " is accepted (%s)", id, x->request);
    oracle_accepted(w, (uint64_t)id);
    (void)follow(x, WISH_CANCEL, x->cancel_after_us);
    (void)follow(x, WISH_WAVE, x->wave_after_us);
    (void)follow(x, WISH_RESUME, x->resume_after_us);
    (void)follow(x, WISH_SEAL, x->seal_after_us);
    struct wish *pause = follow(x, WISH_PAUSE, x->pause_after_us);
    if (pause)
        pause->undo_after_us = x->undo_after_us;
    struct wish *some = x->dynamic ? NULL : follow(x, WISH_SOME, x->some_after_us);
    for (int i = 0; some && i < BLOCKS_MAX; i++)
        for (unsigned slot = bitmap_next(&x->targets[i], 0); slot < BLOCK_SLOTS;
             slot = bitmap_next(&x->targets[i], slot + 1))
            if (chance(w, 400))
                bitmap_set(&some->targets[i], slot);
}

static int64_t find_request(const struct world *w, const struct wish *x)
{
    for (size_t i = 0; i < w->pg->batches.count; i++)
        if (strcmp(w->pg->batches.v[i]->request_id, x->request) == 0)
            return w->pg->batches.v[i]->id;
    return 0;
}

static void ask_free(struct ask *a)
{
    struct ask **at = &a->wish->caller->asks;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    buf_free(&a->packed);
    buf_free(&a->described);
    free(a);
}

/* As batch_values.c: the values of all devices addressed, block by block. */
static void put_values(struct ask *a, const struct wish *x)
{
    Muster__V1__BatchValues told = MUSTER__V1__BATCH_VALUES__INIT;
    char *names[] = {"p"};
    size_t ends[BLOCKS_MAX];
    struct db_accept *b = &a->job.batch;
    for (size_t i = 0; i < b->block_count; i++) {
        const struct bitmap *slots = &a->bitmaps[b->blocks[i]];
        value_block_begin(&a->packed, 1, slots);
        for (unsigned slot = bitmap_next(slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(slots, slot + 1)) {
            char text[CALLER_VALUE_MAX];
            struct slice value = {(const uint8_t *)text,
                                  caller_value(text, x->tenant, block_seq((uint32_t)b->blocks[i], slot), x->request)};
            fill_pack(&a->packed, &value, 1);
        }
        ends[i] = buf_len(&a->packed);
    }
    for (size_t i = 0; i < b->block_count; i++)
        a->vals[i] = (struct slice){buf_head(&a->packed) + (i ? ends[i - 1] : 0), ends[i] - (i ? ends[i - 1] : 0)};
    told.names = names;
    told.n_names = 1;
    buf_commit(&a->described, muster__v1__batch_values__pack(&told, buf_reserve(&a->described, 64)));
    a->values =
        (struct db_values){.described = buf_slice(&a->described), .blocks = a->vals, .bytes = buf_len(&a->packed)};
    a->job.batch.values = &a->values;
    a->job.alone = true;
}

/* As submit.c: those of the tenant who are meant now, and by what. */
static void put_dynamic(struct ask *a, const struct wish *x)
{
    const struct world *w = x->caller->world;
    Muster__V1__Target target = MUSTER__V1__TARGET__INIT;
    target.kind_case = MUSTER__V1__TARGET__KIND_PLATFORM;
    target.platform = CALLER_MEANT;
    memset(a->bitmaps, 0, sizeof a->bitmaps);
    for (int i = 0; i < w->device_count; i++) {
        const struct device *d = &w->devices[i];
        if (d->tenant == x->tenant && d->meant_us && !d->deleted)
            bitmap_set(&a->bitmaps[block_of(d->seq)], slot_of(d->seq));
    }
    buf_commit(&a->described, muster__v1__target__pack(&target, buf_reserve(&a->described, 64)));
    a->job.batch.dynamic = buf_slice(&a->described);
}

/* As steer_check.c: who of those addressed is in the group. */
static void put_canaries(struct ask *a)
{
    struct db_accept *b = &a->job.batch;
    for (int i = 0; i < BLOCKS_MAX; i++) {
        struct bitmap *map = &a->canaries[b->canary_count];
        for (unsigned slot = bitmap_next(&a->bitmaps[i], 0); slot < BLOCK_SLOTS;
             slot = bitmap_next(&a->bitmaps[i], slot + 1))
            if (caller_is_canary(block_seq((uint32_t)i, slot)))
                bitmap_set(map, slot);
        if (!bitmap_count(map))
            continue;
        a->canary_blocks[b->canary_count] = i;
        a->canary_slots[b->canary_count++] = (struct slice){map->bytes, BITMAP_BYTES};
    }
    b->canary_blocks = a->canary_blocks;
    b->canary_slots = a->canary_slots;
}

size_t caller_value(char out[CALLER_VALUE_MAX], uint32_t tenant, uint32_t seq, const char *request)
{
    return (size_t)snprintf(out, CALLER_VALUE_MAX, "%u-%u-%s", tenant, seq, request);
}

/* As submit.c: the leader of this process takes it, or all are told with the commit. */
static void job_done(struct accept_job *job, enum err err, const struct pg_error *error)
{
    struct ask *a = container_of(job, struct ask, job);
    struct wish *x = a->wish;
    struct world *w = x->caller->world;
    (void)error;
    if (!err && job->created && !a->process->dying) {
        if (a->job.device) { /* found by the transaction */
            uint32_t seq = (uint32_t)job->seq;
            struct bitmap one = {{0}};
            bitmap_set(&one, slot_of(seq));
            a->bitmaps[0] = one;
            a->blocks[0] = (int32_t)block_of(seq);
            uint16_t first;
            a->targets[0] = bitmap_trim(&a->bitmaps[0], &first);
            a->firsts[0] = (int16_t)first;
            job->batch.block_count = 1;
        }
        if (job->superseded || !leader_accepted(process_leader(a->process), (uint64_t)job->id, &job->batch))
            process_unannounced(a->process, job->id);
    }
    if (a->process->dying)
        err = ERR_CLOSED;
    int64_t id = err ? 0 : job->created ? job->id : find_request(w, x);
    ask_free(a);
    if (id)
        accepted(x, id);
    else if (err && !x->done)
        again(x);
    else
        x->done = true; /* no such device any more */
}

static void submit(struct wish *x, struct process *p)
{
    static const uint8_t command[] = {0x0a, 0x00}; /* muster.v1.Command: an empty lock */
    static const uint8_t template[] = {0x0a, 7, 0x1a, 5, '{', '{', 'p', '}', '}'}; /* its passcode is the value */
    struct ask *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    a->wish = x;
    a->process = p;
    a->next = x->caller->asks;
    x->caller->asks = a;
    if (!x->created_ms)
        x->created_ms = leader_now_ms(process_leader(p));
    struct db_accept *b = &a->job.batch;
    *b = (struct db_accept){.tenant = (int32_t)x->tenant,
                            .request_id = x->request,
                            .description = "",
                            .supersede_key = x->key,
                            .command = {command, sizeof command},
                            .priority = x->priority,
                            .created_ms = x->created_ms,
                            .expires_ms = x->created_ms + x->expires_after_ms,
                            .blocks = a->blocks,
                            .firsts = a->firsts,
                            .targets = a->targets};
    if (x->steering_len) {
        b->steering = (struct slice){x->steering, x->steering_len};
        b->steer = x->steer;
        b->steer.not_before_ms += x->steer.not_before_ms ? x->created_ms : 0;
        b->steer.deliver_by_ms += x->steer.deliver_by_ms ? x->created_ms : 0;
    }
    b->steer.retry = x->steer.retry;
    memcpy(a->bitmaps, x->targets, sizeof a->bitmaps);
    if (x->dynamic)
        put_dynamic(a, x);
    if (x->canary)
        put_canaries(a);
    for (int i = 0; i < BLOCKS_MAX && !x->single; i++) {
        uint16_t first;
        struct slice bytes = bitmap_trim(&a->bitmaps[i], &first);
        if (!bytes.len)
            continue;
        if (x->dynamic) { /* with room for who joins */
            bytes = (struct slice){a->bitmaps[i].bytes, BITMAP_BYTES};
            first = 0;
        }
        b->device_count += bitmap_count(&a->bitmaps[i]);
        a->blocks[b->block_count] = i;
        a->firsts[b->block_count] = (int16_t)first;
        a->targets[b->block_count++] = bytes;
    }
    if (x->single) {
        a->job.device = x->device_id;
        b->device_count = 1;
    }
    if (x->valued && !x->single) {
        b->command = (struct slice){template, sizeof template};
        put_values(a, x);
    }
    a->job.done = job_done;
    if (acceptor_submit(process_acceptor(p), &a->job))
        return;
    ask_free(a); /* turned away */
    again(x);
}

/* --- steering, holding ------------------------------------------------------------------------------------------- */

/* Answers to what was asked; a dispatcher that has died meanwhile gives none. */
static bool answered(struct wish *x, enum err err)
{
    if (err || x->process->dying || x->life != x->process->lives) {
        again(x);
        return false;
    }
    x->done = true;
    return true;
}

/* Dispatchers are told what has been asked for of a batch, the leader beside it at once. */
static void tell(const struct wish *x, const char *what)
{
    char text[40];
    snprintf(text, sizeof text, "%s %" PRId64, what, x->batch);
    live_publish(process_live(x->process), text);
    leader_hint(process_leader(x->process), LEADER_HINT_CANCEL, (uint64_t)x->batch);
}

static void steered(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct wish *x = arg;
    (void)error, (void)count;
    if (!answered(x, err))
        return;
    (void)follow(x, WISH_RESUME, x->undo_after_us);
    if (pg_rows(results[0]) && pg_bool(results[0], 0, 0)) /* else too late, or nothing new */
        tell(x, "steer");
}

static void held(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                 size_t count)
{
    struct wish *x = arg;
    struct db_gate gate;
    (void)error, (void)count;
    if (!answered(x, err))
        return;
    (void)follow(x, WISH_OPEN, x->undo_after_us);
    if (!pg_rows(results[0]))
        return; /* it was open */
    db_gate_read(results[0], 0, &gate);
    gate_keeper_changed(process_gates(x->process), (uint64_t)gate.number, NULL);
    live_publish(process_live(x->process), "gates 0");
}

static void put_some(const struct wish *x, struct pg_txn *txn, int64_t now_ms)
{
    int32_t blocks[BLOCKS_MAX];
    struct slice slots[BLOCKS_MAX];
    size_t n = 0;
    for (int i = 0; i < BLOCKS_MAX; i++) {
        if (!bitmap_count(&x->targets[i]))
            continue;
        blocks[n] = i;
        slots[n++] = (struct slice){x->targets[i].bytes, sizeof x->targets[i].bytes};
    }
    db_control_cancel_some(txn, (int32_t)x->tenant, x->batch, blocks, slots, n, now_ms, 1);
}

static void ask_steering(struct wish *x, struct pg_txn *txn, int64_t now_ms)
{
    static const char *const words[] = {[WISH_PAUSE] = "pause",
                                        [WISH_RESUME] = "resume",
                                        [WISH_SOME] = "cancel for some",
                                        [WISH_WAVE] = "next wave",
                                        [WISH_SEAL] = "seal"};
    trace(x->caller->world, "%s of %" PRId64 " is asked for", words[x->kind], x->batch);
    if (x->kind == WISH_SOME)
        put_some(x, txn, now_ms);
    else if (x->kind == WISH_SEAL)
        db_dynamic_seal(txn, (int32_t)x->tenant, x->batch, now_ms, 1);
    else if (x->kind == WISH_WAVE)
        db_control_release_wave(txn, (int32_t)x->tenant, x->batch, 0, now_ms, 1);
    else
        db_control_pause(txn, (int32_t)x->tenant, x->batch, x->kind == WISH_PAUSE, "", now_ms, 1);
    pg_txn_submit(txn, steered, x);
}

/* --- cancelling, deleting ---------------------------------------------------------------------------------------- */

static void canceled(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct wish *x = arg;
    (void)error, (void)count;
    if (answered(x, err) && pg_rows(results[0]))
        tell(x, "cancel");
}

static void deleted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct wish *x = arg;
    struct process *p = x->process;
    (void)error, (void)count;
    if (!answered(x, err))
        return;
    x->device->deleted = true;
    trace(x->caller->world, "device %s is deleted", x->device->id);
    if (!pg_rows(results[0]))
        return;
    struct dispatcher d = {.live = process_live(p)};
    struct revoke_entry entry = {x->device->seq, DB_REVOKED_FOR_GOOD_MS};
    revoke_tell_workers(&d, (int32_t)x->device->tenant, &entry, 1);
    live_publish(d.live, "deleted 0");
    leader_hint(process_leader(p), LEADER_HINT_DELETED, 0);
}

/* By dynamic batches, from now on. */
static void mean(struct device *d)
{
    struct world *w = d->world;
    d->meant_us = w->now_us;
    pg_model_device(w->pg, (int32_t)d->tenant, (int32_t)d->seq)->platform = CALLER_MEANT;
}

/* It is told of by a hint, which may be lost. */
static void join(struct wish *x)
{
    struct device *d = x->device;
    char text[40];
    mean(d);
    trace(x->caller->world, "device %s is meant by dynamic batches", d->id);
    snprintf(text, sizeof text, "devices %u", d->tenant);
    live_publish(process_live(x->process), text);
    leader_devices(process_leader(x->process), d->tenant);
    x->done = true;
}

static void ask_one(void *arg)
{
    struct wish *x = arg;
    struct process *p = x->process;
    struct world *w = x->caller->world;
    if (x->kind == WISH_BATCH) {
        submit(x, p);
        return;
    }
    if (x->kind == WISH_JOIN) {
        join(x);
        return;
    }
    struct pg_txn *txn = pg_txn_new(process_pg(p), PG_ANY_LANE);
    if (x->kind == WISH_CANCEL) {
        trace(w, "cancel of %" PRId64 " is asked for", x->batch);
        db_batch_cancel(txn, (int32_t)x->tenant, x->batch, world_wall_ms(w), 1);
        pg_txn_submit(txn, canceled, x);
    } else if (x->kind == WISH_HOLD || x->kind == WISH_OPEN) {
        trace(w, "%s of tenant %u is asked for", x->kind == WISH_HOLD ? "hold" : "release", x->tenant);
        db_gate_set(txn, (int32_t)x->tenant, NULL, x->kind == WISH_HOLD, "", world_wall_ms(w), 1);
        pg_txn_submit(txn, held, x);
    } else if (x->kind != WISH_DELETE) {
        ask_steering(x, txn, world_wall_ms(w));
    } else {
        x->device->deleted = true; /* perhaps */
        db_device_delete(txn, (int32_t)x->device->tenant, x->device->id, world_wall_ms(w), 1);
        pg_txn_submit(txn, deleted, x);
    }
}

/* Any dispatcher that runs. */
static void ask(void *arg)
{
    struct wish *x = arg;
    struct world *w = x->caller->world;
    struct process *p = &w->dispatchers[below(w, (unsigned)w->dispatcher_count)];
    if (!p->running || p->stopped) {
        again(x);
        return;
    }
    x->process = p;
    x->life = p->lives;
    x->asked = true;
    w->current = p;
    ask_one(x);
    w->current = NULL;
}

/* --- life
 * ------------------------------------------------------------------------------------------------------------------------
 */

static struct caller *caller_new(struct world *w, int room)
{
    struct caller *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    w->caller = c;
    c->world = w;
    c->room = room;
    c->wishes = calloc((size_t)c->room, sizeof *c->wishes);
    if (!c->wishes)
        abort();
    return c;
}

void caller_init_alike(struct world *w, int batches, int64_t until_us)
{
    struct caller *c = caller_new(w, batches);
    for (int i = 0; i < batches; i++) {
        struct wish *x = wish_new(c, WISH_BATCH, between(w, w->now_us, until_us));
        snprintf(x->request, sizeof x->request, "request-%d", i);
        x->priority = 2;
        x->expires_after_ms = 60000;
        x->tenant = w->devices[0].tenant;
        for (int k = 0; k < w->device_count; k++)
            if (w->devices[k].tenant == x->tenant)
                bitmap_set(&x->targets[block_of(w->devices[k].seq)], slot_of(w->devices[k].seq));
    }
}

/* Some are meant from the beginning, some later. */
static void join_later(struct caller *c, int64_t until_us)
{
    struct world *w = c->world;
    for (int i = 0; i < w->device_count; i++) {
        struct device *d = &w->devices[i];
        if (chance(w, 400)) {
            mean(d);
        } else if (chance(w, 800)) {
            wish_new(c, WISH_JOIN, between(w, w->now_us, until_us + 20 * S))->device = d;
        }
    }
}

void caller_init(struct world *w, int batches, int64_t until_us)
{
    struct caller *c = caller_new(w, batches * 8 + w->device_count + 16);
    bool steered = chance(w, 500);
    for (int i = 0; i < batches; i++) {
        struct wish *x = wish_new(c, WISH_BATCH, between(w, w->now_us, until_us));
        snprintf(x->request, sizeof x->request, "request-%d", i);
        x->valued = i % 4 == 3;
        caller_choose(w, x, steered);
    }
    for (int i = 0; i < 2; i++)
        if (steered && chance(w, 150)) {
            struct wish *x = wish_new(c, WISH_HOLD, between(w, w->now_us, until_us));
            x->tenant = below(w, DEVICE_TENANTS + 1); /* 0: all */
            x->undo_after_us = chance(w, 900) ? between(w, 1 * MS, 10 * S) : 0;
        }
    for (int i = 0; i < 2; i++)
        if (chance(w, 150)) {
            struct wish *x = wish_new(c, WISH_DELETE, between(w, w->now_us, until_us));
            x->device = &w->devices[below(w, (unsigned)w->device_count)];
        }
    if (w->wants == WANTS_DYNAMIC)
        join_later(c, until_us);
}

void caller_lost(struct world *w, const struct process *dispatcher)
{
    struct caller *c = w->caller;
    /* What still waited in the acceptor went with the process. */
    for (struct ask *a = c->asks, *next; a; a = next) {
        struct wish *x = a->wish;
        next = a->next;
        if (a->process != dispatcher)
            continue;
        ask_free(a);
        if (!x->done)
            again(x);
    }
}

bool caller_done(const struct world *w)
{
    for (int i = 0; i < w->caller->count; i++)
        if (!w->caller->wishes[i].done)
            return false;
    return true;
}

void caller_free(struct world *w)
{
    struct caller *c = w->caller;
    if (!c)
        return;
    while (c->asks)
        ask_free(c->asks);
    for (int i = 0; i < c->count; i++)
        event_cancel(w, &c->wishes[i].event);
    free(c->wishes);
    free(c);
    w->caller = NULL;
}
