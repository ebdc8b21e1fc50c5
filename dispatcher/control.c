#include "dispatcher/control.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/control_ended.h"
#include "dispatcher/control_older.h"
#include "dispatcher/control_retry.h"
#include "dispatcher/control_rollout.h"
#include "dispatcher/control_time.h"
#include "dispatcher/joiner.h"
#include "dispatcher/leader_gates.h"
#include "dispatcher/leader_spec.h"
#include "dispatcher/leader_walk.h"
#include "dispatcher/leader_write.h"
#include "dispatcher/route.h"
#include "dispatcher/tell.h"
#include "lib/base/log.h"
#include "proto/inbox.h"

#define NUMBERS_LOG2 20 /* numbers of one reign, below its epoch, which counts milliseconds */

enum control_step {
    CONTROL_RESTS, /* nothing is to be done */
    CONTROL_DRAIN, /* taking back … */
    CONTROL_SPEC,
    CONTROL_TELL,
    CONTROL_HOLD,
    CONTROL_READ, /* ending some commands: which, */
    CONTROL_DROP, /* and their end */
    CONTROL_OPEN, /* releasing … */
    CONTROL_TELL_OPEN,
};

struct control {
    struct list link; /* of controller.all */
    struct reign *reign;
    struct open_batch *batch;
    enum control_step step;
    bool paused;              /* as it is asked for */
    int32_t request, handled; /* the last one asked for, and carried out */
    int32_t heard;            /* one that is asked for, and begins when who joins now has joined */
    int32_t reading, read;    /* up to which cancels are being carried out, and have been */
    bool held;                /* nobody has it */
    bool fresh;               /* loaded, and nothing is done about it yet */
    bool active;              /* counts among those at once */
    bool failed, restart;     /* a move failed: the step comes again at the next tick; all steps do */
    unsigned left;            /* moves of the step under way */
    struct tell *tell;
    struct control_time *time;       /* NULL: it may be sent at any time */
    struct control_rollout *rollout; /* NULL: to all at once, whatever becomes of it */
    struct control_retry *retry;     /* NULL: nothing is tried again */
    struct control_ended ended;      /* devices for which it was canceled, or has been superseded */
    struct control_older *older;     /* NULL: it takes the place of no other */
};

struct controller {
    struct list all;
    unsigned active;
    uint64_t numbers; /* given in this reign */
};

struct controller *controller_new(struct reign *r)
{
    (void)r;
    struct controller *x = calloc(1, sizeof *x);
    if (x)
        list_init(&x->all);
    return x;
}

static void control_free(struct control *c)
{
    list_remove(&c->link);
    tell_free(&c->tell);
    control_time_free(&c->time);
    control_rollout_free(&c->rollout);
    control_older_free(&c->older);
    control_retry_free(&c->retry);
    control_ended_free(&c->ended);
    c->batch->control = NULL;
    free(c);
}

void controller_free(struct controller **x)
{
    if (!*x)
        return;
    list_for_each (l, tmp, &(*x)->all)
        control_free(container_of(l, struct control, link));
    free(*x);
    *x = NULL;
}

static void enter(struct control *c, enum control_step step);
static void advance(struct control *c);

static uint64_t next_number(struct reign *r, bool held)
{
    uint64_t n = ((uint64_t)r->fence.epoch << NUMBERS_LOG2) + ++r->controller->numbers;
    return n << 1 | held;
}

/* What may be sent is routed, from the first block on. */
static void release(struct control *c)
{
    c->held = c->batch->held = false;
    if (c->time)
        control_time_released(c->time);
    if (c->rollout)
        control_rollout_released(c->rollout);
    router_again(c->reign, c->batch);
    router_pump(c->reign);
}

/* --- the steps' ends --------------------------------------------------------------------------------------------- */

static void rest(struct control *c)
{
    struct reign *r = c->reign;
    struct open_batch *batch = c->batch;
    if (c->step == CONTROL_RESTS)
        return;
    c->step = CONTROL_RESTS;
    if (c->active)
        r->controller->active--;
    c->active = false;
    reign_idle(r, batch); /* the batch, and with it the control, may be gone */
}

/* Canceled as a whole, or expiring: nothing is left to steer. */
static bool pointless(const struct control *c)
{
    return c->batch->canceling || c->batch->ending || (!c->batch->unsettled && !c->batch->growing);
}

static void step_ended(struct control *c)
{
    if (pointless(c)) {
        rest(c);
        return;
    }
    if (c->restart) {
        c->restart = false;
        c->failed = true;
        c->step = CONTROL_DRAIN;
    }
    if (c->failed)
        return; /* until the tick begins it again */
    switch (c->step) {
    case CONTROL_DRAIN:
        enter(c, CONTROL_SPEC);
        break;
    case CONTROL_SPEC:
        enter(c, CONTROL_TELL);
        break;
    case CONTROL_TELL:
        enter(c, CONTROL_HOLD);
        break;
    case CONTROL_HOLD:
        c->held = true;
        advance(c);
        break;
    case CONTROL_DROP:
        c->read = c->reading;
        advance(c);
        break;
    case CONTROL_OPEN:
        enter(c, CONTROL_TELL_OPEN);
        break;
    case CONTROL_TELL_OPEN:
        release(c);
        advance(c);
        break;
    case CONTROL_READ: /* its answer has begun the next one */
    case CONTROL_RESTS:
        break;
    }
}

static void move_ended(struct control *c, enum err err)
{
    c->failed = c->failed || err;
    if (--c->left == 0)
        step_ended(c);
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

static struct control *of(struct open_batch *batch)
{
    return batch->control && batch->control->step != CONTROL_RESTS && batch->control->left ? batch->control : NULL;
}

static void spec_sent(struct reign *r, struct open_batch *const *batches, size_t n, enum err err)
{
    struct control *c = of(batches[0]);
    (void)r, (void)n;
    if (c && err)
        move_ended(c, err);
}

static void spec_written(struct reign *r, struct open_batch *batch, enum err err)
{
    struct control *c = of(batch);
    (void)r;
    if (c)
        move_ended(c, err);
}

static void walked(struct reign *r, struct open_batch *batch)
{
    struct control *c = of(batch);
    (void)r;
    if (c)
        move_ended(c, ERR_OK);
}

static void put_spec(struct control *c, bool held)
{
    c->batch->hold = next_number(c->reign, held);
    c->left = 1;
    spec_put(c->reign, &c->batch, 1, spec_sent, spec_written);
}

static void told(void *arg)
{
    struct control *c = arg;
    c->tell = NULL; /* it has ended */
    move_ended(c, ERR_OK);
}

static void tell(struct control *c)
{
    struct buf item = {0};
    inbox_put(&item, &(struct inbox_item){.kind = INBOX_HOLD, .batch = c->batch->id, .number = c->batch->hold});
    c->left = 1;
    c->tell = item.failed
                  ? NULL
                  : tell_new(c->reign->loop, c->reign->live, buf_slice(&item), c->batch->id, c->batch->hold, told, c);
    buf_free(&item);
    if (!c->tell)
        abort();
}

/* Nobody has told Redis of the batch: it is held by not being routed. */
static bool unknown_to_redis(const struct open_batch *batch)
{
    return !batch->touched && batch->busy == 1; /* by this */
}

static void drain(struct control *c)
{
    struct reign *r = c->reign;
    struct open_batch *batch = c->batch;
    if (unknown_to_redis(batch)) {
        router_remove(r, batch);
        c->held = batch->held = true;
        advance(c);
        return;
    }
    if (!reign_live(r) || batch->rebuild || (!c->active && r->controller->active >= CONTROLS_AT_ONCE))
        return;
    batch->held = true;
    router_remove(r, batch);
    if (batch->routing)
        return;
    r->controller->active += !c->active;
    c->active = true;
    step_ended(c);
}

static void hold_all(struct control *c)
{
    c->left = 1; /* walk_batch does not call back from inside, but may have nothing to do */
    c->left += walk_batch(c->reign, c->batch, EVENT_HOLD, walked);
    move_ended(c, ERR_OK);
}

/* --- ending some commands ---------------------------------------------------------------------------------------- */

struct read {
    struct reign *reign;
    struct open_batch *batch;
};

static void drop_in_block(struct control *c, struct open_block *b, const struct bitmap *slots, bool superseded)
{
    struct reign *r = c->reign;
    if (c->batch->touched) {
        c->left++;
        walk_block(r, b, superseded ? EVENT_SUPERSEDE : EVENT_DROP, slots, walked);
    } else {
        int64_t now = db_clock_ms(r->clock);
        open_block_apply(&r->set, b, superseded ? EVENT_SUPERSEDE : EVENT_CANCEL, slots, now);
        fold_changed(&r->log, b, true, now);
    }
}

static void got_cancels(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct read m = *(struct read *)arg;
    free(arg);
    (void)error, (void)count;
    if (!reign_back(m.reign))
        return;
    struct control *c = of(m.batch);
    if (!c)
        return;
    for (int i = 0; !err && i < pg_rows(results[0]); i++) {
        struct open_block *b = open_batch_block(c->batch, (uint32_t)pg_int(results[0], i, 0));
        struct slice bytes = pg_bytes(results[0], i, 1);
        struct bitmap slots;
        if (!b || !b->remaining || bytes.len != sizeof slots.bytes)
            continue;
        memcpy(slots.bytes, bytes.data, sizeof slots.bytes);
        control_ended_add(&c->ended, b->block, &slots, pg_bool(results[0], i, 2));
        drop_in_block(c, b, &slots, pg_bool(results[0], i, 2));
    }
    walker_pump(c->reign);
    if (!err)
        c->step = CONTROL_DROP; /* the walks have begun */
    move_ended(c, err);
}

static void read_cancels(struct control *c)
{
    struct read *m = malloc(sizeof *m);
    if (!m)
        abort();
    *m = (struct read){reign_hold(c->reign), c->batch};
    c->left = 1;
    c->reading = c->request;
    struct pg_txn *txn = pg_txn_new(c->reign->pg, PG_ANY_LANE);
    if (txn)
        db_control_cancels(txn, c->batch->id);
    pg_txn_submit(txn, got_cancels, m);
}

/* --- what comes next --------------------------------------------------------------------------------------------- */

/* Begins a step, also again. */
static void enter(struct control *c, enum control_step step)
{
    c->step = step;
    c->failed = false;
    switch (step) {
    case CONTROL_DRAIN:
        drain(c);
        break;
    case CONTROL_SPEC:
        put_spec(c, true);
        break;
    case CONTROL_OPEN:
        put_spec(c, false);
        break;
    case CONTROL_TELL:
    case CONTROL_TELL_OPEN:
        tell(c);
        break;
    case CONTROL_HOLD:
        hold_all(c);
        break;
    case CONTROL_READ:
    case CONTROL_DROP: /* cancels read before are read again with those that have come since */
        c->step = CONTROL_READ;
        read_cancels(c);
        break;
    case CONTROL_RESTS:
        break;
    }
}

/* Nothing of it may be sent now. */
static bool is_held_back(const struct control *c)
{
    return c->paused || (c->time && control_time_holds(c->time)) ||
           (c->rollout && !control_rollout_known(c->rollout, 0)) || (c->older && control_older_holds(c->older));
}

/* Towards what is asked for, from where it is. */
static void advance(struct control *c)
{
    struct reign *r = c->reign;
    bool ended = c->read == c->request; /* what is to be ended */
    bool hold = is_held_back(c);
    bool less = (c->time && control_time_less(c->time)) || (c->rollout && control_rollout_less(c->rollout));
    bool more = (c->time && control_time_more(c->time)) || (c->rollout && control_rollout_more(c->rollout));
    if (c->step == CONTROL_RESTS)
        reign_busy(c->batch);
    if (c->fresh) /* what Redis knows workers may have: then it can be released, but nothing of it held or ended */
        c->held = !c->batch->touched || (!hold && ended);
    if (c->fresh && !c->batch->touched)
        c->batch->hold = 0; /* and of what it does not know they have been told nothing */
    c->fresh = false;
    if (pointless(c)) {
        c->handled = c->request;
    } else if (!c->held && (hold || !ended || less)) {
        enter(c, CONTROL_DRAIN);
        return;
    } else if (c->held && !ended) {
        enter(c, CONTROL_READ);
        return;
    } else if (c->held && !hold && c->batch->touched) {
        enter(c, CONTROL_OPEN);
        return;
    } else if ((c->held && !hold) || (!c->held && more)) {
        release(c);
    }
    bool known = !c->rollout || control_rollout_known(c->rollout, c->request); /* else it comes back when it is */
    if (c->handled != c->request && known) {
        c->handled = c->request;
        write_handled(r, c->batch->id, c->request);
    }
    if (c->step == CONTROL_RESTS)
        reign_idle(r, c->batch);
    else
        rest(c);
}

/* --- from outside ------------------------------------------------------------------------------------------------ */

static struct control *make(struct reign *r, struct open_batch *batch)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->reign = r;
    c->batch = batch;
    batch->control = c;
    list_append(&r->controller->all, &c->link);
    return c;
}

void control_asked(struct reign *r, const struct db_control *asked)
{
    struct open_batch *batch = open_set_find(&r->set, asked->batch);
    if (!batch) {
        if (asked->closed)
            write_handled(r, asked->batch, asked->request);
        return; /* it will be loaded */
    }
    struct control *c = batch->control ? batch->control : make(r, batch);
    if (c->request >= asked->request)
        return;
    c->heard = asked->request;
    if (joiner_submits(r, batch))
        return; /* it may be about who is joining now: comes again */
    c->paused = asked->paused;
    c->request = asked->request;
    if (asked->sealed)
        joiner_end(r, batch);
    if (c->rollout)
        control_rollout_asked(c->rollout, c->request);
    log_info("control_asked", "batch=%llu paused=%s request=%d", (unsigned long long)batch->id,
             c->paused ? "true" : "false", c->request);
    if (c->step == CONTROL_RESTS)
        advance(c);
}

void control_load(struct reign *r, struct open_batch *batch, bool paused, int32_t request, const struct db_steer *steer)
{
    struct control *c = make(r, batch);
    c->paused = paused;
    c->request = request;
    c->time = control_time_new(r, batch, steer);
    c->rollout = steer->rollout ? control_rollout_new(r, batch) : NULL;
    c->retry = control_retry_new(r, batch, steer);
    c->older = steer->supersedes && !batch->routed ? control_older_new(r, batch) : NULL;
    batch->deliver_by_ms = steer->deliver_by_ms;
    batch->execution_ms = steer->execution_ms;
    /* Whatever the workers have been told before, they are told anew; until then a Redis that was lost is filled with
     * it HELD, what is to be sent and what is not, and so says its spec: what was sent workers would send again. */
    c->fresh = true;
    batch->held = true;
    batch->hold = next_number(r, true);
}

static bool routes(struct control *c, const struct open_block *b, struct bitmap *only)
{
    struct bitmap again;
    bool some = c->rollout && control_rollout_routes(c->rollout, b, only);
    if (!c->retry || !control_retry_routes(c->retry, b, &again))
        return some;
    if (some)
        bitmap_or(only, &again);
    else
        *only = again;
    return true;
}

enum control_way control_routes(struct control *c, const struct open_block *b, struct buf *states, struct bitmap *only)
{
    if (c->time)
        control_time_mask(c->time, b, states);
    if (c->rollout)
        control_rollout_mask(c->rollout, b, states);
    if (c->retry)
        control_retry_mask(b, states);
    control_ended_mask(&c->ended, b, states);
    if (!routes(c, b, only) || !c->batch->partial)
        return CONTROL_ALL;
    if (!c->retry)
        return CONTROL_SOME;
    control_retry_leave(only, states);
    return CONTROL_ALONE;
}

void control_renew(struct control *c, uint32_t blocks)
{
    if (c->time)
        control_time_renew(c->time, blocks);
    if (c->rollout)
        control_rollout_renew(c->rollout);
}

bool control_renewed(const struct control *c)
{
    return (!c->time || control_time_renewed(c->time)) && (!c->rollout || control_rollout_renewed(c->rollout));
}

void control_joined(struct control *c, struct open_block *b, const struct bitmap *slots)
{
    if (c->rollout)
        control_rollout_joined(c->rollout, b->block, slots);
    if (c->retry)
        control_retry_joined(c->retry, b, slots);
    b->again = true;
}

void control_may_join(const struct control *c, uint32_t block, struct bitmap *slots)
{
    if (c->rollout)
        control_rollout_may_join(c->rollout, block, slots);
}

void control_begin(struct reign *r, struct open_batch *batch)
{
    (void)r;
    if (batch->control->step == CONTROL_RESTS)
        advance(batch->control);
}

bool control_settled(const struct open_batch *batch)
{
    const struct control *c = batch->control;
    if (batch->canceling)
        return batch->canceled;
    return !c || (c->read == c->request && c->heard <= c->request) || pointless(c);
}

bool control_settled_to(const struct open_batch *batch, int32_t request)
{
    const struct control *c = batch->control;
    if (batch->canceling)
        return batch->canceled;
    return c && (c->read >= request || pointless(c));
}

void control_gone(struct reign *r, struct open_batch *batch)
{
    struct control *c = batch->control;
    if (!c)
        return;
    if (c->active)
        r->controller->active--;
    control_free(c);
}

void control_restart(struct reign *r)
{
    list_for_each (l, tmp, &r->controller->all) {
        struct control *c = container_of(l, struct control, link);
        if (c->step == CONTROL_RESTS || c->step == CONTROL_DRAIN)
            continue;
        if (c->tell) {
            tell_free(&c->tell);
            c->left = 0;
        }
        c->held = false;
        c->restart = true;
        if (!c->left)
            step_ended(c);
    }
}

void control_ends(struct open_batch *batch)
{
    if (batch->control && batch->control->retry)
        control_retry_end(batch->control->retry);
}

static bool somebody_is_let_go(const struct control *c)
{
    return (c->rollout && control_rollout_fresh(c->rollout)) || (c->retry && control_retry_fresh(c->retry));
}

static void ended(struct reign *r, struct open_batch *batch)
{
    (void)r;
    if (batch->control)
        control_ended_walked(&batch->control->ended, batch);
}

/* Nothing of it is sent now, or may be. */
static bool is_held(const struct reign *r, const struct control *c)
{
    return c->paused || c->held || c->step != CONTROL_RESTS || reign_gates_closed(r->gates, c->batch->tenant);
}

void control_tick(struct reign *r)
{
    list_for_each (l, tmp, &r->controller->all) {
        struct control *c = container_of(l, struct control, link);
        bool news = c->time && c->batch->stage == OPEN_RUNNING && control_time_tick(c->time);
        if (c->rollout && c->batch->stage == OPEN_RUNNING && control_rollout_tick(c->rollout, is_held(r, c), c->time))
            news = true;
        if (c->older && c->batch->stage == OPEN_RUNNING && control_older_tick(c->older))
            news = true;
        if (c->batch->stage == OPEN_RUNNING && c->step == CONTROL_RESTS && !pointless(c) &&
            control_ended_tick(&c->ended, r, c->batch, ended)) {
            c->read = c->request - 1; /* all is read again, and ends what it may */
            news = true;
        }
        if (news && c->step == CONTROL_RESTS)
            advance(c);
        if (c->retry && c->batch->stage == OPEN_RUNNING)
            control_retry_tick(c->retry, c->held || c->step != CONTROL_RESTS || control_ended_busy(&c->ended));
        if (c->step == CONTROL_RESTS && !c->held && somebody_is_let_go(c))
            router_some(r, c->batch);
        if (c->step == CONTROL_RESTS || c->left)
            continue;
        if (pointless(c))
            rest(c);
        else if (c->step == CONTROL_DRAIN || (c->failed && reign_live(r)))
            enter(c, c->step);
    }
}
