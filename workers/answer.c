#include "workers/answer.h"

#include <stdlib.h>

#include "lib/store/state.h"
#include "workers/batch_cache.h"
#include "workers/worker.h"

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
    if (acknowledgement_has_result(said))
        acknowledgement_put_result(&a->result, said);
    buf_put(&a->information, said->information.data, said->information.len);
    /* Room for what a batch that is tried again has besides. */
    (void)buf_reserve(&a->result, ACKNOWLEDGEMENT_DELIVERY_MAX);
    if (!a->result.failed && !a->information.failed)
        return a;
    answer_free(a);
    return NULL;
}

static enum command_event event_of(const struct batch *batch, int outcome, unsigned attempts)
{
    static const uint8_t events[] = {[1] = EVENT_SUCCEED, [2] = EVENT_FAIL, [3] = EVENT_REJECT, [4] = EVENT_NOT_NOW};
    enum command_event event = (enum command_event)events[outcome];
    bool retried = batch && event != EVENT_NOT_NOW && batch->retry_after >> state_next(STATE_SENT, event) & 1 &&
                   attempts < batch->retry_attempts;
    return retried ? EVENT_RETRY : event;
}

/* `batch`: NULL when it is over. */
static void known(void *arg, struct batch *batch, uint64_t unused, uint64_t unused_too)
{
    struct answer *a = arg;
    (void)unused, (void)unused_too;
    a->ack.event = (uint8_t)event_of(batch, a->outcome, a->ack.attempts);
    a->ack.tell = batch && batch->keyed;
    if (batch && batch->retry_after) {
        a->ack.retried = true;
        a->ack.attempts = a->ack.attempts ? a->ack.attempts : 1; /* it was delivered */
        acknowledgement_put_delivery(&a->result, a->outcome, a->ack.attempts);
    }
    if (buf_len(&a->result) || buf_len(&a->information))
        acks_add_result(a->worker->acks, &a->ack, buf_slice(&a->result), buf_slice(&a->information));
    else
        acks_add(a->worker->acks, &a->ack);
    if (batch)
        batch_unref(a->worker->batches, batch);
    answer_free(a);
}

bool answer_take(struct worker *w, struct batch *batch, const struct ack *ack, const struct acknowledgement *said)
{
    struct answer *a = answer_new(w, ack, said);
    if (!a)
        return false;
    if (batch) {
        batch_ref(batch);
        known(a, batch, 0, 0);
    } else {
        batch_cache_get(w->batches, ack->batch, known, a, 0, 0);
    }
    return true;
}
