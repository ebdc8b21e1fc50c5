#include "dispatcher/event_watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/event_present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/base/fnv.h"
#include "lib/base/list.h"
#include "lib/base/log.h"

#define LOOK_S 1.0
/* Rows of one part: at most 1,024 events, some hundred kilobytes. */
#define PART_ROWS 4
/* A watcher for whom nothing comes is told so often how far the stream is, when it has gone on. */
#define QUIET_US 10000000
/* Of one tenant at one dispatcher; the streams of all are bounded in request.h. */
#define WATCHERS_MAX 256

struct event_watcher {
    struct request r;
    struct list link;
    struct event_watches *of;
    int64_t after;   /* the last event that was looked at, */
    uint32_t mark;   /* and what tells it from others of its number; 0: it is not known */
    int64_t told;    /* the token that was sent last */
    int64_t told_us; /* and when */
    int64_t head;    /* the tenant's last event, as far as is known */
    uint64_t kinds;  /* bit n: of kind n; 0: all */
    int64_t batch;   /* 0: of all */
    bool begun, reading, gone;
    bool drained; /* the dispatcher goes, not the caller */
};

struct event_watches {
    struct dispatcher *d;
    struct list watchers;
    ev_timer timer;
    bool looking, again;
};

static void look(struct event_watches *ws);
static void read_on(struct event_watcher *x);

static void on_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    look(container_of(t, struct event_watches, timer));
}

struct event_watches *event_watches_new(struct dispatcher *d)
{
    struct event_watches *ws = calloc(1, sizeof *ws);
    if (!ws)
        return NULL;
    ws->d = d;
    list_init(&ws->watchers);
    ev_timer_init(&ws->timer, on_timer, LOOK_S, LOOK_S);
    return ws;
}

void event_watches_free(struct event_watches **watches)
{
    if (*watches)
        ev_timer_stop((*watches)->d->loop, &(*watches)->timer);
    free(*watches);
    *watches = NULL;
}

static void finish(struct event_watcher *x)
{
    struct status st = {0};
    if (x->drained)
        request_fail(&x->r, status_set(&st, STATUS_UNAVAILABLE, "DRAINING", "this dispatcher is going down"));
    else
        request_done(&x->r);
}

/* Ends the call, at once or when the question under way is answered. */
static void end(struct event_watcher *x, const struct status *st)
{
    struct event_watches *ws = x->of;
    if (!x->gone) {
        list_remove(&x->link);
        ws->d->figures.event_watchers--;
        if (list_empty(&ws->watchers))
            ev_timer_stop(ws->d->loop, &ws->timer);
    }
    x->gone = true;
    if (x->reading)
        return;
    if (st)
        request_fail(&x->r, st);
    else
        finish(x);
}

/* Numbers are alike in every tenant, and come again where the database is restored: FNV-1a over what the event is. */
static uint32_t mark_of(int32_t tenant, struct slice text)
{
    uint32_t hash = fnv_add(FNV_BEGIN ^ (uint32_t)tenant * 2654435761u, text.data, text.len);
    return hash ? hash : 1;
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

static void tell(struct event_watcher *x, Muster__V1__Event *event)
{
    Muster__V1__WatchEventsResponse out = MUSTER__V1__WATCH_EVENTS_RESPONSE__INIT;
    char token[40];
    snprintf(token, sizeof token, x->mark ? "%" PRId64 "-%08" PRIx32 : "%" PRId64, x->after, x->mark);
    out.event = event;
    out.resume_token = token;
    grpc_call_send(x->r.call, &out.base);
    x->told = x->after;
    x->told_us = clock_mono_us();
}

static void on_event(void *arg, int64_t id, struct slice text)
{
    struct event_watcher *x = arg;
    struct db_event e;
    x->after = id;
    x->mark = mark_of(x->r.tenant, text);
    if (!db_event_read(text, &e)) {
        log_warn("event_unreadable", "tenant=%d id=%" PRId64, x->r.tenant, id);
        return;
    }
    if ((x->kinds && (e.kind > 63 || !(x->kinds >> e.kind & 1))) || (x->batch && x->batch != e.batch))
        return;
    Muster__V1__Event *event = event_present(id, &e);
    if (!event) {
        log_warn("event_unreadable", "tenant=%d id=%" PRId64, x->r.tenant, id);
        return;
    }
    tell(x, event);
    x->r.d->figures.events_told++;
    protobuf_c_message_free_unpacked(&event->base, NULL);
}

static void gone_status(struct status *st)
{
    status_set(st, STATUS_FAILED_PRECONDITION, "EVENTS_GONE", "the events behind the token are not kept any more");
}

static void on_part(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct event_watcher *x = arg;
    (void)error, (void)count;
    x->reading = false;
    if (x->gone) {
        finish(x);
        return;
    }
    if (err)
        return; /* the next look tries again */
    if (pg_rows(results[0]) && pg_int(results[0], 0, 0) > x->after + 1) {
        struct status st = {0}; /* it was slower than they are kept */
        gone_status(&st);
        end(x, &st);
        return;
    }
    for (int row = 0; row < pg_rows(results[0]); row++)
        db_event_each(results[0], row, x->after, on_event, x);
    if (x->after > x->told && clock_mono_us() - x->told_us >= QUIET_US)
        tell(x, NULL);
    if (pg_rows(results[0]) == PART_ROWS)
        read_on(x);
}

/* The next part, if there is one and the one before was read. */
static void read_on(struct event_watcher *x)
{
    if (!x->begun || x->reading || x->gone || x->after >= x->head || grpc_call_pending(x->r.call) > 0)
        return;
    struct pg_txn *txn = pg_txn_new(x->r.d->pg, PG_ANY_LANE);
    if (!txn)
        return;
    x->reading = true;
    db_event_page(txn, x->r.tenant, x->after, PART_ROWS);
    pg_txn_submit(txn, on_part, x);
}

static void on_drain(struct grpc_call *call, void *service)
{
    struct event_watcher *x = grpc_call_data(call);
    (void)service;
    if (x)
        read_on(x);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static void on_heads(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct event_watches *ws = arg;
    (void)error, (void)count;
    ws->looking = false;
    for (int row = 0; !err && row < pg_rows(results[0]); row++)
        list_for_each (l, next, &ws->watchers) {
            struct event_watcher *x = container_of(l, struct event_watcher, link);
            if (x->r.tenant != (int32_t)pg_int(results[0], row, 0))
                continue;
            x->head = pg_int(results[0], row, 1);
            read_on(x);
        }
    if (ws->again)
        look(ws);
}

static void look(struct event_watches *ws)
{
    ws->again = ws->looking;
    if (ws->looking || list_empty(&ws->watchers))
        return;
    size_t n = 0, room = 0;
    list_for_each (l, next, &ws->watchers)
        room++;
    int32_t *tenants = calloc(room, sizeof *tenants);
    struct pg_txn *txn = pg_txn_new(ws->d->pg, PG_ANY_LANE);
    if (!tenants || !txn) {
        free(tenants);
        pg_txn_free(&txn);
        return;
    }
    list_for_each (l, next, &ws->watchers)
        tenants[n++] = container_of(l, struct event_watcher, link)->r.tenant;
    ws->looking = true;
    db_event_heads(txn, tenants, n);
    free(tenants);
    pg_txn_submit(txn, on_heads, ws);
}

void event_watches_told(struct event_watches *ws, struct slice text)
{
    if (text.len >= 7 && memcmp(text.data, "events ", 7) == 0)
        look(ws);
}

void event_watches_end(struct event_watches *ws)
{
    list_for_each (l, next, &ws->watchers) {
        struct event_watcher *x = container_of(l, struct event_watcher, link);
        x->drained = true;
        end(x, NULL);
    }
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

/* Where the stream begins. */
static void on_range(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct event_watcher *x = arg;
    struct status st = {0};
    (void)count;
    x->reading = false;
    if (x->gone) {
        finish(x);
        return;
    }
    if (err) {
        request_store_status(&st, err, error);
        end(x, &st);
        return;
    }
    int64_t last = pg_int(results[0], 0, 0), first = pg_int(results[0], 0, 1);
    uint32_t mark = pg_null(results[0], 0, 2) ? 0 : mark_of(x->r.tenant, pg_bytes(results[0], 0, 2));
    bool another = x->mark && mark && x->mark != mark;
    x->head = last;
    x->mark = x->after == -2 ? 0 : mark;
    if (x->after < 0)
        x->after = x->after == -1 ? last : first ? first - 1 : last;
    else if (x->after > last)
        status_violation(&st, "resume_token", "is of no event that there has been");
    else if (x->after < (first ? first - 1 : last))
        gone_status(&st);
    else if (another)
        status_set(&st, STATUS_FAILED_PRECONDITION, "EVENTS_GONE",
                   "the token is of another tenant, or of events before the database was restored");
    if (st.code != STATUS_OK) {
        end(x, &st);
        return;
    }
    x->begun = true;
    tell(x, NULL);
    read_on(x);
}

/* A number, of which there may be told what the event is. */
static bool read_token(const char *text, int64_t *after, uint32_t *mark)
{
    size_t n = strspn(text, "0123456789");
    const char *rest = text + n + 1;
    if (!n || n > 18 || (text[n] && (text[n] != '-' || strlen(rest) != 8 || strspn(rest, "0123456789abcdef") != 8)))
        return false;
    *after = strtoll(text, NULL, 10);
    *mark = text[n] ? (uint32_t)strtoul(rest, NULL, 16) : 0;
    return true;
}

static void check(struct status *st, struct event_watcher *x, const Muster__V1__WatchEventsRequest *in)
{
    x->after = in->from_beginning ? -2 : -1;
    if (*in->resume_token && !read_token(in->resume_token, &x->after, &x->mark))
        status_violation(st, "resume_token", "is none");
    if (*in->resume_token && in->from_beginning)
        status_violation(st, "from_beginning", "does not go with a token");
    if (in->n_kinds > 64)
        status_violation(st, "kinds", "has %zu entries, allowed are 64", in->n_kinds);
    for (size_t i = 0; i < in->n_kinds && i < 64; i++) {
        char field[32];
        snprintf(field, sizeof field, "kinds[%zu]", i);
        validate_enum(st, field, &muster__v1__event_kind__descriptor, (int)in->kinds[i], false);
        if ((unsigned)in->kinds[i] < 64)
            x->kinds |= 1ull << (unsigned)in->kinds[i];
    }
    if (in->batch_id)
        validate_number(st, "batch_id", in->batch_id);
    x->batch = in->batch_id;
}

static size_t count_of(const struct event_watches *ws, int32_t tenant)
{
    size_t n = 0;
    list_for_each (l, next, &ws->watchers)
        n += container_of(l, struct event_watcher, link)->r.tenant == tenant;
    return n;
}

void watch_events(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct dispatcher *d = service;
    struct event_watches *ws = d->event_watches;
    struct event_watcher *x = request_begin(call, service, sizeof *x);
    if (!x)
        return;
    struct status st = {0};
    check(&st, x, (const Muster__V1__WatchEventsRequest *)request);
    if (st.code == STATUS_OK && count_of(ws, x->r.tenant) >= WATCHERS_MAX)
        request_overload_status(&st);
    if (st.code != STATUS_OK) {
        request_fail(&x->r, &st);
        return;
    }
    x->of = ws;
    list_append(&ws->watchers, &x->link);
    d->figures.event_watchers++;
    if (!ev_is_active(&ws->timer))
        ev_timer_again(d->loop, &ws->timer);
    grpc_call_on_drain(call, on_drain);
    x->reading = true;
    struct pg_txn *txn = pg_txn_new(d->pg, PG_ANY_LANE);
    if (txn)
        db_event_range(txn, x->r.tenant, x->after);
    pg_txn_submit(txn, on_range, x);
}

void watch_events_cancelled(struct grpc_call *call, void *service)
{
    struct event_watcher *x = grpc_call_data(call);
    (void)service;
    if (x && !x->gone)
        end(x, NULL);
}
