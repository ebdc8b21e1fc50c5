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
    bool over;        /* so far Redis says so: see ask_redis */
    unsigned awaited; /* answers of it */
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

static void record(struct answer *a, struct batch *batch)
{
    if (!pass_on(a->worker, batch, a->ack, a->outcome, &a->result, buf_slice(&a->information)))
        abort(); /* there was room for all of it */
    answer_free(a);
}

static void redis_said(struct answer *a, bool over)
{
    a->over = a->over && over;
    if (--a->awaited > 0)
        return;
    if (a->over) {
        record(a, NULL);
        return;
    }
    ev_timer_set(&a->again, LOOK_AGAIN_S, 0);
    ev_timer_start(a->worker->loop, &a->again);
}

static void got_generation(void *arg, enum err err, int64_t filled)
{
    redis_said(arg, !err && filled);
}

static void got_spec(void *arg, enum err err, struct slice spec)
{
    (void)spec;
    redis_said(arg, err == ERR_NOT_FOUND);
}

/* That there is no batch says that it is over only if Redis was filled then: that is asked before and after, for
 * between two questions it may be lost, or filled. The three go to it one right behind the other; the cache may have
 * asked earlier, or again later. */
static void ask_redis(struct answer *a)
{
    a->over = true;
    a->awaited = 3;
    live_generation_get(a->worker->live, got_generation, a);
    live_get_spec(a->worker->live, a->ack.batch, got_spec, a);
    live_generation_get(a->worker->live, got_generation, a);
}

static void known(void *arg, struct batch *batch, uint64_t unused, uint64_t unused_too)
{
    struct answer *a = arg;
    struct worker *w = a->worker;
    (void)unused, (void)unused_too;
    if (!batch) {
        ask_redis(a);
        return;
    }
    record(a, batch);
    batch_unref(w->batches, batch);
}

static void look_up(struct answer *a)
{
    batch_cache_get(a->worker->batches, a->ack.batch, known, a, 0, 0);
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
