#include "dispatcher/leader_write.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dispatcher/control.h"
#include "dispatcher/joiner.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_control.h"
#include "lib/store/db_gate.h"
#include "lib/store/db_open.h"
#include "lib/store/db_supersede.h"

#define FORGET_STREAMS 1024
#define STREAM_LIFE_MS (24ll * 3600 * 1000) /* a stream without rows is forgotten after so long */

struct writer {
    struct reign *reign;
    bool under_way, forget_streams;
    int64_t last_us, routed_us;
    int64_t pace_us;            /* from the last write to the next */
    uint64_t own_stream, own_n; /* of the log written anew; 0: none yet */
    ev_timer pace;
};

/* What one write holds, until it is committed. */
struct write_job {
    struct reign *reign;
    struct open_block *blocks[WRITE_BLOCKS];
    struct open_batch *closed[WRITE_BATCHES], *routed[WRITE_BATCHES];
    uint64_t canceled[WRITE_BATCHES], handled[WRITE_BATCHES];
    size_t block_count, closed_count, routed_count, canceled_count, handled_count;
    bool new_stream;
    bool anything;
};

static void pace_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    write_pump(container_of(t, struct writer, pace)->reign);
}

struct writer *writer_new(struct reign *r)
{
    struct writer *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->reign = r;
    w->pace_us = WRITE_PACE_MS * 1000;
    ev_timer_init(&w->pace, pace_timer, WRITE_PACE_MS / 1000., 0);
    return w;
}

void writer_free(struct writer **w)
{
    if (!*w)
        return;
    ev_timer_stop((*w)->reign->loop, &(*w)->pace);
    free(*w);
    *w = NULL;
}

void write_canceled(struct reign *r, struct open_batch *batch)
{
    buf_put_u64le(&r->canceled, batch->id);
    write_pump(r);
}

void write_handled(struct reign *r, uint64_t batch, int32_t request)
{
    buf_put_u64le(&r->handled, batch);
    buf_put_u32le(&r->handled, (uint32_t)request);
    write_pump(r);
}

void write_gate_settled(struct reign *r, int32_t tenant, int64_t number)
{
    buf_put_u32le(&r->settled, (uint32_t)tenant);
    buf_put_u64le(&r->settled, (uint64_t)number);
    write_pump(r);
}

void write_undeleted(struct reign *r, uint32_t tenant, uint32_t seq)
{
    buf_put_u32le(&r->undeleted, tenant);
    buf_put_u32le(&r->undeleted, seq);
}

void write_forget_streams(struct reign *r)
{
    r->writer->forget_streams = true;
}

/* --- making a write ---------------------------------------------------------------------------------------------- */
static void put_blocks(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    int64_t batches[WRITE_BLOCKS];
    int32_t blocks[WRITE_BLOCKS];
    struct slice states[WRITE_BLOCKS], times[WRITE_BLOCKS];
    struct open_block *b;
    size_t n = 0;
    while (n < WRITE_BLOCKS && (b = fold_next(&r->log))) {
        batches[n] = (int64_t)b->batch->id;
        blocks[n] = (int32_t)b->block;
        states[n] = open_block_states(b);
        times[n] = open_block_times(b);
        job->blocks[n++] = b;
        reign_busy(b->batch);
        r->figures->folded_blocks++;
        r->figures->folded_entries += b->dirty;
    }
    job->block_count = n;
    if (!n)
        return;
    db_open_fold(txn, batches, blocks, states, times, n); /* copies */
    for (size_t i = 0; i < n; i++)
        fold_stored(&r->log, job->blocks[i]);
    job->anything = true;
}

static void put_closed(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    int64_t ids[WRITE_BATCHES], keyed[WRITE_BATCHES], steered[WRITE_BATCHES];
    size_t n = 0, keyed_count = 0, steered_count = 0;
    if (list_empty(&r->closing))
        return;
    int32_t *counts = malloc(WRITE_BATCHES * STATE_COUNT * sizeof *counts);
    if (!counts)
        abort();
    while (n < WRITE_BATCHES && !list_empty(&r->closing)) {
        struct open_batch *batch = container_of(list_pop(&r->closing), struct open_batch, work);
        for (int s = 0; s < STATE_COUNT; s++)
            counts[n * STATE_COUNT + (size_t)s] = (int32_t)batch->counts[s];
        ids[n] = (int64_t)batch->id;
        if (batch->keyed)
            keyed[keyed_count++] = ids[n];
        if (batch->control)
            steered[steered_count++] = ids[n];
        job->closed[n++] = batch;
    }
    if (keyed_count)
        db_supersede_closed(txn, keyed, keyed_count);
    if (steered_count)
        db_control_closed(txn, steered, steered_count);
    db_open_closed(txn, ids, counts, n, db_clock_ms(r->clock));
    size_t rollouts = 0;
    for (size_t i = 0; i < n; i++)
        if (job->closed[i]->keep_cells)
            ids[rollouts++] = ids[i];
    if (rollouts)
        db_control_forget(txn, ids, rollouts);
    free(counts);
    job->closed_count = n;
    job->anything = true;
}

static void put_routed(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    int64_t ids[WRITE_BATCHES];
    size_t n = 0;
    if (list_empty(&r->handed) || clock_mono_us() - r->writer->routed_us < WRITE_ROUTED_MS * 1000)
        return;
    r->writer->routed_us = clock_mono_us();
    while (n < WRITE_BATCHES && !list_empty(&r->handed)) {
        struct open_batch *batch = container_of(list_pop(&r->handed), struct open_batch, work);
        ids[n] = (int64_t)batch->id;
        job->routed[n++] = batch;
        reign_busy(batch);
    }
    db_open_routed(txn, ids, n, db_clock_ms(r->clock));
    job->routed_count = n;
    job->anything = true;
}

/* Only what all due blocks go with, or went before. */
static void put_canceled(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    size_t n = buf_len(&r->canceled) / 8;
    if (n > WRITE_BATCHES)
        n = WRITE_BATCHES;
    if (!n || !list_empty(&r->log.due))
        return;
    int64_t ids[WRITE_BATCHES];
    for (size_t i = 0; i < n; i++) {
        job->canceled[i] = load_u64le(buf_head(&r->canceled) + i * 8);
        ids[i] = (int64_t)job->canceled[i];
    }
    buf_consume(&r->canceled, n * 8);
    db_open_canceled(txn, ids, n, db_clock_ms(r->clock));
    job->canceled_count = n;
    job->anything = true;
}

/* The same; what it does not take at once it takes with the next write. */
static void put_handled(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    int64_t ids[WRITE_BATCHES];
    int32_t requests[WRITE_BATCHES];
    size_t n = buf_len(&r->handled) / 12;
    if (n > WRITE_BATCHES)
        n = WRITE_BATCHES;
    if (!n || !list_empty(&r->log.due))
        return;
    for (size_t i = 0; i < n; i++) {
        job->handled[i] = load_u64le(buf_head(&r->handled) + i * 12);
        ids[i] = (int64_t)job->handled[i];
        requests[i] = (int32_t)load_u32le(buf_head(&r->handled) + i * 12 + 8);
    }
    buf_consume(&r->handled, n * 12);
    db_control_handled(txn, ids, requests, n, db_clock_ms(r->clock));
    job->handled_count = n;
    job->anything = true;
}

static void put_settled(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    int32_t tenants[WRITE_BATCHES];
    int64_t numbers[WRITE_BATCHES];
    size_t n = buf_len(&r->settled) / 12;
    if (n > WRITE_BATCHES)
        n = WRITE_BATCHES;
    if (!n)
        return;
    for (size_t i = 0; i < n; i++) {
        tenants[i] = (int32_t)load_u32le(buf_head(&r->settled) + i * 12);
        numbers[i] = (int64_t)load_u64le(buf_head(&r->settled) + i * 12 + 4);
    }
    buf_consume(&r->settled, n * 12);
    db_gate_settle(txn, tenants, numbers, n);
    job->anything = true;
}

static void put_undeleted(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    size_t n = buf_len(&r->undeleted) / 8;
    if (n > WRITE_BATCHES)
        n = WRITE_BATCHES;
    if (!n || !list_empty(&r->log.due))
        return;
    int32_t tenants[WRITE_BATCHES], seqs[WRITE_BATCHES];
    for (size_t i = 0; i < n; i++) {
        tenants[i] = (int32_t)load_u32le(buf_head(&r->undeleted) + i * 8);
        seqs[i] = (int32_t)load_u32le(buf_head(&r->undeleted) + i * 8 + 4);
    }
    buf_consume(&r->undeleted, n * 8);
    db_open_forget_deleted(txn, tenants, seqs, n);
    job->anything = true;
}

static void put_forget(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    int64_t streams[FORGET_STREAMS], ns[FORGET_STREAMS];
    size_t n = fold_forget(&r->log, streams, ns, FORGET_STREAMS);
    if (n) {
        db_open_forget_log(txn, streams, ns, n);
        job->anything = true;
    }
    if (r->writer->forget_streams) {
        r->writer->forget_streams = false;
        db_open_forget_streams(txn, db_clock_ms(r->clock) - STREAM_LIFE_MS);
        job->anything = true;
    }
}

struct anew {
    struct buf at_ms, lengths, bytes;
};

static void keep_anew(void *arg, int64_t at_ms, struct slice entries)
{
    struct anew *a = arg;
    buf_put(&a->at_ms, &at_ms, sizeof at_ms);
    buf_put(&a->lengths, &entries.len, sizeof entries.len);
    buf_put(&a->bytes, entries.data, entries.len);
}

/* Writes the log anew, when it is worth it and nothing of it is in another state meanwhile. */
static void put_compacted(struct reign *r, struct write_job *job, struct pg_txn *txn)
{
    struct writer *w = r->writer;
    struct anew a = {{0}, {0}, {0}};
    if (!r->loaded || !list_empty(&r->log.due) || !fold_compact_pays(&r->log))
        return;
    job->anything = true;
    if (!w->own_stream) {
        job->new_stream = true;
        db_open_new_stream(txn, r->fence.holder, db_clock_ms(r->clock));
        return;
    }
    uint64_t rows = r->log.rows;
    if (!fold_compact(&r->log, w->own_stream, w->own_n + 1, keep_anew, &a) || a.at_ms.failed || a.bytes.failed)
        abort();
    size_t n = buf_len(&a.lengths) / sizeof(size_t), at = 0;
    struct slice *entries = malloc((n + 1) * sizeof *entries);
    if (!entries)
        abort();
    for (size_t i = 0; i < n; i++) {
        size_t len;
        memcpy(&len, buf_head(&a.lengths) + i * sizeof len, sizeof len);
        entries[i] = (struct slice){buf_slice(&a.bytes).data + at, len};
        at += len;
    }
    if (n)
        db_open_append(txn, w->own_stream, w->own_n + 1, (int64_t *)(void *)buf_head(&a.at_ms), entries, n);
    w->own_n += n;
    put_forget(r, job, txn);
    log_info("log_compacted", "rows=%" PRIu64 " into=%zu entries=%" PRIu64, rows, n, r->log.live);
    free(entries);
    buf_free(&a.at_ms);
    buf_free(&a.lengths);
    buf_free(&a.bytes);
}

/* --- what is committed ------------------------------------------------------------------------------------------- */
static void publish(struct reign *r, const char *what, uint64_t batch)
{
    char text[48];
    snprintf(text, sizeof text, "%s %" PRIu64, what, batch);
    live_publish(r->live, text);
}

static void stored(struct reign *r, struct open_block *b)
{
    if (!b->remaining && !b->dirty && !b->settled && !b->batch->growing)
        open_block_settle(b);
    reign_idle(r, b->batch);
}

static void committed(struct reign *r, struct write_job *job)
{
    for (size_t i = 0; i < job->canceled_count; i++) {
        struct open_batch *batch = open_set_find(&r->set, job->canceled[i]);
        if (batch) {
            batch->canceled = batch->routed = true;
            r->figures->canceled_batches++;
            publish(r, "canceled", batch->id);
            reign_idle(r, batch);
        }
    }
    for (size_t i = 0; i < job->handled_count; i++)
        publish(r, "control", job->handled[i]);
    for (size_t i = 0; i < job->routed_count; i++) {
        job->routed[i]->routed = true;
        reign_idle(r, job->routed[i]);
    }
    for (size_t i = 0; i < job->block_count; i++)
        stored(r, job->blocks[i]);
    for (size_t i = 0; i < job->closed_count; i++) {
        publish(r, "closed", job->closed[i]->id);
        r->figures->closed_batches++;
        control_gone(r, job->closed[i]);
        joiner_gone(r, job->closed[i]);
        open_set_remove(&r->set, job->closed[i]);
    }
}

static void written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct write_job *job = arg;
    struct reign *r = job->reign;
    if (!reign_back(r)) {
        free(job);
        return;
    }
    r->writer->under_way = false;
    if (err) {
        if (!db_lease_fenced(err, error))
            log_error("leader_write_failed", "err=%s sqlstate=%s message=%s", err_name(err),
                      error ? error->sqlstate : "", log_quote(error ? error->message : ""));
        reign_fail(r, db_lease_fenced(err, error) ? "fenced" : "write", err);
    } else {
        if (job->new_stream)
            r->writer->own_stream = (uint64_t)pg_int(results[count - 1], 0, 0); /* the last statement */
        committed(r, job);
        write_pump(r);
    }
    free(job);
}

static bool anything(const struct reign *r)
{
    return !list_empty(&r->log.due) || !list_empty(&r->closing) || buf_len(&r->canceled) || buf_len(&r->undeleted) ||
           buf_len(&r->handled) || buf_len(&r->settled) || r->log.forgettable || r->writer->forget_streams ||
           (!list_empty(&r->handed) && clock_mono_us() - r->writer->routed_us >= WRITE_ROUTED_MS * 1000) ||
           (r->loaded && fold_compact_pays(&r->log));
}

/* Whether a write is worth its commit already. */
static bool large(const struct reign *r)
{
    unsigned n = 0;
    for (const struct list *l = r->log.due.next; l != &r->log.due && n < WRITE_LARGE; l = l->next)
        n++;
    if (n < WRITE_LARGE && !list_empty(&r->closing))
        n = container_of(r->closing.prev, struct open_batch, work)->block_count;
    return n >= WRITE_LARGE;
}

/* A write begins: the next may come the later, the sooner this one came after the last. */
static void begin_pace(struct writer *w, int64_t now_us)
{
    bool at_once = now_us - w->last_us < 2 * w->pace_us;
    w->pace_us = at_once ? reign_longer(w->pace_us, WRITE_PACE_LONG_MS) : WRITE_PACE_MS * 1000;
    w->last_us = now_us;
}

void write_pump(struct reign *r)
{
    struct writer *w = r->writer;
    if (w->under_way || r->failed || !anything(r))
        return;
    int64_t wait_us = w->last_us + w->pace_us - clock_mono_us();
    if (wait_us > 0 && !large(r)) {
        if (ev_is_active(&w->pace))
            return;
        ev_timer_set(&w->pace, (double)wait_us / 1e6, 0);
        ev_timer_start(r->loop, &w->pace);
        return;
    }
    struct write_job *job = calloc(1, sizeof *job);
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (!job || !txn)
        abort();
    db_lease_fence(txn, &r->fence);
    put_blocks(r, job, txn);
    put_canceled(r, job, txn);
    put_handled(r, job, txn);
    put_settled(r, job, txn);
    put_undeleted(r, job, txn);
    put_routed(r, job, txn);
    put_closed(r, job, txn);
    put_forget(r, job, txn);
    put_compacted(r, job, txn);
    if (!job->anything) {
        pg_txn_free(&txn);
        free(job);
        return;
    }
    ev_timer_stop(r->loop, &w->pace);
    w->under_way = true;
    begin_pace(w, clock_mono_us());
    job->reign = reign_hold(r);
    pg_txn_submit(txn, written, job);
}
