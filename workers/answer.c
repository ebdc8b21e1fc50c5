#include "workers/answer.h"

#include <stdlib.h>

#include "lib/base/list.h"
#include "lib/store/live.h"
#include "lib/store/state.h"
#include "workers/batch_cache.h"
#include "workers/worker.h"

static enum command_event event_of(const struct batch *batch, int outcome, unsigned attempts)
{
    static const uint8_t events[] = {[1] = EVENT_SUCCEED, [2] = EVENT_FAIL, [3] = EVENT_REJECT, [4] = EVENT_NOT_NOW};
    enum command_event event = (enum command_event)events[outcome];
    bool retried = batch && !batch->canceled && event != EVENT_NOT_NOW &&
                   batch->retry_after >> state_next(STATE_SENT, event) & 1 && attempts < batch->retry_attempts;
    return retried ? EVENT_RETRY : event;
}

/* `batch`: NULL when it is over. False without memory. */
static bool pass_on(struct worker *w, const struct batch *batch, struct ack ack, int outcome, struct buf *result,
                    struct slice information)
{
    ack.event = (uint8_t)event_of(batch, outcome, ack.attempts);
    ack.tell = batch && (batch->keyed || batch->retry_after);
    if (batch && batch->retry_after) {
        ack.retried = true;
        ack.attempts = ack.attempts ? ack.attempts : 1; /* it was delivered */
        acknowledgement_put_delivery(result, outcome, ack.attempts);
    }
    if (result->failed)
        return false;
    if (buf_len(result) || information.len)
        acks_add_result(w->acks, &ack, buf_slice(result), information);
    else
        acks_add(w->acks, &ack);
    return true;
}

static void put_said(struct buf *result, const struct acknowledgement *said)
{
    if (acknowledgement_has_result(said))
        acknowledgement_put_result(result, said);
}

/* --- of a batch that must be looked up first ---------------------------------------------------------------------- */

#define LOOK_AGAIN_S 0.05 /* as often as the leader looks whether Redis is filled */

struct answers {
    struct worker *worker;
    struct list waiting;
};

struct answer {
    struct list link;
    struct worker *worker;
    struct ev_timer again;
    bool asked, filled;  /* Redis, right before the batch and right behind it, whether it is filled; it is */
    unsigned awaited;    /* answers */
    struct batch *batch; /* referenced; NULL: not there */
    struct ack ack;
    int outcome;
    struct buf result, information;
};

static void answer_free(struct answer *a)
{
    ev_timer_stop(a->worker->loop, &a->again);
    list_remove(&a->link);
    buf_free(&a->result);
    buf_free(&a->information);
    free(a);
}

struct answers *answers_new(struct worker *w)
{
    struct answers *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->worker = w;
    list_init(&all->waiting);
    return all;
}

void answers_free(struct answers **answers)
{
    struct answers *all = *answers;
    struct list *next;
    *answers = NULL;
    while (all && (next = list_pop(&all->waiting)) != NULL)
        answer_free(container_of(next, struct answer, link));
    free(all);
}

static void look_up(struct answer *a);

/* That there is no batch says that it is over only if Redis was filled then: that is asked before and after, for
 * between two questions it may be lost, or filled. */
static void answered(struct answer *a)
{
    if (--a->awaited > 0)
        return;
    if (!a->batch && !a->filled) {
        ev_timer_set(&a->again, a->asked ? LOOK_AGAIN_S : 0, 0);
        ev_timer_start(a->worker->loop, &a->again);
        a->asked = true;
        return;
    }
    if (!pass_on(a->worker, a->batch, a->ack, a->outcome, &a->result, buf_slice(&a->information)))
        abort(); /* there was room for all of it */
    if (a->batch)
        batch_unref(a->worker->batches, a->batch);
    answer_free(a);
}

static void known(void *arg, struct batch *batch, uint64_t unused, uint64_t unused_too)
{
    struct answer *a = arg;
    (void)unused, (void)unused_too;
    a->batch = batch;
    answered(a);
}

static void got_generation(void *arg, enum err err, int64_t filled)
{
    struct answer *a = arg;
    a->filled = a->filled && !err && filled;
    answered(a);
}

static void look_up(struct answer *a)
{
    bool ask = a->filled = a->asked;
    a->awaited = ask ? 3 : 1;
    if (ask)
        live_generation_get(a->worker->live, got_generation, a);
    batch_cache_get(a->worker->batches, a->ack.batch, known, a, 0, 0);
    if (ask)
        live_generation_get(a->worker->live, got_generation, a);
}

static void on_again(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)revents;
    ev_timer_stop(loop, timer);
    look_up(timer->data);
}

/* Copies what is said; NULL without memory. */
static struct answer *answer_new(struct worker *w, const struct ack *ack, const struct acknowledgement *said)
{
    struct answer *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->worker = w;
    a->ack = *ack;
    a->outcome = said->outcome;
    ev_timer_init(&a->again, on_again, 0, 0);
    a->again.data = a;
    list_append(&w->answers->waiting, &a->link);
    put_said(&a->result, said);
    buf_put(&a->information, said->information.data, said->information.len);
    /* Room for what a batch that is tried again has besides. */
    (void)buf_reserve(&a->result, ACKNOWLEDGEMENT_DELIVERY_MAX);
    if (!a->result.failed && !a->information.failed)
        return a;
    answer_free(a);
    return NULL;
}

bool answer_take(struct worker *w, struct batch *batch, const struct ack *ack, const struct acknowledgement *said)
{
    if (batch) {
        struct buf result = {0};
        put_said(&result, said);
        bool taken = pass_on(w, batch, *ack, said->outcome, &result, said->information);
        buf_free(&result);
        return taken;
    }
    struct answer *a = answer_new(w, ack, said);
    if (!a)
        return false;
    look_up(a);
    return true;
}
