#include "dispatcher/cancel.h"

#include <stdlib.h>

#include "dispatcher/joiner.h"
#include "dispatcher/leader_spec.h"
#include "dispatcher/leader_walk.h"
#include "dispatcher/leader_write.h"
#include "dispatcher/route.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define TELL_AGAIN_US 2000000 /* workers that have not confirmed a cancel are told again after so long */

enum cancel_step { CANCEL_DRAIN, CANCEL_SPEC, CANCEL_TELL, CANCEL_CONFIRM, CANCEL_DROP };

struct cancel {
    struct list link;
    struct reign *reign;
    struct open_batch *batch;
    enum cancel_step step;
    unsigned left;     /* moves of this step under way */
    bool failed;       /* one of them failed: the step is repeated at the next tick */
    bool restart;      /* from the beginning, when they have ended */
    uint16_t *workers; /* that were told and have not confirmed */
    size_t worker_count;
    int64_t told_us; /* CLOCK_MONOTONIC, when they were told last */
};

struct canceler {
    struct list cancels;
    unsigned active; /* beyond CANCEL_DRAIN */
    bool asking;     /* live_workers is under way */
    struct live_worker *workers;
    size_t worker_count;
};

struct canceler *canceler_new(struct reign *r)
{
    (void)r;
    struct canceler *x = calloc(1, sizeof *x);
    if (x)
        list_init(&x->cancels);
    return x;
}

static void cancel_free(struct cancel *c)
{
    list_remove(&c->link);
    free(c->workers);
    free(c);
}

void canceler_free(struct canceler **x)
{
    if (!*x)
        return;
    list_for_each (l, tmp, &(*x)->cancels)
        cancel_free(container_of(l, struct cancel, link));
    free((*x)->workers);
    free(*x);
    *x = NULL;
}

static struct cancel *find(struct reign *r, const struct open_batch *batch)
{
    struct list *head = &r->canceler->cancels;
    for (struct list *l = head->next; l != head; l = l->next)
        if (container_of(l, struct cancel, link)->batch == batch)
            return container_of(l, struct cancel, link);
    return NULL;
}

static void enter(struct cancel *c, enum cancel_step step);

static void finish(struct cancel *c)
{
    struct reign *r = c->reign;
    struct open_batch *batch = c->batch;
    if (c->step != CANCEL_DRAIN)
        r->canceler->active--;
    cancel_free(c);
    write_canceled(r, batch); /* which ends its being busy */
}

/* All moves of the step have ended: on to the next one, or once more. */
static void step_ended(struct cancel *c)
{
    if (c->restart || c->failed) {
        enum cancel_step step = c->restart ? CANCEL_DRAIN : c->step;
        if (c->restart && c->step != CANCEL_DRAIN)
            c->reign->canceler->active--;
        c->step = step;
        c->restart = false;
        return; /* `failed` stands until the tick begins it again */
    }
    if (c->step == CANCEL_DROP)
        finish(c);
    else
        enter(c, c->step + 1);
}

static void move_ended(struct cancel *c, enum err err)
{
    c->failed = c->failed || err;
    if (--c->left == 0)
        step_ended(c);
}

/* --- steps ------------------------------------------------------------------------------------------------------- */
static void spec_sent(struct reign *r, struct open_batch *const *batches, size_t n, enum err err)
{
    struct cancel *c = find(r, batches[0]);
    (void)n;
    if (c && err)
        move_ended(c, err);
}

static void spec_written(struct reign *r, struct open_batch *batch, enum err err)
{
    struct cancel *c = find(r, batch);
    if (c)
        move_ended(c, err);
}

static void walked(struct reign *r, struct open_batch *batch)
{
    struct cancel *c = find(r, batch);
    if (c)
        move_ended(c, ERR_OK);
}

struct tell {
    struct reign *reign;
    struct open_batch *batch;
};

static void told(void *arg, enum err err, int64_t waiting)
{
    struct tell t = *(struct tell *)arg;
    free(arg);
    (void)waiting;
    if (!reign_back(t.reign))
        return;
    struct cancel *c = find(t.reign, t.batch);
    if (c)
        move_ended(c, err);
}

static struct tell *tell_new(struct cancel *c)
{
    struct tell *t = malloc(sizeof *t);
    if (!t)
        abort();
    *t = (struct tell){reign_hold(c->reign), c->batch};
    c->left++;
    return t;
}

static void got_workers_to_tell(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct tell t = *(struct tell *)arg;
    free(arg);
    if (!reign_back(t.reign))
        return;
    struct cancel *c = find(t.reign, t.batch);
    if (!c)
        return;
    free(c->workers);
    c->told_us = clock_mono_us();
    c->worker_count = 0;
    c->workers = malloc((count + 1) * sizeof *c->workers);
    if (!c->workers)
        abort();
    for (size_t i = 0; !err && i < count; i++) {
        c->workers[c->worker_count++] = workers[i].number;
        if (workers[i].alive)
            router_push_cancel(c->reign, c->batch->id, workers[i].number, told, tell_new(c));
    }
    move_ended(c, err);
}

/* A worker that is not listed any more is dead and reaped: what it may have sent counts as SENT. */
static const struct live_worker *listed(const struct canceler *x, uint16_t number)
{
    for (size_t i = 0; i < x->worker_count; i++)
        if (x->workers[i].number == number)
            return &x->workers[i];
    return NULL;
}

static void told_again(void *arg, enum err err, int64_t waiting)
{
    (void)err;
    (void)waiting;
    (void)!reign_back(arg);
}

/* An inbox entry is a hint that may be lost on its way to the worker, between Redis and it. Telling twice does no harm.
 */
static void tell_again(struct cancel *c)
{
    if (clock_mono_us() - c->told_us < TELL_AGAIN_US)
        return;
    c->told_us = clock_mono_us();
    for (size_t i = 0; i < c->worker_count; i++) {
        const struct live_worker *w = listed(c->reign->canceler, c->workers[i]);
        if (w && w->alive)
            router_push_cancel(c->reign, c->batch->id, c->workers[i], told_again, reign_hold(c->reign));
    }
}

static void got_confirmed(void *arg, enum err err, const uint16_t *numbers, size_t count)
{
    struct tell t = *(struct tell *)arg;
    free(arg);
    if (!reign_back(t.reign))
        return;
    struct cancel *c = find(t.reign, t.batch);
    if (!c)
        return;
    size_t kept = 0;
    for (size_t i = 0; !err && i < c->worker_count; i++) {
        bool confirmed = false;
        for (size_t k = 0; k < count && !confirmed; k++)
            confirmed = numbers[k] == c->workers[i];
        if (!confirmed && listed(c->reign->canceler, c->workers[i]))
            c->workers[kept++] = c->workers[i];
    }
    if (!err)
        c->worker_count = kept;
    c->left--;
    if (c->restart || (!err && !kept))
        step_ended(c);
    else
        tell_again(c);
}

static void got_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    struct canceler *x = r->canceler;
    x->asking = false;
    if (err)
        return;
    free(x->workers);
    x->workers = malloc((count + 1) * sizeof *workers);
    if (!x->workers)
        abort();
    if (count)
        memcpy(x->workers, workers, count * sizeof *workers);
    x->worker_count = count;
    list_for_each (l, tmp, &x->cancels) {
        struct cancel *c = container_of(l, struct cancel, link);
        if (c->step == CANCEL_CONFIRM && !c->left)
            live_cancel_confirmed(r->live, c->batch->id, got_confirmed, tell_new(c));
    }
}

/* Whether the batch can be canceled without a word to Redis: nobody has told it of the batch. */
static bool unknown_to_redis(const struct open_batch *batch)
{
    return !batch->touched && batch->busy == 1; /* by this cancel */
}

static void begin_drain(struct cancel *c)
{
    struct reign *r = c->reign;
    if (unknown_to_redis(c->batch)) {
        router_remove(r, c->batch);
        walk_unknown(r, c->batch, EVENT_CANCEL);
        finish(c);
        return;
    }
    if (!reign_live(r) || c->batch->rebuild || r->canceler->active >= CANCELS_AT_ONCE)
        return;
    router_remove(r, c->batch);
    if (c->batch->routing)
        return;
    r->canceler->active++;
    enter(c, CANCEL_SPEC);
}

/* Begins a step, also again. */
static void enter(struct cancel *c, enum cancel_step step)
{
    struct reign *r = c->reign;
    c->step = step;
    c->failed = false;
    switch (step) {
    case CANCEL_DRAIN:
        begin_drain(c);
        break;
    case CANCEL_SPEC:
        c->left = 1;
        spec_put(r, &c->batch, 1, spec_sent, spec_written);
        break;
    case CANCEL_DROP:
        c->left = 1; /* walk_batch does not call back from inside, but may have nothing to do */
        c->left += walk_batch(r, c->batch, EVENT_DROP, walked);
        move_ended(c, ERR_OK);
        break;
    case CANCEL_TELL:
        live_workers_all(r->live, got_workers_to_tell, tell_new(c));
        break;
    case CANCEL_CONFIRM:
        break; /* the tick asks */
    }
}

/* --- from outside ------------------------------------------------------------------------------------------------ */
void cancel_requested(struct reign *r, uint64_t id)
{
    struct open_batch *batch = open_set_find(&r->set, id);
    if (!batch || batch->cancel_begun || batch->canceled || batch->stage != OPEN_RUNNING || !r->loaded)
        return;
    struct cancel *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    batch->canceling = batch->cancel_begun = true;
    reign_busy(batch);
    *c = (struct cancel){.reign = r, .batch = batch};
    list_append(&r->canceler->cancels, &c->link);
    joiner_end(r, batch);
    log_info("cancel_begun", "batch=%llu", (unsigned long long)id);
    enter(c, CANCEL_DRAIN);
}

void cancel_restart(struct reign *r)
{
    list_for_each (l, tmp, &r->canceler->cancels) {
        struct cancel *c = container_of(l, struct cancel, link);
        if (c->step == CANCEL_DRAIN)
            continue;
        c->restart = true;
        if (!c->left)
            step_ended(c);
    }
}

void cancel_tick(struct reign *r)
{
    struct canceler *x = r->canceler;
    bool confirming = false;
    list_for_each (l, tmp, &x->cancels) {
        struct cancel *c = container_of(l, struct cancel, link);
        if (c->step == CANCEL_CONFIRM)
            confirming = true;
        else if (!c->left && (c->step == CANCEL_DRAIN || (c->failed && reign_live(r))))
            enter(c, c->step);
    }
    if (confirming && !x->asking && reign_live(r)) {
        x->asking = true;
        live_workers_all(r->live, got_workers, reign_hold(r));
    }
}

static bool has_unsent(const struct open_block *b)
{
    for (unsigned slot = b->first; slot < (unsigned)b->first + b->span; slot++) {
        enum command_state state = state_of(open_block_state(b, slot));
        if (state != STATE_NONE && state < STATE_SENT)
            return true;
    }
    return false;
}

static void look_again(void *arg, struct open_batch *batch)
{
    if (!batch->canceled || batch->ending || batch->busy || batch->stage != OPEN_RUNNING)
        return;
    for (uint32_t i = 0; i < batch->block_count; i++)
        if (batch->blocks[i].remaining && has_unsent(&batch->blocks[i]))
            walk_block(arg, &batch->blocks[i], EVENT_DROP, NULL, NULL);
}

void cancel_look_again(struct reign *r)
{
    if (!r->loaded)
        return;
    open_set_each(&r->set, look_again, r);
    walker_pump(r);
}
