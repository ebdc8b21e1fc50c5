#include "workers/answer.h"

#include <stdlib.h>

#include "lib/store/state.h"
#include "workers/batch_cache.h"
#include "workers/worker.h"

static enum command_event event_of(const struct batch *batch, int outcome, unsigned attempts)
{
    static const uint8_t events[] = {[1] = EVENT_SUCCEED, [2] = EVENT_FAIL, [3] = EVENT_REJECT, [4] = EVENT_NOT_NOW};
    enum command_event event = (enum command_event)events[outcome];
    bool retried = batch && event != EVENT_NOT_NOW && batch->retry_after >> state_next(STATE_SENT, event) & 1 &&
                   attempts < batch->retry_attempts;
    return retried ? EVENT_RETRY : event;
}

/* `batch`: NULL when it is over. False without memory. */
static bool pass_on(struct worker *w, const struct batch *batch, struct ack ack, int outcome, struct buf *result,
                    struct slice information)
{
    ack.event = (uint8_t)event_of(batch, outcome, ack.attempts);
    ack.tell = batch && batch->keyed;
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

struct answer {
    struct worker *worker;
    struct ack ack;
    int outcome;
    struct buf result, information;
};

static void answer_free(struct answer *a)
{
    buf_free(&a->result);
    buf_free(&a->information);
    free(a);
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
    put_said(&a->result, said);
    buf_put(&a->information, said->information.data, said->information.len);
    /* Room for what a batch that is tried again has besides. */
    (void)buf_reserve(&a->result, ACKNOWLEDGEMENT_DELIVERY_MAX);
    if (!a->result.failed && !a->information.failed)
        return a;
    answer_free(a);
    return NULL;
}

static void known(void *arg, struct batch *batch, uint64_t unused, uint64_t unused_too)
{
    struct answer *a = arg;
    (void)unused, (void)unused_too;
    if (!pass_on(a->worker, batch, a->ack, a->outcome, &a->result, buf_slice(&a->information)))
        abort(); /* there was room for all of it */
    if (batch)
        batch_unref(a->worker->batches, batch);
    answer_free(a);
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
    batch_cache_get(w->batches, ack->batch, known, a, 0, 0);
    return true;
}
