#include "workers/acks.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/db_ack_log.h"
#include "lib/store/db_clock.h"
#include "lib/store/live.h"
#include "proto/ack_log.h"
#include "workers/session.h"
#include "workers/session_table.h"

#define RETRY_MS 100
/* A transaction and a script cost the same whether they carry one acknowledgement or hundreds: where a crowd comes,
 * collecting goes on for some intervals more. */
#define CROWD           16
#define CROWD_INTERVALS 5

/* What came with one acknowledgement beyond the outcome. */
struct said {
    uint32_t index; /* of the acknowledgement in its flush */
    size_t result_at, result_len, information_at, information_len;
    uint8_t attempt; /* of a batch whose commands are tried again: the delivery; else 0 */
};

enum flush_phase { FLUSH_COLLECTING, FLUSH_RECORDING, FLUSH_STORING };

/* Acknowledgements on their way together. */
struct flush {
    struct list entry; /* in acks->flushes, oldest first */
    struct acks *acks;
    enum flush_phase phase;
    struct ack *v;
    uint8_t *after; /* state byte to log per acknowledgement, 0 for none; valid once recorded */
    uint32_t n, room;
    uint32_t runs_left;
    bool failed;
    bool again;     /* Redis went away while it was recorded, or one before it: those behind it wait */
    bool stretched; /* collects longer, for a crowd */
    struct buf said, said_bytes;
    struct buf entries;
    int64_t row; /* n of its row in the stream, by the last attempt; 0 before */
    int64_t begun_us, at_ms;
    struct buf barriers; /* struct barrier, called when it is durable and all before it */
    bool durable;
    bool recorded;   /* in Redis, all of it, once */
    bool unheard;    /* Redis had no such batch for some outcome: it is over, or not there yet; or is away since */
    bool stored;     /* in PostgreSQL; recorded once more after that */
    uint32_t losses; /* of Redis, known when it was recorded */
    struct ev_timer retry;
};

struct barrier {
    void (*fn)(void *arg);
    void *arg;
};

struct acks {
    struct ev_loop *loop;
    struct live *live;
    struct pg *pg;
    struct session_table *sessions;
    struct acks_options options;
    struct list flushes;
    unsigned under_way;
    struct flush *collecting;
    struct ev_timer timer;
    int64_t stream, next_row;
    uint32_t losses; /* of Redis, perhaps */
    bool opening;
    struct ev_timer open_retry;
    struct acks_stats stats;
};

static void acks_pass(struct acks *acks);
static void flush_record(struct flush *f);
static void flush_store(struct flush *f);

static struct flush *flush_new(struct acks *acks)
{
    struct flush *f = calloc(1, sizeof *f);
    if (!f) {
        log_error("out_of_memory", "where=acks");
        abort();
    }
    f->acks = acks;
    f->begun_us = clock_mono_us();
    return f;
}

static void flush_free(struct flush *f)
{
    ev_timer_stop(f->acks->loop, &f->retry);
    free(f->v);
    free(f->after);
    buf_free(&f->said);
    buf_free(&f->said_bytes);
    buf_free(&f->entries);
    buf_free(&f->barriers);
    free(f);
}

/* --- the stream --------------------------------------------------------------------------------------------------- */

static void open_stream(struct acks *acks);

static void stream_opened(void *arg, enum err err, int64_t stream)
{
    struct acks *acks = arg;
    acks->opening = false;
    if (err) {
        ev_timer_set(&acks->open_retry, RETRY_MS / 1000.0, 0); /* what ran out would come again at once */
        ev_timer_start(acks->loop, &acks->open_retry);
        return;
    }
    acks->stream = stream;
    list_for_each (e, next, &acks->flushes) {
        struct flush *f = container_of(e, struct flush, entry);
        if (f->phase == FLUSH_STORING && !f->durable) /* one that had nothing to store may wait for those before it */
            flush_store(f);
    }
}

static void open_stream(struct acks *acks)
{
    if (acks->opening)
        return;
    acks->opening = true;
    db_ack_stream_open(acks->pg, acks->options.worker, clock_wall_ms(), stream_opened, acks);
}

static void on_open_retry(struct ev_loop *loop, struct ev_timer *w, int revents)
{
    (void)revents;
    ev_timer_stop(loop, w);
    open_stream(container_of(w, struct acks, open_retry));
}

/* --- collecting --------------------------------------------------------------------------------------------------- */

static void on_timer(struct ev_loop *loop, struct ev_timer *w, int revents)
{
    struct acks *acks = container_of(w, struct acks, timer);
    const struct flush *f = acks->collecting;
    (void)revents;
    ev_timer_stop(loop, w);
    if (f && f->n >= CROWD && !f->stretched && buf_len(&f->barriers) == 0) {
        acks->collecting->stretched = true;
        ev_timer_set(w, (double)acks->options.interval_ms * (CROWD_INTERVALS - 1) / 1000, 0);
        ev_timer_start(loop, w);
        return;
    }
    acks_pass(acks);
}

struct acks *acks_new(struct ev_loop *loop, struct live *live, struct pg *pg, struct session_table *sessions,
                      const struct acks_options *options)
{
    struct acks *acks = calloc(1, sizeof *acks);
    if (!acks)
        return NULL;
    acks->loop = loop;
    acks->live = live;
    acks->pg = pg;
    acks->sessions = sessions;
    acks->options = *options;
    list_init(&acks->flushes);
    ev_timer_init(&acks->timer, on_timer, (double)options->interval_ms / 1000, 0);
    ev_timer_init(&acks->open_retry, on_open_retry, RETRY_MS / 1000.0, 0);
    open_stream(acks);
    return acks;
}

void acks_free(struct acks **acks)
{
    struct acks *a = *acks;
    if (!a)
        return;
    ev_timer_stop(a->loop, &a->timer);
    ev_timer_stop(a->loop, &a->open_retry);
    for (struct list *e; (e = list_pop(&a->flushes));)
        flush_free(container_of(e, struct flush, entry));
    if (a->collecting)
        flush_free(a->collecting);
    free(a);
    *acks = NULL;
}

const struct acks_stats *acks_stats(const struct acks *acks)
{
    return &acks->stats;
}

bool acks_full(const struct acks *acks)
{
    return acks->stats.waiting_bytes >= ACKS_BYTES_MAX;
}

static struct flush *collecting(struct acks *acks)
{
    if (!acks->collecting)
        acks->collecting = flush_new(acks);
    if (!ev_is_active(&acks->timer)) {
        ev_timer_set(&acks->timer, (double)acks->options.interval_ms / 1000, 0);
        ev_timer_start(acks->loop, &acks->timer);
    }
    return acks->collecting;
}

void acks_add(struct acks *acks, const struct ack *ack)
{
    struct flush *f = collecting(acks);
    if (f->n == f->room) {
        uint32_t room = f->room ? f->room * 2 : 256;
        struct ack *v = realloc(f->v, room * sizeof *v);
        if (!v) {
            log_error("out_of_memory", "where=acks");
            abort();
        }
        f->v = v;
        f->room = room;
    }
    f->v[f->n++] = *ack;
    acks->stats.waiting++;
    acks->stats.events[ack->event & 31]++;
    if (f->n >= ACKS_FLUSH_MAX)
        acks_pass(acks);
}

void acks_add_result(struct acks *acks, const struct ack *ack, struct slice result, struct slice information)
{
    struct flush *f = collecting(acks);
    struct said said = {f->n,
                        buf_len(&f->said_bytes),
                        result.len,
                        buf_len(&f->said_bytes) + result.len,
                        information.len,
                        ack->retried ? ack->attempts : 0};
    buf_put(&f->said_bytes, result.data, result.len);
    buf_put(&f->said_bytes, information.data, information.len);
    buf_put(&f->said, &said, sizeof said);
    acks->stats.waiting_bytes += result.len + information.len;
    if (f->said.failed || f->said_bytes.failed) {
        log_error("out_of_memory", "where=acks");
        abort();
    }
    acks_add(acks, ack);
}

static void put_barrier(struct flush *f, struct barrier b)
{
    buf_put(&f->barriers, &b, sizeof b);
    if (f->barriers.failed) {
        log_error("out_of_memory", "where=acks");
        abort();
    }
}

void acks_barrier(struct acks *acks, void (*fn)(void *arg), void *arg)
{
    put_barrier(collecting(acks), (struct barrier){fn, arg});
    acks_pass(acks);
}

/* What a device answered before Redis went away comes before what is said of the same command after: a command that was
 * executed must not be told as dropped unsent. So nothing passes one whose recording has failed. */
static bool is_recorded_again(const struct flush *f)
{
    return f->phase == FLUSH_RECORDING && f->again;
}

bool acks_push(struct acks *acks)
{
    acks_pass(acks);
    list_for_each (e, next, &acks->flushes)
        if (is_recorded_again(container_of(e, struct flush, entry)))
            return false;
    return !acks->collecting;
}

/* Sends the collected ones on their way, if there is room. */
static void acks_pass(struct acks *acks)
{
    struct flush *f = acks->collecting;
    if (!f || acks->under_way >= ACKS_FLUSHES_MAX)
        return;
    ev_timer_stop(acks->loop, &acks->timer);
    acks->collecting = NULL;
    acks->under_way++;
    acks->stats.flushes++;
    list_append(&acks->flushes, &f->entry);
    flush_record(f);
}

/* --- recording in Redis ------------------------------------------------------------------------------------------- */

/* Acknowledgements of one batch in one block; `order` says which, so that equal commands keep their order. */
struct run {
    struct flush *flush;
    uint32_t from, count;
};

struct sort_key {
    uint64_t batch, place; /* tenant << 32 | seq */
    uint32_t index;
};

static int compare_keys(const void *a, const void *b)
{
    const struct sort_key *x = a, *y = b;
    if (x->batch != y->batch)
        return x->batch < y->batch ? -1 : 1;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* Puts acknowledgements of one batch and block next to each other; what was said follows its acknowledgement. */
static void flush_sort(struct flush *f)
{
    bool sorted = true;
    for (uint32_t i = 1; i < f->n && sorted; i++)
        sorted = f->v[i - 1].batch == f->v[i].batch && f->v[i - 1].tenant == f->v[i].tenant &&
                 f->v[i - 1].seq <= f->v[i].seq;
    if (sorted)
        return;
    struct sort_key *keys = malloc(f->n * sizeof *keys);
    struct ack *v = malloc(f->n * sizeof *v);
    uint32_t *moved = malloc(f->n * sizeof *moved);
    if (!keys || !v || !moved) {
        log_error("out_of_memory", "where=acks");
        abort();
    }
    for (uint32_t i = 0; i < f->n; i++)
        keys[i] = (struct sort_key){f->v[i].batch, (uint64_t)f->v[i].tenant << 32 | f->v[i].seq, i};
    qsort(keys, f->n, sizeof *keys, compare_keys);
    for (uint32_t i = 0; i < f->n; i++) {
        v[i] = f->v[keys[i].index];
        moved[keys[i].index] = i;
    }
    struct said *said = (struct said *)(void *)f->said.data;
    for (size_t i = 0; i < buf_len(&f->said) / sizeof *said; i++)
        said[i].index = moved[said[i].index];
    free(f->v);
    free(keys);
    free(moved);
    owned(v);
    f->v = v;
    f->room = f->n;
}

static enum command_state state_of_event(uint8_t event)
{
    /* An outcome of a batch that Redis does not know any more is what it says; folding decides whether it is news. */
    enum command_state state = state_next(STATE_SENT, (enum command_event)event);
    return state_is_terminal(state) ? state : STATE_NONE;
}

/* What PostgreSQL must know of an event: outcomes, and that a command was sent. */
static uint8_t state_to_log(const struct ack *ack, uint8_t before, uint8_t after)
{
    if (state_is_terminal(state_of(after)))
        return after;
    if (ack->event == EVENT_RETRY) /* the leader waits, then releases it */
        return state_of(after) == STATE_HELD ? after : before == 0 ? state_byte(STATE_HELD, ack->attempts) : 0;
    /* It may have to be superseded; the delivery is none; and that it was sent is known there. */
    if (ack->event == EVENT_NOT_NOW && (ack->tell || state_of(before) == STATE_SENT))
        return state_of(after) == STATE_QUEUED ? after : 0;
    if (ack->event == EVENT_SEND && before == 0) /* Redis, which was lost, is filled from what is known there */
        return state_byte(STATE_SENT, ack->attempts);
    if (ack->event == EVENT_SEND)
        return state_of(after) == STATE_SENT && before != after ? after : 0;
    if (before == 0 && after == 0 && state_of_event(ack->event) != STATE_NONE)
        return state_byte(state_of_event(ack->event), ack->attempts);
    return 0;
}

static void on_retry(struct ev_loop *loop, struct ev_timer *w, int revents)
{
    struct flush *f = container_of(w, struct flush, retry);
    (void)revents;
    ev_timer_stop(loop, w);
    f->acks->stats.retries++;
    flush_record(f);
}

static void flush_retry(struct flush *f)
{
    ev_timer_init(&f->retry, on_retry, RETRY_MS / 1000.0, 0);
    ev_timer_start(f->acks->loop, &f->retry);
}

static void flush_encode(struct flush *f);
static void flush_durable(struct flush *f);

static void run_recorded(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count)
{
    struct run *run = arg;
    struct flush *f = run->flush;
    if (err)
        f->failed = true;
    f->again = f->again || err;
    for (size_t i = 0; !err && i < count; i++) {
        uint8_t *log = &f->after[run->from + i], now = state_to_log(&f->v[run->from + i], before[i], after[i]);
        *log = now ? now : *log; /* recorded again, it changes nothing any more */
        f->unheard = f->unheard || (now && !before[i] && !after[i]);
    }
    free(run);
    if (--f->runs_left > 0)
        return;
    if (f->failed && (f->stored || !f->recorded)) { /* else PostgreSQL need not wait for a Redis that is away since */
        flush_retry(f);
        return;
    }
    if (f->stored) {
        flush_durable(f);
        return;
    }
    f->acks->stats.recorded += f->n;
    f->recorded = true;
    f->unheard = f->unheard || f->failed;
    flush_encode(f);
    flush_store(f);
}

static void send_run(struct flush *f, uint32_t from, uint32_t count)
{
    struct live_event events[BLOCK_SLOTS];
    struct run *run = malloc(sizeof *run);
    if (!run) {
        log_error("out_of_memory", "where=acks");
        abort();
    }
    *run = (struct run){f, from, count};
    for (uint32_t i = 0; i < count; i++) {
        const struct ack *ack = &f->v[from + i];
        events[i] = (struct live_event){slot_of(ack->seq), ack->event, ack->attempts};
    }
    struct live_place place = {f->v[from].tenant, block_of(f->v[from].seq), f->v[from].batch};
    live_record(f->acks->live, place, events, count, run_recorded, run);
}

static bool same_run(const struct ack *a, const struct ack *b)
{
    return a->batch == b->batch && a->tenant == b->tenant && block_of(a->seq) == block_of(b->seq);
}

static bool is_behind_another(const struct flush *f)
{
    list_for_each (e, next, &f->acks->flushes) {
        const struct flush *before = container_of(e, struct flush, entry);
        if (before == f)
            return false;
        if (is_recorded_again(before))
            return true;
    }
    return false;
}

/* Recording is idempotent: after a failure, of storing too, all of it is sent again. Redis may have been lost
 * meanwhile, and what it is filled with from PostgreSQL lacks what is not stored there yet. */
static void flush_record(struct flush *f)
{
    uint32_t from = 0;
    f->phase = FLUSH_RECORDING;
    if (is_behind_another(f)) {
        f->again = true;
        flush_retry(f);
        return;
    }
    f->failed = false;
    f->losses = f->acks->losses;
    f->runs_left = 1;
    if (!f->after) {
        flush_sort(f);
        uint8_t *after = calloc(f->n ? f->n : 1, 1);
        owned(after);
        f->after = after;
        if (!after) {
            log_error("out_of_memory", "where=acks");
            abort();
        }
    }
    for (uint32_t i = 1; i <= f->n; i++)
        if (i == f->n || i - from == BLOCK_SLOTS || !same_run(&f->v[from], &f->v[i])) {
            f->runs_left++;
            send_run(f, from, i - from);
            from = i;
        }
    if (--f->runs_left == 0) { /* a barrier alone */
        flush_encode(f);
        flush_store(f);
    }
}

/* --- storing in PostgreSQL ---------------------------------------------------------------------------------------- */

static void flush_encode(struct flush *f)
{
    buf_reset(&f->entries);
    for (uint32_t i = 0, end; i < f->n; i = end) {
        uint32_t count = 0;
        for (end = i; end < f->n && f->v[end].batch == f->v[i].batch && f->v[end].tenant == f->v[i].tenant; end++)
            count += f->after[end] != 0;
        if (count == 0)
            continue;
        ack_log_put_group(&f->entries, f->v[i].batch, f->v[i].tenant, count);
        for (uint32_t k = i; k < end; k++)
            if (f->after[k])
                ack_log_put_entry(&f->entries, f->v[k].seq, f->after[k]);
    }
    if (f->entries.failed) {
        log_error("out_of_memory", "where=acks");
        abort();
    }
    if (!f->at_ms)
        f->at_ms = db_clock_ms(f->acks->options.clock);
}

static void flush_stored(void *arg, enum err err)
{
    struct flush *f = arg;
    if (err) {
        flush_retry(f);
        return;
    }
    f->acks->stats.stored += f->n;
    f->stored = true;
    if (f->n && (f->losses != f->acks->losses || f->unheard))
        flush_record(f);
    else
        flush_durable(f);
}

void acks_redis_lost(struct acks *acks)
{
    acks->losses++;
}

static void stored_only(void *arg, enum err err)
{
    (void)arg, (void)err; /* told by db_ack_flush */
}

void acks_store_only(struct acks *acks, struct slice entries)
{
    if (acks->stream)
        db_ack_flush(acks->pg, acks->stream, ++acks->next_row, clock_wall_ms(), entries, NULL, 0, stored_only, acks);
}

/* A result is kept when its outcome is the command's end, or it is tried again; NOT_NOW is none, and what came too late
 * neither. */
static bool result_counts(const struct flush *f, uint32_t index)
{
    enum command_event event = (enum command_event)f->v[index].event;
    return f->after[index] && event != EVENT_NOT_NOW && state_of(f->after[index]) == state_next(STATE_SENT, event);
}

static size_t collect_results(const struct flush *f, struct db_result *results)
{
    const struct said *said = (const struct said *)(const void *)buf_head(&f->said);
    const uint8_t *bytes = f->said_bytes.data;
    size_t n = buf_len(&f->said) / sizeof *said;
    for (size_t i = 0; i < n; i++) {
        const struct ack *ack = &f->v[said[i].index];
        results[i] =
            (struct db_result){ack->batch,
                               ack->tenant,
                               ack->seq,
                               said[i].attempt,
                               {bytes + said[i].result_at, result_counts(f, said[i].index) ? said[i].result_len : 0},
                               {bytes + said[i].information_at, said[i].information_len}};
    }
    return n;
}

static void flush_store(struct flush *f)
{
    struct acks *acks = f->acks;
    f->phase = FLUSH_STORING;
    size_t n = buf_len(&f->said) / sizeof(struct said);
    if (buf_len(&f->entries) == 0 && n == 0) {
        flush_durable(f);
        return;
    }
    if (acks->stream == 0)
        return; /* goes on when the stream is open */
    /* Each attempt is a new row, so that rows commit in the order of their numbers: a reader that has seen a row would
     * not look for an earlier one. If the attempt before was stored after all, the log says the same twice. */
    if (buf_len(&f->entries))
        f->row = ++acks->next_row;
    struct db_result *results = calloc(n ? n : 1, sizeof *results);
    if (!results) {
        log_error("out_of_memory", "where=acks");
        abort();
    }
    n = n ? collect_results(f, results) : 0;
    db_ack_flush(acks->pg, acks->stream, f->row, f->at_ms, buf_slice(&f->entries), results, n, flush_stored, f);
    free(results);
}

/* --- durable ------------------------------------------------------------------------------------------------------ */

static void tell_sessions(const struct flush *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const struct ack *ack = &f->v[i];
        if (ack->generation == 0)
            continue;
        struct session *s = session_table_still(f->acks->sessions, ack->tenant, ack->seq, ack->generation);
        if (s)
            session_durable(s, ack->batch, ack->event, ack->token);
    }
}

/* Barriers hold for everything added before: the oldest flushes first. */
static void release_barriers(struct acks *acks)
{
    while (!list_empty(&acks->flushes)) {
        struct flush *f = container_of(acks->flushes.next, struct flush, entry);
        if (!f->durable)
            return;
        list_remove(&f->entry);
        struct barrier b;
        for (; buf_len(&f->barriers) >= sizeof b; buf_consume(&f->barriers, sizeof b)) {
            memcpy(&b, buf_head(&f->barriers), sizeof b);
            b.fn(b.arg);
        }
        flush_free(f);
    }
}

static void flush_durable(struct flush *f)
{
    struct acks *acks = f->acks;
    f->durable = true;
    acks->under_way--;
    acks->stats.waiting -= f->n;
    acks->stats.waiting_bytes -= buf_len(&f->said_bytes);
    histogram_add(&acks->stats.flush_us, clock_mono_us() - f->begun_us);
    tell_sessions(f);
    release_barriers(acks);
    if (acks->collecting &&
        (acks->collecting->n >= ACKS_FLUSH_MAX || buf_len(&acks->collecting->barriers) || !ev_is_active(&acks->timer)))
        acks_pass(acks);
}
