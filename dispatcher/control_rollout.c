#include "dispatcher/control_rollout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/leader_fold.h"
#include "dispatcher/rollout.h"
#include "dispatcher/target_set.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_control.h"
#include "lib/store/db_device.h"

struct control_rollout {
    struct reign *reign;
    struct open_batch *batch;
    struct rollout plan;
    uint32_t wave, by_hand, stopped, freed, canceled, acted;
    int64_t wave_ms, look_ms, read_ms;
    int32_t wanted, request; /* the one to be read, and that is; -1: none yet */
    bool more, less, news;   /* since it was released; news: something was read */
    unsigned under_way;      /* questions and writes */
    bool reading, writing;
    bool over;        /* freed; something is still under way */
    uint32_t devices; /* of the batch */
    uint32_t *before; /* of each of its blocks: devices in the blocks before */
    struct target_set platforms[ROLLOUT_PLATFORMS];
};

static void read_state(struct control_rollout *o);

struct control_rollout *control_rollout_new(struct reign *r, struct open_batch *batch)
{
    struct control_rollout *o = calloc(1, sizeof *o);
    if (!o || !(o->before = calloc(batch->block_count + 1u, sizeof *o->before)))
        abort();
    o->reign = r;
    o->batch = batch;
    o->request = -1;
    for (uint32_t i = 0; i < batch->block_count; i++) {
        const struct open_block *b = &batch->blocks[i];
        o->before[i] = o->devices;
        for (unsigned k = 0; k < b->span / 8u; k++)
            o->devices += (uint32_t)__builtin_popcount(b->targets[k]);
    }
    read_state(o);
    return o;
}

static void destroy(struct control_rollout *o)
{
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++)
        target_set_free(&o->platforms[p]);
    free(o->before);
    free(o);
}

void control_rollout_free(struct control_rollout **rollout)
{
    struct control_rollout *o = *rollout;
    *rollout = NULL;
    if (o && o->under_way)
        o->over = true;
    else if (o)
        destroy(o);
}

/* Every callback begins with it: false when nobody waits any more. */
static bool back(struct control_rollout *o)
{
    struct reign *r = o->reign;
    o->under_way--;
    bool lives = reign_back(r) && !o->over;
    if (!lives && !o->under_way)
        destroy(o);
    return lives;
}

static void submit(struct control_rollout *o, struct pg_txn *txn, pg_done_fn *done)
{
    o->under_way++;
    reign_hold(o->reign);
    pg_txn_submit(txn, done, o);
}

bool control_rollout_known(const struct control_rollout *o, int32_t request)
{
    return o->request >= request;
}

bool control_rollout_less(const struct control_rollout *o)
{
    return o->less;
}

bool control_rollout_more(const struct control_rollout *o)
{
    return o->more;
}

void control_rollout_released(struct control_rollout *o)
{
    o->more = o->less = false;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void take_platforms(struct control_rollout *o, const struct pg_result *rows)
{
    struct db_device_block b;
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++)
        target_set_free(&o->platforms[p]);
    for (int i = 0; i < pg_rows(rows); i++)
        if (db_device_block_read(rows, i, &b) && b.platform >= 0 && b.platform < ROLLOUT_PLATFORMS)
            target_set_add(&o->platforms[b.platform], b.block, &b.slots);
}

static void got_state(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct control_rollout *o = arg;
    struct db_rollout row;
    (void)error, (void)count;
    if (!back(o))
        return;
    o->reading = false;
    if (err || !pg_rows(results[0]))
        return; /* asked again with the next tick */
    db_control_rollout_read(results[0], 0, &row);
    Muster__V1__Steering *in = muster__v1__steering__unpack(NULL, row.steering.len, row.steering.data);
    if (in)
        rollout_read(&o->plan, in, o->devices);
    else
        log_error("steering_unreadable", "batch=%" PRIu64, o->batch->id);
    int64_t begin_ms = in && in->not_before ? in->not_before->seconds * 1000 : 0;
    if (begin_ms < o->batch->created_ms)
        begin_ms = o->batch->created_ms;
    muster__v1__steering__free_unpacked(in, NULL);
    take_platforms(o, results[1]);
    bool first = o->request < 0;
    o->more = o->more || (!first && (o->stopped & ~row.stopped));
    o->less = o->less || (!first && (row.stopped & ~o->stopped));
    o->wave = row.wave > o->wave ? row.wave : o->wave;
    o->wave_ms = row.wave_ms ? row.wave_ms : begin_ms;
    o->by_hand = row.by_hand;
    o->stopped = row.stopped;
    o->freed = row.freed;
    o->canceled = row.canceled;
    o->acted = row.acted;
    o->request = row.request;
    o->news = true;
    o->look_ms = 0;
}

static void read_state(struct control_rollout *o)
{
    o->reading = true;
    o->read_ms = clock_wall_ms() + ROLLOUT_LOOK_MS;
    struct pg_txn *txn = pg_txn_new(o->reign->pg, PG_ANY_LANE);
    if (txn) {
        db_control_rollout(txn, o->batch->id);
        db_device_blocks(txn, (int32_t)o->batch->tenant, 0);
    }
    submit(o, txn, got_state);
}

void control_rollout_asked(struct control_rollout *o, int32_t request)
{
    o->wanted = request;
    o->read_ms = 0;
}

/* --- who may be sent to ------------------------------------------------------------------------------------------- */

static uint32_t limit_of(const struct control_rollout *o)
{
    return o->plan.waves ? o->plan.wave[o->wave < o->plan.waves ? o->wave : o->plan.waves - 1].limit : UINT32_MAX;
}

static bool is_stopped(const struct control_rollout *o, uint32_t block, unsigned slot)
{
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++) {
        const struct target_block *b = o->stopped >> p & 1 ? target_set_find(&o->platforms[p], block) : NULL;
        if (b && bitmap_test(&b->slots, slot))
            return true;
    }
    return false;
}

void control_rollout_mask(const struct control_rollout *o, const struct open_block *b, struct buf *states)
{
    struct state_string s;
    uint32_t rank = o->before[b - o->batch->blocks], limit = limit_of(o);
    if (!state_string_parse(&s, buf_slice(states)))
        return;
    uint8_t *p = buf_head(states) + STATE_STRING_HEADER;
    for (unsigned i = 0; i < s.count; i++) {
        if (!p[i])
            continue;
        bool held = rank++ >= limit || (o->stopped && is_stopped(o, b->block, s.first + i));
        if (held && state_of(p[i]) == STATE_QUEUED)
            p[i] = state_byte(STATE_HELD, state_attempts(p[i]));
    }
}

/* --- counting ----------------------------------------------------------------------------------------------------- */

static bool per_platform(const struct control_rollout *o)
{
    for (uint32_t i = 0; i < o->plan.thresholds; i++)
        if (o->plan.threshold[i].per_platform)
            return true;
    return false;
}

static void count_platforms(const struct control_rollout *o, const struct open_block *b, struct rollout_counts *counts)
{
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++) {
        const struct target_block *t = target_set_find(&o->platforms[p], b->block);
        for (unsigned slot = t ? bitmap_next(&t->slots, b->first) : BLOCK_SLOTS;
             slot < (unsigned)b->first + b->span && slot < BLOCK_SLOTS; slot = bitmap_next(&t->slots, slot + 1)) {
            enum command_state state = state_of(open_block_state(b, slot));
            if (state < STATE_COUNT)
                counts->platform[p][state]++;
        }
    }
}

static void count_all(const struct control_rollout *o, struct rollout_counts *counts)
{
    bool platforms = per_platform(o);
    memset(counts, 0, sizeof *counts);
    for (uint32_t i = 0; i < o->batch->block_count; i++) {
        const struct open_block *b = &o->batch->blocks[i];
        if (!b->cells)
            continue; /* nothing has happened there */
        state_count(counts->all, b->cells, b->span);
        if (platforms)
            count_platforms(o, b, counts);
    }
}

/* --- acting ------------------------------------------------------------------------------------------------------- */

static void wave_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                         size_t count)
{
    struct control_rollout *o = arg;
    (void)results, (void)count;
    if (!back(o))
        return;
    o->writing = false;
    if (err) { /* whether it was written nobody knows: read again */
        if (db_lease_fenced(err, error))
            reign_fail(o->reign, "fenced", err);
        o->request = -1;
        return;
    }
    o->wave++;
    o->wave_ms = clock_wall_ms();
    o->more = o->news = true;
    log_info("wave_released", "batch=%" PRIu64 " wave=%u devices=%u", o->batch->id, o->wave + 1, limit_of(o));
}

static void stop_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                         size_t count)
{
    struct control_rollout *o = arg;
    (void)results, (void)count;
    if (!back(o))
        return;
    o->writing = false;
    o->read_ms = 0;
    o->wanted = o->request + 1;
    if (db_lease_fenced(err, error))
        reign_fail(o->reign, "fenced", err);
    folder_wake(o->reign); /* it looks for what was asked */
}

/* Returns a transaction under the lease. */
static struct pg_txn *fenced(const struct control_rollout *o)
{
    struct pg_txn *txn = pg_txn_new(o->reign->pg, o->reign->lane);
    if (!txn)
        abort();
    db_lease_fence(txn, &o->reign->fence);
    return txn;
}

static void act(struct control_rollout *o, const struct rollout_verdict *v)
{
    char reason[160];
    snprintf(reason, sizeof reason, "threshold %u %%%s: %u of %u went wrong", v->threshold->percent,
             v->threshold->per_platform ? " of a platform" : "", v->wrong, v->ended);
    log_warn("threshold_reached", "batch=%" PRIu64 " wrong=%u ended=%u stop=%u cancel=%u pause=%d abort=%d",
             o->batch->id, v->wrong, v->ended, v->stop, v->cancel, v->pause, v->abort);
    struct db_stop stop = {.platforms = v->stop,
                           .canceled = v->cancel,
                           .acted = v->acted,
                           .pause = v->pause,
                           .abort = v->abort,
                           .reason = reason};
    struct pg_txn *txn = fenced(o);
    db_control_stop(txn, o->batch->id, &stop, clock_wall_ms());
    o->writing = true;
    submit(o, txn, stop_written);
}

static void look(struct control_rollout *o, bool held, int64_t now_ms)
{
    struct rollout_counts counts;
    count_all(o, &counts);
    struct rollout_verdict v = rollout_judge(&o->plan, &counts, o->acted, o->stopped | o->freed, o->canceled);
    if (v.threshold) {
        act(o, &v);
        return;
    }
    if (held || rollout_next(&o->plan, &counts, o->wave, o->wave_ms, o->by_hand, now_ms) == o->wave)
        return;
    struct pg_txn *txn = fenced(o);
    db_control_wave(txn, o->batch->id, o->wave + 1, now_ms);
    o->writing = true;
    submit(o, txn, wave_written);
}

bool control_rollout_tick(struct control_rollout *o, bool held)
{
    int64_t now_ms = clock_wall_ms();
    if (!o->reading && !o->writing && (o->request < 0 || o->request < o->wanted) && now_ms >= o->read_ms)
        read_state(o);
    if (o->request >= 0 && o->request >= o->wanted && !o->writing && now_ms >= o->look_ms && !o->batch->canceling) {
        o->look_ms = now_ms + ROLLOUT_LOOK_MS;
        look(o, held, now_ms);
    }
    bool news = o->news;
    o->news = false;
    return news;
}
