#include "dispatcher/watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/breakdown.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "dispatcher/view.h"
#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/store/db_batch.h"

#define BUCKETS         256u
#define INTERVAL_MS     500
#define INTERVAL_MIN_MS 100
#define INTERVAL_MAX_MS 60000
#define QUIET_US        (15 * 1000000ll) /* a watcher hears something at least so often */
#define SLACK_US        5000             /* a timer may come a little early */
#define BREAKDOWN_SHARE 10               /* every command is looked at in one part of so many of the time */

/* One watched batch. */
struct watched {
    struct list link; /* of its bucket */
    struct watches *watches;
    int32_t tenant;
    int64_t batch;
    struct list watchers;
    ev_timer timer;
    bool polling, again, gone; /* gone: nobody watches, ends with the poll under way */
    int32_t *blocks;           /* once known */
    size_t block_count;
    struct db_batch row;     /* numbers of the last look; its texts are in the messages */
    struct arena arena;      /* of `next` */
    Muster__V1__Batch *next; /* the look under way, still without progress */
    /* By what is wished beside the progress: the last look, encoded once for all who wish so; empty before the first.
     */
    struct told {
        struct buf message;
        uint64_t version; /* of what it tells */
        uint32_t watchers;
    } told[BREAKDOWN_WISHES];
    uint32_t counts[STATE_COUNT];
    uint64_t version;               /* grows with each change */
    int64_t began_us, breakdown_us; /* the last breakdown began; the next may */
    bool closed;
};

struct watcher {
    struct request r;
    struct list link;
    struct watched *of;
    unsigned wishes; /* enum breakdown_wish */
    int64_t interval_us, due_us, sent_us;
    uint64_t sent; /* version */
};

struct watches {
    struct dispatcher *d;
    struct list buckets[BUCKETS];
};

static void poll_batch(struct watched *w);

/* --- life --------------------------------------------------------------------------------------------------------- */

struct watches *watches_new(struct dispatcher *d)
{
    struct watches *ws = calloc(1, sizeof *ws);
    if (!ws)
        return NULL;
    ws->d = d;
    for (unsigned i = 0; i < BUCKETS; i++)
        list_init(&ws->buckets[i]);
    return ws;
}

static void watched_destroy(struct watched *w)
{
    arena_free(&w->arena);
    for (unsigned i = 0; i < BREAKDOWN_WISHES; i++)
        buf_free(&w->told[i].message);
    free(w->blocks);
    free(w);
}

static void watched_free(struct watched *w)
{
    list_remove(&w->link);
    ev_timer_stop(w->watches->d->loop, &w->timer);
    if (w->polling) {
        w->gone = true;
        return;
    }
    watched_destroy(w);
}

void watches_free(struct watches **watches)
{
    free(*watches);
    *watches = NULL;
}

/* Also the number of another tenant's batch is one that somebody may ask for, until he is told that it is none of his.
 */
static struct watched *find(struct watches *ws, int32_t tenant, int64_t batch)
{
    list_for_each (l, next, &ws->buckets[(uint64_t)batch % BUCKETS]) {
        struct watched *w = container_of(l, struct watched, link);
        if (w->tenant == tenant && w->batch == batch)
            return w;
    }
    return NULL;
}

/* Takes the watcher off its batch; the caller ends its call. */
static void leave(struct watcher *x)
{
    struct watched *w = x->of;
    list_remove(&x->link);
    if (--w->told[x->wishes].watchers == 0)
        buf_free(&w->told[x->wishes].message); /* nobody keeps it new */
    w->watches->d->figures.watchers--;
    if (list_empty(&w->watchers))
        watched_free(w);
}

static void end(struct watcher *x, const struct status *st)
{
    leave(x);
    if (st)
        request_fail(&x->r, st);
    else
        request_done(&x->r);
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

static const struct told *told_of(const struct watcher *x)
{
    return &x->of->told[x->wishes];
}

static void tell(struct watcher *x, int64_t now)
{
    grpc_call_send_bytes(x->r.call, buf_slice(&told_of(x)->message));
    x->sent = told_of(x)->version;
    x->sent_us = now;
    x->due_us = now + x->interval_us;
}

/* Sends what the watcher has not seen, if it is time and it has read what was sent before. False when that has ended
 * it. */
static bool consider(struct watcher *x, int64_t now)
{
    struct watched *w = x->of;
    const struct told *told = told_of(x);
    bool ready = now + SLACK_US >= x->due_us && grpc_call_pending(x->r.call) == 0;
    if (!buf_len(&told->message))
        return true; /* it came after the look had begun */
    if (w->closed) {
        tell(x, now);
        end(x, NULL);
        return false;
    }
    if (ready && (x->sent != told->version || now - x->sent_us >= QUIET_US))
        tell(x, now);
    return true;
}

static void on_drain(struct grpc_call *call, void *service)
{
    (void)service;
    struct watcher *x = grpc_call_data(call);
    bool there = x && consider(x, clock_mono_us());
    (void)there;
}

/* The last watcher to leave frees `w`: false then. */
static bool consider_all(struct watched *w)
{
    int64_t now = clock_mono_us();
    struct list *l = w->watchers.next, *head = &w->watchers;
    bool left = l == head;
    while (l != head) {
        struct list *next = l->next;
        bool last = next == head;
        if (consider(container_of(l, struct watcher, link), now))
            left = true;
        if (last)
            break;
        l = next;
    }
    return left;
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Something to say, or nothing any more. */
static void fail_unseen(struct watched *w, const struct status *st, bool all)
{
    struct list *l = w->watchers.next, *head = &w->watchers;
    while (l != head) {
        struct list *next = l->next;
        bool last = next == head;
        struct watcher *x = container_of(l, struct watcher, link);
        if (all || !x->sent)
            end(x, st);
        if (last)
            return;
        l = next;
    }
}

static void looked(struct watched *w)
{
    w->polling = false;
    if (w->gone) {
        watched_destroy(w);
    } else if (w->again) {
        w->again = false;
        poll_batch(w);
    }
}

/* The look failed: those who wait for their first message learn it, the others wait for better times. */
static void look_failed(struct watched *w, enum err err, const struct pg_error *error)
{
    struct status st = {0};
    request_store_status(&st, err, error);
    w->polling = false;
    if (w->gone)
        looked(w);
    else
        fail_unseen(w, &st, false);
}

/* False without memory, the message as it was. */
static bool encode(struct told *told, Muster__V1__Batch *batch)
{
    Muster__V1__WatchBatchResponse out = MUSTER__V1__WATCH_BATCH_RESPONSE__INIT;
    out.batch = batch;
    struct buf message = {0};
    uint8_t *p = buf_reserve(&message, muster__v1__watch_batch_response__get_packed_size(&out));
    if (!p)
        return false;
    buf_commit(&message, muster__v1__watch_batch_response__pack(&out, p));
    buf_free(&told->message);
    told->message = message;
    return true;
}

/* The messages of all who watch; those that wish more than the progress stay as they are without a breakdown. */
static bool encode_all(struct watched *w, const uint32_t counts[STATE_COUNT], const struct breakdown *b)
{
    for (unsigned wishes = 0; w->next && wishes < BREAKDOWN_WISHES; wishes++) {
        struct told *told = &w->told[wishes];
        if (!told->watchers || (wishes && !b))
            continue;
        if (b)
            breakdown_present(&w->arena, b, wishes, w->next);
        else
            w->next->progress = present_progress(&w->arena, counts);
        if (w->arena.failed || !encode(told, w->next))
            return false;
        told->version = w->version;
    }
    return w->next != NULL;
}

static void show(struct watched *w, const uint32_t counts[STATE_COUNT], const struct breakdown *b)
{
    if (memcmp(w->counts, counts, sizeof w->counts) != 0)
        w->version++;
    memcpy(w->counts, counts, sizeof w->counts);
    if (!encode_all(w, counts, b)) {
        look_failed(w, ERR_NOMEM, NULL);
        return;
    }
    w->closed = w->row.closed_ms != 0;
    w->polling = false;
    if (w->gone) {
        looked(w);
        return;
    }
    bool again = w->again;
    w->again = false;
    if (consider_all(w) && again)
        poll_batch(w);
}

static void on_breakdown(void *arg, enum err err, const struct breakdown *b)
{
    struct watched *w = arg;
    int64_t now = clock_mono_us();
    w->breakdown_us = now + (now - w->began_us) * (BREAKDOWN_SHARE - 1);
    if (err == ERR_OK)
        show(w, b->counts, b);
    else
        look_failed(w, err, NULL);
}

/* Whether somebody wishes more than the progress, and it is time for it, or he has heard nothing yet. */
static bool wants_breakdown(const struct watched *w)
{
    bool wished = false, first = false;
    for (unsigned wishes = 1; wishes < BREAKDOWN_WISHES; wishes++) {
        wished |= w->told[wishes].watchers > 0;
        first |= w->told[wishes].watchers > 0 && !buf_len(&w->told[wishes].message);
    }
    return wished && (first || w->row.closed_ms || clock_mono_us() >= w->breakdown_us);
}

static void on_progress(void *arg, enum err err, const uint32_t counts[STATE_COUNT])
{
    struct watched *w = arg;
    if (err == ERR_OK)
        show(w, counts, NULL);
    else
        look_failed(w, err, NULL);
}

static bool keep_blocks(struct watched *w, const struct pg_result *list)
{
    size_t n = pg_int_array(list, 0, 0, NULL, 0);
    int64_t *wide = malloc((n ? n : 1) * sizeof *wide);
    free(w->blocks);
    w->blocks = malloc((n ? n : 1) * sizeof *w->blocks);
    if (!wide || !w->blocks) {
        free(wide);
        free(w->blocks);
        w->blocks = NULL;
        return false;
    }
    pg_int_array(list, 0, 0, wide, n);
    for (size_t i = 0; i < n; i++)
        w->blocks[i] = (int32_t)wide[i];
    w->block_count = n;
    free(wide);
    return true;
}

/* Keeps the row as message; changes other than of the counts make a new version, too. */
static void keep_row(struct watched *w, const struct pg_result *r)
{
    struct db_batch row;
    db_batch_read(r, 0, &row);
    if (!w->version || row.cancel_requested_ms != w->row.cancel_requested_ms || row.canceled_ms != w->row.canceled_ms ||
        row.closed_ms != w->row.closed_ms || row.asked != w->row.asked || row.handled_ms != w->row.handled_ms ||
        row.device_count != w->row.device_count)
        w->version++;
    arena_reset(&w->arena);
    w->next = present_batch(&w->arena, &row, NULL);
    w->row = row;
    w->row.request_id = w->row.description = w->row.reason = w->row.supersede_key = "";
    w->row.command = w->row.request_hash = w->row.steering = (struct slice){0};
}

static void on_row(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                   size_t count)
{
    struct watched *w = arg;
    if (err != ERR_OK) {
        look_failed(w, err, error);
        return;
    }
    if (w->gone) {
        looked(w);
        return;
    }
    if (!pg_rows(results[0])) {
        struct status st = {0};
        w->polling = false;
        status_set(&st, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "there is no batch %" PRId64, w->batch);
        fail_unseen(w, &st, true);
        return;
    }
    keep_row(w, results[0]);
    if (count >= 2 ? !keep_blocks(w, results[1]) : !w->blocks) {
        look_failed(w, ERR_NOMEM, NULL);
    } else if (wants_breakdown(w)) {
        struct view_batch view = batches_view(w->tenant, &w->row);
        w->began_us = clock_mono_us();
        breakdown_run(w->watches->d, &view, on_breakdown, w);
    } else if (w->row.closed_ms) {
        uint32_t counts[STATE_COUNT];
        memcpy(counts, w->row.counts, sizeof counts);
        show(w, counts, NULL);
    } else {
        struct view_batch view = batches_view(w->tenant, &w->row);
        view_progress(w->watches->d, &view, w->blocks, w->block_count, on_progress, w);
    }
}

static void poll_batch(struct watched *w)
{
    if (w->polling) {
        w->again = true;
        return;
    }
    struct pg_txn *txn = pg_txn_new(w->watches->d->pg, PG_ANY_LANE);
    if (!txn)
        return; /* the next tick tries again */
    w->polling = true;
    db_batch_get(txn, w->tenant, w->batch);
    if (!w->blocks || w->row.dynamic) /* devices may have joined */
        db_batch_blocks(txn, w->batch);
    pg_txn_submit(txn, on_row, w);
}

static void on_timer(struct ev_loop *loop, ev_timer *t, int revents)
{
    (void)loop, (void)revents;
    struct watched *w = container_of(t, struct watched, timer);
    if (!w->polling)
        poll_batch(w);
}

/* As often as the most eager watcher wants. */
static void set_pace(struct watched *w, int64_t interval_us)
{
    double s = (double)interval_us / 1e6;
    if (ev_is_active(&w->timer) && w->timer.repeat <= s)
        return;
    w->timer.repeat = s;
    ev_timer_again(w->watches->d->loop, &w->timer);
}

void watches_event(struct watches *ws, struct slice text)
{
    char word[16], line[64];
    int64_t batch;
    snprintf(line, sizeof line, "%.*s", (int)(text.len < sizeof line ? text.len : sizeof line - 1),
             (const char *)text.data);
    if (sscanf(line, "%15s %" SCNd64, word, &batch) != 2 ||
        (strcmp(word, "closed") != 0 && strcmp(word, "canceled") != 0 && strcmp(word, "cancel") != 0 &&
         strcmp(word, "control") != 0 && strcmp(word, "steer") != 0))
        return;
    list_for_each (l, next, &ws->buckets[(uint64_t)batch % BUCKETS]) {
        struct watched *w = container_of(l, struct watched, link);
        if (w->batch == batch)
            poll_batch(w);
    }
}

void watches_end(struct watches *ws)
{
    struct status st = {0};
    status_set(&st, STATUS_UNAVAILABLE, "DRAINING", "this dispatcher is going down");
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (!list_empty(&ws->buckets[i]))
            fail_unseen(container_of(ws->buckets[i].next, struct watched, link), &st, true);
    }
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static struct watched *watched_new(struct watches *ws, int32_t tenant, int64_t batch)
{
    struct watched *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->watches = ws;
    w->tenant = tenant;
    w->batch = batch;
    list_init(&w->watchers);
    list_append(&ws->buckets[(uint64_t)batch % BUCKETS], &w->link);
    ev_init(&w->timer, on_timer);
    return w;
}

void watch_batch(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__WatchBatchRequest *in = (const Muster__V1__WatchBatchRequest *)request;
    struct dispatcher *d = service;
    struct watcher *x = request_begin(call, service, sizeof *x);
    if (!x)
        return;
    struct status st = {0};
    validate_number(&st, "batch_id", in->batch_id);
    if (in->interval_ms && (in->interval_ms < INTERVAL_MIN_MS || in->interval_ms > INTERVAL_MAX_MS))
        status_violation(&st, "interval_ms", "must be %d to %d", INTERVAL_MIN_MS, INTERVAL_MAX_MS);
    struct watched *w = find(d->watches, x->r.tenant, in->batch_id);
    if (st.code == STATUS_OK && !w && !(w = watched_new(d->watches, x->r.tenant, in->batch_id)))
        request_store_status(&st, ERR_NOMEM, NULL);
    if (st.code != STATUS_OK) {
        request_fail(&x->r, &st);
        return;
    }
    x->of = w;
    x->wishes = breakdown_wishes(in->by_platform, in->by_wave, in->latency);
    w->told[x->wishes].watchers++;
    x->interval_us = (in->interval_ms ? in->interval_ms : INTERVAL_MS) * 1000ll;
    list_append(&w->watchers, &x->link);
    d->figures.watchers++;
    grpc_call_on_drain(call, on_drain);
    set_pace(w, x->interval_us);
    poll_batch(w);
}

void watch_cancelled(struct grpc_call *call, void *service)
{
    (void)service;
    struct watcher *x = grpc_call_data(call);
    if (x)
        end(x, NULL);
}
