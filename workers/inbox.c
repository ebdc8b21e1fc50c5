#include "workers/inbox.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/store/live.h"
#include "proto/inbox.h"
#include "workers/acks.h"
#include "workers/attach.h"
#include "workers/batch_cache.h"
#include "workers/broken.h"
#include "workers/credentials.h"
#include "workers/drained.h"
#include "workers/gates.h"
#include "workers/lease.h"
#include "workers/report.h"
#include "workers/routed.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/strays.h"
#include "workers/values.h"
#include "workers/worker.h"

#define TAKE_MAX          16  /* entries a take: up to 16 x 64 KiB, some hundred thousand commands */
#define TAKE_WAIT_MS      500 /* then the bound of held commands is looked at again */
#define TAKE_FULL_WAIT_MS 50  /* the same while only urgent work is taken */
#define RETRY_S           0.1
/* Commands taken that wait for their turn: while there are more only urgent ones are taken. So many because tenants
 * take turns here, not in the inbox; the leader puts little into that while it is not taken. */
#define AHEAD 65536

struct inbox {
    struct worker *worker;
    bool running, taking;
    uint16_t number; /* the worker's, whose inbox is being taken from */
    uint64_t taker;  /* live_taker of the last take that was made */
    struct drained drained;
    struct ev_timer retry;
};

static void take(struct inbox *inbox);

/* --- CANCEL ------------------------------------------------------------------------------------------------------- */

struct cancel {
    struct worker *worker;
    uint64_t batch;
    struct ev_timer retry;
};

static void cancel_durable(void *arg);

static void take_back_from_session(void *arg, struct session *s)
{
    session_take_back(s, arg);
}

static void on_confirm_retry(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)revents;
    ev_timer_stop(loop, timer);
    cancel_durable(timer->data);
}

/* Somebody waits for it: repeated until it is said. */
static void cancel_confirmed(void *arg, enum err err)
{
    struct cancel *c = arg;
    if (!err || err == ERR_CLOSED) {
        free(c);
        return;
    }
    ev_timer_init(&c->retry, on_confirm_retry, RETRY_S, 0);
    c->retry.data = c;
    ev_timer_start(c->worker->loop, &c->retry);
}

/* A worker that has lost its number since has lost all it could send, too. */
static void cancel_durable(void *arg)
{
    struct cancel *c = arg;
    uint16_t number = lease_number(c->worker->lease);
    if (number)
        live_cancel_confirm(c->worker->live, c->batch, number, cancel_confirmed, c);
    else
        free(c);
}

/* Confirmed when nothing of the batch can leave any more and all that is known of it is durable. */
static void on_cancel(struct worker *w, uint64_t id)
{
    struct batch *batch = batch_cache_cancel(w->batches, id);
    struct cancel *c = malloc(sizeof *c);
    if (!batch || !c) {
        log_error("out_of_memory", "where=inbox");
        abort();
    }
    *c = (struct cancel){.worker = w, .batch = id};
    value_cache_drop(w->values, id);
    routed_cancel(w->routed, batch);
    session_table_each(w->sessions, take_back_from_session, batch);
    acks_barrier(w->acks, cancel_durable, c);
}

/* --- HOLD --------------------------------------------------------------------------------------------------------- */

struct hold {
    struct worker *worker;
    uint64_t batch, number;
};

/* Whoever waits for it tells again until it is heard. */
static void hold_durable(void *arg)
{
    struct hold *h = arg;
    uint16_t number = lease_number(h->worker->lease);
    if (number)
        live_confirm(h->worker->live, h->batch, h->number, number, NULL, NULL);
    free(h);
}

/* Confirmed when nothing of the batch can leave until it is released, and all that has left is recorded. */
static void on_hold(struct worker *w, const struct inbox_item *item)
{
    struct batch *batch = batch_cache_hold(w->batches, item->batch, item->number);
    struct hold *h = malloc(sizeof *h);
    if (!batch || !h) {
        log_error("out_of_memory", "where=inbox");
        abort();
    }
    *h = (struct hold){w, item->batch, item->number};
    w->holds++;
    routed_forget(w->routed, batch);
    session_table_each(w->sessions, take_back_from_session, batch);
    acks_barrier(w->acks, hold_durable, h);
}

/* --- TAKEOVER, REVOKE --------------------------------------------------------------------------------------------- */

struct takeover {
    struct worker *worker;
    uint32_t tenant, seq, generation;
};

/* The device may have come back here meanwhile: presence decides. */
static void presence_known(void *arg, enum err err, struct slice presence)
{
    struct takeover *t = arg;
    struct worker *w = t->worker;
    size_t at = (size_t)slot_of(t->seq) * 2;
    struct session *s = session_table_still(w->sessions, t->tenant, t->seq, t->generation);
    if (!err && s && presence.len >= at + 2 && load_u16le(presence.data + at) != lease_number(w->lease)) {
        broken_connection(s);
        session_close(s);
        s->transport->close(s, SESSION_TAKEN_OVER);
        w->stats.taken_over++;
    }
    free(t);
}

static void on_takeover(struct worker *w, const struct inbox_item *item)
{
    struct session *s = session_table_get(w->sessions, item->tenant, item->seq);
    struct takeover *t = s ? malloc(sizeof *t) : NULL;
    if (!t)
        return;
    *t = (struct takeover){w, item->tenant, item->seq, s->generation};
    live_presence(w->live, item->tenant, block_of(item->seq), presence_known, t);
}

static void on_revoke(struct worker *w, const struct inbox_item *item)
{
    credentials_revoke(w->credentials, item->tenant, item->seq, item->issued_before_ms);
    struct session *s = session_table_get(w->sessions, item->tenant, item->seq);
    if (s && s->issued_ms < item->issued_before_ms) {
        session_close(s);
        s->transport->close(s, SESSION_REVOKED);
    }
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

/* Before what needs it, though it stands behind that. */
static void read_specs(struct worker *w, struct slice entry)
{
    struct inbox_item item;
    while (inbox_next(&entry, &item) == 1)
        if (item.kind == INBOX_SPEC)
            batch_cache_told(w->batches, item.batch, item.spec);
}

static void on_entry(struct worker *w, enum live_class class, struct slice entry)
{
    struct inbox_item item;
    int got;
    while ((got = inbox_next(&entry, &item)) == 1) {
        switch (item.kind) {
        case INBOX_ROUTE:
        case INBOX_AGAIN:
        case INBOX_RELEASE: /* what was given to a number that was lost meanwhile, others may have by now */
            if (w->inbox->number == lease_number(w->lease))
                routed_add(w->routed, &item, class, w->takes);
            break;
        case INBOX_CANCEL:
            on_cancel(w, item.batch);
            break;
        case INBOX_HOLD:
            on_hold(w, &item);
            break;
        case INBOX_GATE:
            gates_told(w->gates, item.number);
            break;
        case INBOX_TAKEOVER:
            on_takeover(w, &item);
            break;
        case INBOX_REVOKE:
            on_revoke(w, &item);
            break;
        case INBOX_REPORT:
            report_send(w, item.number);
            break;
        case INBOX_CHECK:
            if (item.tenant)
                report_check(w, item.tenant, item.block);
            else
                strays_check(w->strays);
            break;
        case INBOX_SPEC: /* see read_specs */
            break;
        }
    }
    if (got < 0)
        log_warn("inbox_entry_unreadable", "bytes_left=%zu", entry.len);
}

static void on_retry(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)revents;
    ev_timer_stop(loop, timer);
    take(timer->data);
}

/* Another after each doubt, and for each connection that takes: it may be to a Redis of the past, before that is known.
 */
static uint64_t stands_since(const struct inbox *inbox)
{
    return (uint64_t)batch_cache_doubts(inbox->worker->batches) << 32 | (uint32_t)inbox->taker;
}

static void taken(void *arg, enum err err, enum live_class class, const struct slice *entries, size_t count)
{
    struct inbox *inbox = arg;
    struct worker *w = inbox->worker;
    uint64_t since = stands_since(inbox);
    inbox->taking = false;
    w->takes++;
    for (size_t i = 0; i < count; i++) {
        if (drained_before(&inbox->drained, since, class))
            read_specs(w, entries[i]);
        on_entry(w, class, entries[i]);
    }
    if (!err)
        drained_took(&inbox->drained, since, class, count, TAKE_MAX);
    if (err) {
        ev_timer_set(&inbox->retry, RETRY_S, 0);
        ev_timer_start(w->loop, &inbox->retry);
    } else {
        take(inbox);
    }
}

/* Another connection takes. What the one before it was given and did not bring is asked for, and what is taken from now
 * on comes behind that. */
static void look_who_takes(struct inbox *inbox)
{
    uint64_t taker = live_taker(inbox->worker->live);
    if (taker && inbox->taker && taker != inbox->taker)
        attach_all(inbox->worker->attach);
    if (taker)
        inbox->taker = taker;
}

static void take(struct inbox *inbox)
{
    struct worker *w = inbox->worker;
    if (!inbox->running || inbox->taking || lease_number(w->lease) == 0 || w->unvouched)
        return;
    inbox->taking = true;
    look_who_takes(inbox);
    inbox->number = lease_number(w->lease);
    uint64_t waiting = routed_waiting(w->routed);
    bool full = waiting > AHEAD || w->held + waiting + acks_stats(w->acks)->waiting > (uint64_t)w->options.held_max;
    int classes = full ? 1 : LIVE_CLASSES;
    drained_ask(&inbox->drained, stands_since(inbox), (unsigned)classes);
    live_inbox_take(w->live, lease_number(w->lease), classes, TAKE_MAX, full ? TAKE_FULL_WAIT_MS : TAKE_WAIT_MS, taken,
                    inbox);
}

struct inbox *inbox_new(struct worker *worker)
{
    struct inbox *inbox = calloc(1, sizeof *inbox);
    if (!inbox)
        return NULL;
    inbox->worker = worker;
    ev_timer_init(&inbox->retry, on_retry, 0, 0);
    inbox->retry.data = inbox;
    return inbox;
}

void inbox_free(struct inbox **inbox)
{
    if (!*inbox)
        return;
    ev_timer_stop((*inbox)->worker->loop, &(*inbox)->retry);
    free(*inbox);
    *inbox = NULL;
}

void inbox_start(struct inbox *inbox)
{
    inbox->running = true;
    take(inbox);
}

void inbox_stop(struct inbox *inbox)
{
    inbox->running = false;
    routed_clear(inbox->worker->routed);
}
