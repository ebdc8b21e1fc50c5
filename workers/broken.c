#include "workers/broken.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/store/live.h"
#include "lib/store/state.h"
#include "workers/acks.h"
#include "workers/batch_cache.h"
#include "workers/session.h"
#include "workers/worker.h"

struct loss {
    struct worker *worker;
    struct ack ack;
};

/* It ends with the reason as its result, and what is behind it goes on. */
static void quarantine(struct worker *w, struct ack *ack, int64_t losses)
{
    char why[128];
    struct buf result = {0};
    int n = snprintf(why, sizeof why,
                     "quarantined: its device's connection was lost %" PRId64 " times while it was sent", losses);
    struct acknowledgement said = {.text = {(const uint8_t *)why, (size_t)n}};
    acknowledgement_put_result(&result, &said);
    ack->event = EVENT_QUARANTINE;
    ack->retried = true; /* it is the last word, also of a batch without Retry */
    log_warn("command_quarantined", "batch=%" PRIu64 " tenant=%u seq=%u losses=%" PRId64, ack->batch, ack->tenant,
             ack->seq, losses);
    w->stats.quarantined++;
    if (result.failed)
        acks_add(w->acks, ack);
    else
        acks_add_result(w->acks, ack, buf_slice(&result), (struct slice){NULL, 0});
    buf_free(&result);
}

static void counted(void *arg, enum err err, int64_t losses)
{
    struct loss *l = arg;
    if (!err && losses >= l->worker->options.quarantine_after)
        quarantine(l->worker, &l->ack, losses);
    free(l);
}

void broken_connection(struct session *s)
{
    struct worker *w = s->worker;
    if (!w->options.quarantine_after || w->draining || !s->open)
        return;
    for (unsigned i = 0; i < s->held_count; i++) {
        const struct held *h = &s->held[i];
        struct loss *l = h->phase == HELD_SENT ? malloc(sizeof *l) : NULL;
        if (!l)
            continue; /* or without memory: then this loss is not counted */
        *l = (struct loss){w, {.batch = h->batch->id, .tenant = s->tenant, .seq = s->seq, .attempts = h->attempts}};
        live_count_loss(w->live, l->ack.batch, s->seq, counted, l);
    }
}
