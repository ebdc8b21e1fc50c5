#include "dispatcher/control_rollout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/leader_fold.h"
#include "dispatcher/let_go.h"
#include "dispatcher/pace.h"
#include "dispatcher/rollout.h"
#include "dispatcher/wave_order.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_control.h"
#include "lib/store/db_device.h"
#include "muster/v1/command.pb-c.h"

struct control_rollout {
    struct reign *reign;
    struct open_batch *batch;
    struct rollout plan;
    uint32_t wave, by_hand, stopped, canceled;
    struct rollout_acted acted;
    int64_t wave_us, look_us, read_us; /* wave_us: when it was released; 0: not known */
    int32_t wanted, request;           /* the one to be read, and that is; -1: none yet */
    bool known;                        /* something was read before */
    bool begun;                        /* since when the wave is out matters, and is written down */
    bool renew;                        /* platforms are to be read again */
    bool more, less, news;             /* since it was released; news: something was read */
    unsigned under_way;                /* questions and writes */
    bool reading, writing;
    bool over; /* freed; something is still under way */
    struct wave_order order;
    struct target_set platforms[ROLLOUT_PLATFORMS];
    struct pace pace, stepped; /* stepped: as it will be when it is written */
    struct let_go *go;         /* NULL: it has no rate */
    const struct control_time *time;
};

static void read_state(struct control_rollout *o);

struct control_rollout *control_rollout_new(struct reign *r, struct open_batch *batch)
{
    struct control_rollout *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    o->reign = r;
    o->batch = batch;
    o->request = -1;
    read_state(o);
    return o;
}

static void destroy(struct control_rollout *o)
{
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++)
        target_set_free(&o->platforms[p]);
    wave_order_free(&o->order);
    let_go_free(&o->go);
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
    if (o->go)
        let_go_again(o->go);
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

static void extend(struct control_rollout *o)
{
    if (!let_go_extend(o->go, o->batch->block_count))
        abort();
    let_go_again(o->go);
}

/* Blocks that it has got since stand in the order, too. */
static void extend_order(struct control_rollout *o)
{
    for (uint32_t i = o->order.count; i < o->batch->block_count; i++) {
        struct bitmap targets = open_block_bitmap(&o->batch->blocks[i]);
        wave_order_add(&o->order, o->batch->blocks[i].block, &targets);
    }
    if (o->order.failed || o->order.canary.failed || o->order.joined.failed)
        abort();
}

/* Who is in which part, and with it the order. */
static void take_parts(struct control_rollout *o, const struct pg_result *rows)
{
    struct db_control_part part;
    /* Who has joined stays: the rows may be a moment older. */
    struct target_set joined = o->order.joined;
    o->order.joined = (struct target_set){0};
    wave_order_free(&o->order);
    o->order.joined = joined;
    if (o->go)
        extend(o);
    for (int i = 0; i < pg_rows(rows); i++) {
        const struct open_block *b = NULL;
        if (!db_control_part_read(rows, i, &part) || !(b = open_batch_block(o->batch, part.block)))
            continue;
        if (part.kind == DB_PART_CANARY)
            target_set_add(&o->order.canary, part.block, &part.slots);
        else if (part.kind == DB_PART_JOINED)
            target_set_add(&o->order.joined, part.block, &part.slots);
        else if (part.kind == DB_PART_LET_GO && o->go)
            let_go_put(o->go, (uint32_t)(b - o->batch->blocks), &part.slots);
    }
    extend_order(o);
}

/* The pace as another leader has left it; one's own goes on. */
static void take_pace(struct control_rollout *o, const Muster__V1__Rate *rate, const struct db_rollout *row)
{
    if (!rate || o->go)
        return;
    o->go = let_go_new(o->batch->block_count);
    if (!o->go)
        abort();
    pace_read(&o->pace, rate);
    o->pace.steps = row->pace.steps;
    o->pace.ended = row->pace.ended;
    o->pace.succeeded = row->pace.succeeded;
    if (row->pace.last_ms)
        pace_resume(&o->pace, row->now_ms - row->pace.last_ms, clock_mono_us());
}

/* When the wave was released, by the clock that nobody sets: known, or as long ago as PostgreSQL's says. */
static void take_wave(struct control_rollout *o, const struct db_rollout *row)
{
    if (o->known && row->wave <= o->wave && (o->begun || !row->wave_ms))
        return;
    int64_t since_ms = row->wave_ms ? row->now_ms - row->wave_ms : 0;
    o->wave = row->wave;
    o->wave_us = clock_mono_us() - (since_ms > 0 ? since_ms * 1000 : 0);
    o->begun = row->wave_ms;
}

static void take_steering(struct control_rollout *o, const struct db_rollout *row, const struct pg_result *parts)
{
    Muster__V1__Steering *in = muster__v1__steering__unpack(NULL, row->steering.len, row->steering.data);
    if (!in)
        log_error("steering_unreadable", "batch=%" PRIu64, o->batch->id);
    take_pace(o, in ? in->rate : NULL, row);
    take_parts(o, parts);
    if (in)
        rollout_read(&o->plan, in, o->order.devices, o->order.canary_devices);
    take_wave(o, row);
    if (!rollout_waits(&o->plan))
        o->begun = true;
    muster__v1__steering__free_unpacked(in, NULL);
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
    if (err || !pg_rows(results[0])) {
        o->renew = true;
        return; /* asked again with the next tick */
    }
    db_control_rollout_read(results[0], 0, &row);
    /* What was written without an answer is found here. */
    o->more = o->more || (o->known && (o->request < 0 || row.wave > o->wave || (o->stopped & ~row.stopped)));
    o->less = o->less || (o->known && (row.stopped & ~o->stopped));
    take_steering(o, &row, results[2]);
    take_platforms(o, results[1]);
    o->known = true;
    o->by_hand = row.by_hand;
    o->stopped = row.stopped;
    o->canceled = row.canceled;
    o->acted.all = (uint8_t)row.acted;
    memcpy(o->acted.platform, row.platform_acted, sizeof o->acted.platform);
    o->request = row.request;
    o->news = true;
    o->look_us = 0;
}

static void read_state(struct control_rollout *o)
{
    o->reading = true;
    o->renew = false;
    o->read_us = clock_mono_us() + ROLLOUT_LOOK_MS * 1000;
    struct pg_txn *txn = pg_txn_new(o->reign->pg, PG_ANY_LANE);
    if (txn) {
        db_control_rollout(txn, o->batch->id);
        db_device_blocks(txn, (int32_t)o->batch->tenant, 0);
        db_control_parts(txn, o->batch->id);
    }
    submit(o, txn, got_state);
}

void control_rollout_asked(struct control_rollout *o, int32_t request)
{
    o->wanted = request;
    o->read_us = 0;
}

/* Takes out who is of one of these platforms. */
static void without(const struct control_rollout *o, uint32_t platforms, uint32_t block, struct bitmap *slots)
{
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++) {
        const struct target_block *b = platforms >> p & 1 ? target_set_find(&o->platforms[p], block) : NULL;
        if (b)
            bitmap_and_not(slots, &b->slots);
    }
}

void control_rollout_renew(struct control_rollout *o)
{
    o->renew = true;
}

bool control_rollout_renewed(const struct control_rollout *o)
{
    return o->known && !o->renew && !o->reading;
}

void control_rollout_may_join(const struct control_rollout *o, uint32_t block, struct bitmap *slots)
{
    without(o, o->canceled, block, slots);
}

void control_rollout_joined(struct control_rollout *o, uint32_t block, const struct bitmap *slots)
{
    target_set_add(&o->order.joined, block, slots);
    if (o->known)
        extend_order(o);
    if (o->go)
        extend(o);
}

/* --- who may be sent to ------------------------------------------------------------------------------------------- */

/* Who may be sent to in the waves that are out, at whatever rate. */
static struct bitmap released(const struct control_rollout *o, const struct open_block *b)
{
    struct bitmap targets = open_block_bitmap(b), out;
    wave_order_out(&o->order, &o->plan, o->wave, (uint32_t)(b - o->batch->blocks), b->block, &targets, &out);
    without(o, o->stopped, b->block, &out);
    return out;
}

void control_rollout_mask(const struct control_rollout *o, const struct open_block *b, struct buf *states)
{
    struct state_string s;
    if (!state_string_parse(&s, buf_slice(states)))
        return;
    struct bitmap may = released(o, b);
    if (o->go)
        bitmap_and(&may, &o->go->blocks[b - o->batch->blocks].gone);
    uint8_t *p = buf_head(states) + STATE_STRING_HEADER;
    for (unsigned i = 0; i < s.count; i++)
        if (state_of(p[i]) == STATE_QUEUED && !bitmap_test(&may, s.first + i))
            p[i] = state_byte(STATE_HELD, state_attempts(p[i]));
}

bool control_rollout_fresh(const struct control_rollout *o)
{
    return o->go && o->go->fresh_count;
}

bool control_rollout_routes(struct control_rollout *o, const struct open_block *b, struct bitmap *only)
{
    return o->go && let_go_take(o->go, (uint32_t)(b - o->batch->blocks), only);
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

/* Whether it was written nobody knows: read again. */
static bool not_written(struct control_rollout *o, enum err err, const struct pg_error *error)
{
    if (!err)
        return false;
    if (db_lease_fenced(err, error))
        reign_fail(o->reign, "fenced", err);
    o->request = -1;
    o->read_us = 0;
    return true;
}

static void wave_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                         size_t count)
{
    struct control_rollout *o = arg;
    (void)results, (void)count;
    if (!back(o))
        return;
    o->writing = false;
    if (not_written(o, err, error))
        return;
    o->wave++;
    o->wave_us = clock_mono_us();
    o->more = o->news = true;
    log_info("wave_released", "batch=%" PRIu64 " wave=%u devices=%u", o->batch->id, o->wave + 1,
             o->plan.wave[o->wave].limit);
}

/* It is out since nothing held it back any more, a moment ago. */
static void begin_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                          size_t count)
{
    struct control_rollout *o = arg;
    (void)results, (void)count;
    if (!back(o))
        return;
    o->writing = false;
    o->begun = !not_written(o, err, error);
}

static void stop_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                         size_t count)
{
    struct control_rollout *o = arg;
    (void)results, (void)count;
    if (!back(o))
        return;
    o->writing = false;
    if (!not_written(o, err, error)) {
        o->read_us = 0;
        o->wanted = o->request + 1;
    }
    folder_wake(o->reign); /* it looks for what was asked, also without an answer */
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

static void write_wave(struct control_rollout *o, uint32_t wave, pg_done_fn *done)
{
    struct pg_txn *txn = fenced(o);
    db_control_wave(txn, o->batch->id, wave);
    o->writing = true;
    submit(o, txn, done);
}

/* Behind what `text` says. */
static void name_platforms(char *text, size_t size, const char *what, uint32_t platforms)
{
    const char *between = what;
    for (int p = 0; p < ROLLOUT_PLATFORMS; p++) {
        const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&muster__v1__platform__descriptor, p);
        size_t len = strlen(text);
        if (!(platforms >> p & 1))
            continue;
        snprintf(text + len, size - len, "%s%s", between, v ? v->name : "?");
        between = ", ";
    }
}

/* How many commands of the batch the verdict is about; -1: all. */
static int64_t concerned(const struct rollout_verdict *v, const struct rollout_counts *counts)
{
    uint32_t platforms = v->stop | v->cancel;
    int64_t n = 0;
    if (v->pause || v->abort)
        return -1;
    for (int p = 0; p < ROLLOUT_PLATFORMS; p++)
        for (int s = STATE_HELD; platforms >> p & 1 && s < STATE_COUNT; s++)
            n += counts->platform[p][s];
    return n;
}

static void act(struct control_rollout *o, const struct rollout_verdict *v, const struct rollout_counts *counts)
{
    char reason[160], note[512];
    snprintf(reason, sizeof reason, "threshold %u %%", v->threshold->percent);
    name_platforms(reason, sizeof reason, " of ", v->threshold->per_platform ? 1u << v->platform : 0);
    size_t len = strlen(reason);
    snprintf(reason + len, sizeof reason - len, ": %u of %u went wrong", v->wrong, v->ended);
    log_warn("threshold_reached", "batch=%" PRIu64 " wrong=%u ended=%u stop=%u cancel=%u pause=%d abort=%d",
             o->batch->id, v->wrong, v->ended, v->stop, v->cancel, v->pause, v->abort);
    snprintf(note, sizeof note, "%s", reason);
    name_platforms(note, sizeof note, "; stopped: ", v->stop);
    name_platforms(note, sizeof note, "; canceled: ", v->cancel);
    struct db_stop stop = {.platforms = v->stop,
                           .canceled = v->cancel,
                           .acted = v->acted.all,
                           .pause = v->pause,
                           .abort = v->abort,
                           .reason = reason,
                           .outcome = v->abort    ? "aborted"
                                      : v->pause  ? "paused"
                                      : v->cancel ? "platforms_canceled"
                                                  : "platforms_stopped",
                           .note = note,
                           .devices = concerned(v, counts)};
    for (unsigned p = 0; p < ROLLOUT_PLATFORMS; p++)
        stop.platform_acted[p] = o->acted.platform[p] | v->acted.platform[p];
    struct pg_txn *txn = fenced(o);
    db_control_stop(txn, o->batch->id, &stop, clock_wall_ms());
    o->writing = true;
    submit(o, txn, stop_written);
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

static void turns_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                          size_t count)
{
    struct control_rollout *o = arg;
    (void)results, (void)count;
    if (!back(o))
        return;
    o->writing = false;
    if (not_written(o, err, error))
        return;
    if (o->stepped.steps != o->pace.steps) {
        o->pace.steps = o->stepped.steps;
        o->pace.ended = o->stepped.ended;
        o->pace.succeeded = o->stepped.succeeded;
        log_info("rate_grown", "batch=%" PRIu64 " steps=%u", o->batch->id, o->pace.steps);
    }
    for (uint32_t i = 0; i < o->go->chosen_count; i++)
        o->batch->blocks[o->go->chosen[i].at].again = true;
    let_go_written(o->go);
}

/* Who may take a turn now, whether or not he had one. */
static void may_take(void *arg, uint32_t at, struct bitmap *slots)
{
    const struct control_rollout *o = arg;
    const struct open_block *b = &o->batch->blocks[at];
    struct bitmap closed;
    *slots = (struct bitmap){{0}};
    if (!b->remaining)
        return;
    *slots = released(o, b);
    if (o->time) {
        control_time_closed(o->time, b->block, &closed);
        bitmap_and_not(slots, &closed);
    }
    for (unsigned i = 0; b->cells && i < b->span; i++)
        if (state_of(b->cells[i]) >= STATE_SENT)
            bitmap_clear(slots, b->first + i);
}

static void write_turns(struct control_rollout *o)
{
    int32_t blocks[LET_GO_BLOCKS];
    struct slice slots[LET_GO_BLOCKS];
    struct bitmap gone[LET_GO_BLOCKS];
    uint32_t n = o->go->chosen_count;
    for (uint32_t i = 0; i < n; i++) {
        const struct let_go_choice *c = &o->go->chosen[i];
        gone[i] = o->go->blocks[c->at].gone;
        bitmap_or(&gone[i], &c->slots);
        blocks[i] = (int32_t)o->batch->blocks[c->at].block;
        slots[i] = (struct slice){gone[i].bytes, sizeof gone[i].bytes};
    }
    struct db_pace pace = {.steps = o->stepped.steps, .ended = o->stepped.ended, .succeeded = o->stepped.succeeded};
    struct pg_txn *txn = fenced(o);
    db_control_let_go(txn, o->batch->id, &pace, blocks, slots, n);
    o->writing = true;
    submit(o, txn, turns_written);
}

/* Gives the turns that are due, unless the last ones are still on their way to Redis. */
static void give_turns(struct control_rollout *o, const struct rollout_counts *counts, bool held)
{
    int64_t now_us = clock_mono_us();
    if (held) {
        pace_due(&o->pace, now_us, false);
        return;
    }
    if (!o->batch->handed || o->go->fresh_count)
        return;
    uint32_t due = pace_due(&o->pace, now_us, true), n = let_go_choose(o->go, due, may_take, o);
    pace_taken(&o->pace, n, n < due && o->go->cursor == o->go->count);
    o->stepped = o->pace;
    if (pace_may_step(&o->pace, counts->all))
        pace_step(&o->stepped, counts->all);
    if (n || o->stepped.steps != o->pace.steps)
        write_turns(o);
}

/* Blocks in which all has ended are not routed any more: who had a turn there does not keep others waiting. */
static void forget_ended(struct control_rollout *o)
{
    struct bitmap ended;
    for (uint32_t i = 0; o->go->fresh_count && i < o->batch->block_count; i++)
        if (!o->batch->blocks[i].remaining)
            (void)let_go_take(o->go, i, &ended);
}

/* --- the clock ---------------------------------------------------------------------------------------------------- */

static void look(struct control_rollout *o, bool held, int64_t now_us)
{
    struct rollout_counts counts;
    count_all(o, &counts);
    struct rollout_verdict v = rollout_judge(&o->plan, &counts, &o->acted, o->canceled);
    if (v.threshold) {
        act(o, &v, &counts);
        return;
    }
    int64_t since_ms = (now_us - o->wave_us) / 1000;
    if (!held && !o->begun)
        write_wave(o, 0, begin_written);
    else if (!held && rollout_next(&o->plan, &counts, o->wave, since_ms, o->by_hand) != o->wave)
        write_wave(o, o->wave + 1, wave_written);
    else if (o->go)
        give_turns(o, &counts, held);
}

bool control_rollout_tick(struct control_rollout *o, bool held, const struct control_time *time)
{
    int64_t now_us = clock_mono_us();
    o->time = time;
    held = held || (time && control_time_holds(time));
    if (o->go)
        forget_ended(o);
    if (!o->reading && !o->writing && (o->request < 0 || o->request < o->wanted || o->renew) && now_us >= o->read_us)
        read_state(o);
    if (held && !o->begun)
        o->wave_us = now_us; /* the first wave is out when something of it may be sent */
    if (o->request >= 0 && o->request >= o->wanted && !o->reading && !o->writing && now_us >= o->look_us &&
        !o->batch->canceling) {
        o->look_us = now_us + ROLLOUT_LOOK_MS * 1000;
        look(o, held, now_us);
    }
    bool news = o->news;
    o->news = false;
    return news;
}
