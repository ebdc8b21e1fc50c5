#include "workers/in_flight.h"

#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/store/state.h"
#include "proto/ack_log.h"
#include "workers/acks.h"
#include "workers/batch_cache.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

struct sent {
    uint64_t batch;
    uint32_t tenant, seq;
    uint8_t state;
};

static int compare(const void *a, const void *b)
{
    const struct sent *x = a, *y = b;
    if (x->batch != y->batch)
        return x->batch < y->batch ? -1 : 1;
    if (x->tenant != y->tenant)
        return x->tenant < y->tenant ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Answered ones too: their outcomes are not durable while Redis is away. */
static void collect(void *arg, struct session *s)
{
    struct buf *all = arg;
    for (unsigned i = 0; i < s->held_count; i++) {
        const struct held *h = &s->held[i];
        if (!held_is_out(h))
            continue;
        struct sent sent = {
            .batch = h->batch->id, .tenant = s->tenant, .seq = s->seq, .state = state_byte(STATE_SENT, h->attempts)};
        buf_put(all, &sent, sizeof sent);
    }
}

/* `n` of one row. */
static void put(struct buf *entries, const struct sent *v, size_t n)
{
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i; end < n && v[end].batch == v[i].batch && v[end].tenant == v[i].tenant; end++)
            ;
        ack_log_put_group(entries, v[i].batch, v[i].tenant, (uint32_t)(end - i));
        for (size_t k = i; k < end; k++)
            ack_log_put_entry(entries, v[k].seq, v[k].state);
    }
}

void in_flight_record(struct worker *w)
{
    struct buf all = {0}, entries = {0};
    session_table_each(w->sessions, collect, &all);
    size_t n = all.failed ? 0 : buf_len(&all) / sizeof(struct sent);
    struct sent *v = (struct sent *)(void *)all.data;
    if (n)
        qsort(v, n, sizeof *v, compare);
    for (size_t at = 0; at < n; at += ACKS_FLUSH_MAX) {
        buf_reset(&entries);
        put(&entries, v + at, n - at < ACKS_FLUSH_MAX ? n - at : ACKS_FLUSH_MAX);
        if (!entries.failed)
            acks_store_only(w->acks, buf_slice(&entries));
    }
    if (n)
        log_info("in_flight_recorded", "commands=%zu", n);
    buf_free(&entries);
    buf_free(&all);
}
