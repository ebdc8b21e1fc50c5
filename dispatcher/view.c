#include "dispatcher/view.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/db_batch.h"
#include "lib/store/live.h"
#include "proto/ack_log.h"

struct view {
    struct dispatcher *d;
    struct view_batch batch;
    view_blocks_fn *on_blocks; /* one of these */
    view_progress_fn *on_progress;
    view_given_fn *on_given;
    void *arg;
    int32_t *blocks; /* those PostgreSQL is to be asked for */
    size_t n;
    struct buf strings; /* what Redis said, one after another, behind their lengths (u32); for view_load */
    uint32_t counts[STATE_COUNT], given;
};

static void finish(struct view *v, enum err err, struct view_block *blocks, size_t n)
{
    assert(v->on_blocks || v->on_progress || v->on_given);
    if (v->on_blocks)
        v->on_blocks(v->arg, err, blocks, n);
    else if (v->on_progress)
        v->on_progress(v->arg, err, v->counts);
    else
        v->on_given(v->arg, err, v->counts, v->given);
    buf_free(&v->strings);
    free(v->blocks);
    free(v);
}

static void count(struct view *v, const uint8_t *states, size_t n)
{
    state_count(v->counts, states, n);
    v->counts[STATE_NONE] = 0;
    if (v->on_given)
        v->given += state_count_given(states, n);
}

/* --- PostgreSQL --------------------------------------------------------------------------------------------------- */

static void fill_block(struct view_block *out, const struct db_batch_block *row)
{
    memset(out, 0, sizeof *out);
    out->block = row->block;
    out->targets = row->targets;
    for (unsigned slot = bitmap_next(&row->targets, 0); slot < BLOCK_SLOTS;
         slot = bitmap_next(&row->targets, slot + 1)) {
        size_t at = slot - row->first;
        uint8_t state = at < row->states.len ? row->states.data[at] : 0;
        out->states[slot] = state ? state : state_byte(STATE_QUEUED, 0);
        if (4 * at + 4 <= row->times.len)
            out->times[slot] = load_u32le(row->times.data + 4 * at);
    }
}

static struct view_block *find(struct view_block *blocks, size_t n, uint32_t block)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (blocks[mid].block < block)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && blocks[low].block == block ? &blocks[low] : NULL;
}

void view_log_entry(uint8_t *state, uint32_t *time, uint8_t logged, int64_t at_ms, int64_t created_ms)
{
    if (state_is_terminal(state_of(*state)))
        return;
    *state = state_merge(*state, logged);
    *time = block_time_since(created_ms, at_ms);
}

static void apply_log(const struct view *v, struct view_block *blocks, size_t n, const struct pg_result *log)
{
    for (int row = 0; row < pg_rows(log); row++) {
        int64_t at_ms = pg_int(log, row, 0);
        struct slice entries = pg_bytes(log, row, 1);
        struct ack_log_group g;
        while (ack_log_next(&entries, &g) == 1) {
            if (g.batch != (uint64_t)v->batch.id)
                continue;
            for (uint32_t i = 0; i < g.count; i++) {
                uint32_t seq = ack_log_seq(&g, i);
                struct view_block *b = find(blocks, n, block_of(seq));
                if (b && bitmap_test(&b->targets, slot_of(seq)))
                    view_log_entry(&b->states[slot_of(seq)], &b->times[slot_of(seq)], ack_log_state(&g, i), at_ms,
                                   v->batch.created_ms);
            }
        }
    }
}

/* Strings stand in the order of the blocks asked for; empty ones are where Redis has none. */
static void apply_strings(const struct view *v, struct view_block *blocks, size_t n)
{
    struct slice rest = buf_slice(&v->strings), bytes;
    uint32_t len;
    for (size_t i = 0; i < v->n && slice_u32le(&rest, &len) && slice_bytes(&rest, len, &bytes); i++) {
        struct state_string s;
        struct view_block *b = find(blocks, n, (uint32_t)v->blocks[i]);
        if (!b || !state_string_parse(&s, bytes))
            continue;
        for (unsigned slot = s.first; slot < (unsigned)s.first + s.count; slot++) {
            uint8_t state = state_string_get(&s, slot);
            if (state && bitmap_test(&b->targets, slot))
                b->states[slot] = state_merge(b->states[slot], state);
        }
    }
}

/* Redis may not know yet, or not at all, that it is held. */
static void show_held(struct view_block *blocks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
            if (state_of(blocks[i].states[slot]) == STATE_QUEUED)
                blocks[i].states[slot] = state_byte(STATE_HELD, state_attempts(blocks[i].states[slot]));
}

static size_t read_blocks(struct view_block *blocks, const struct pg_result *r)
{
    size_t n = 0;
    struct db_batch_block row;
    for (int i = 0; i < pg_rows(r); i++)
        if (db_batch_block_read(r, i, &row))
            fill_block(&blocks[n++], &row);
    return n;
}

static void on_rows(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t result_count)
{
    (void)error, (void)result_count;
    struct view *v = arg;
    if (err != ERR_OK) {
        finish(v, err == ERR_INVALID ? ERR_UNAVAILABLE : err, NULL, 0);
        return;
    }
    size_t rows = (size_t)pg_rows(results[1]);
    struct view_block *blocks = malloc((rows ? rows : 1) * sizeof *blocks);
    if (!blocks) {
        finish(v, ERR_NOMEM, NULL, 0);
        return;
    }
    size_t n = read_blocks(blocks, results[1]);
    apply_log(v, blocks, n, results[0]);
    apply_strings(v, blocks, n);
    if (v->batch.held)
        show_held(blocks, n);
    for (size_t i = 0; !v->on_blocks && i < n; i++)
        count(v, blocks[i].states, BLOCK_SLOTS);
    finish(v, ERR_OK, blocks, n);
    free(blocks);
}

static void ask_postgres(struct view *v)
{
    struct pg_txn *txn = pg_txn_new(v->d->pg, PG_ANY_LANE);
    if (!txn) {
        finish(v, ERR_NOMEM, NULL, 0);
        return;
    }
    db_batch_log(txn, v->batch.id);
    db_batch_states(txn, v->batch.id, v->blocks, v->n);
    pg_txn_submit(txn, on_rows, v);
}

/* --- Redis -------------------------------------------------------------------------------------------------------- */

/* Counts what is there; what is not there stays in v->blocks. */
static void count_strings(struct view *v, const struct slice *states, size_t n)
{
    size_t missing = 0;
    for (size_t i = 0; i < v->n; i++) {
        struct state_string s;
        if (i < n && state_string_parse(&s, states[i]))
            count(v, s.states, s.count);
        else
            v->blocks[missing++] = v->blocks[i];
    }
    v->n = missing;
}

static void on_strings(void *arg, enum err err, const struct slice *states, size_t n)
{
    struct view *v = arg;
    if (err != ERR_OK)
        n = 0;
    if (!v->on_blocks) {
        count_strings(v, states, n);
        if (!v->n) {
            finish(v, ERR_OK, NULL, 0);
            return;
        }
    }
    for (size_t i = 0; v->on_blocks && i < n; i++) {
        buf_put_u32le(&v->strings, (uint32_t)states[i].len);
        buf_put(&v->strings, states[i].data, states[i].len);
    }
    if (v->strings.failed)
        finish(v, ERR_NOMEM, NULL, 0);
    else
        ask_postgres(v);
}

static bool ask_redis(struct view *v)
{
    uint32_t *blocks = malloc((v->n ? v->n : 1) * sizeof *blocks);
    if (!blocks)
        return false;
    for (size_t i = 0; i < v->n; i++)
        blocks[i] = (uint32_t)v->blocks[i];
    live_states(v->d->live, (uint32_t)v->batch.tenant, (uint64_t)v->batch.id, blocks, v->n, on_strings, v);
    free(blocks);
    return true;
}

static void start(struct view *v, const int32_t *blocks, size_t n)
{
    v->blocks = malloc((n ? n : 1) * sizeof *blocks);
    if (!v->blocks) {
        finish(v, ERR_NOMEM, NULL, 0);
        return;
    }
    if (n)
        memcpy(v->blocks, blocks, n * sizeof *blocks);
    v->n = n;
    if (!v->batch.routed || !live_up(v->d->live) || !n)
        ask_postgres(v);
    else if (!ask_redis(v))
        finish(v, ERR_NOMEM, NULL, 0);
}

void view_load(struct dispatcher *d, const struct view_batch *batch, const int32_t *blocks, size_t n,
               view_blocks_fn *done, void *arg)
{
    struct view *v = calloc(1, sizeof *v);
    if (!v) {
        done(arg, ERR_NOMEM, NULL, 0);
        return;
    }
    *v = (struct view){.d = d, .batch = *batch, .on_blocks = done, .arg = arg};
    start(v, blocks, n);
}

void view_progress(struct dispatcher *d, const struct view_batch *batch, const int32_t *blocks, size_t n,
                   view_progress_fn *done, void *arg)
{
    struct view *v = calloc(1, sizeof *v);
    if (!v) {
        done(arg, ERR_NOMEM, (const uint32_t[STATE_COUNT]){0});
        return;
    }
    *v = (struct view){.d = d, .batch = *batch, .on_progress = done, .arg = arg};
    d->figures.progress_polls++;
    start(v, blocks, n);
}

void view_given(struct dispatcher *d, const struct view_batch *batch, const int32_t *blocks, size_t n,
                view_given_fn *done, void *arg)
{
    struct view *v = calloc(1, sizeof *v);
    if (!v) {
        done(arg, ERR_NOMEM, (const uint32_t[STATE_COUNT]){0}, 0);
        return;
    }
    *v = (struct view){.d = d, .batch = *batch, .on_given = done, .arg = arg};
    d->figures.progress_polls++;
    start(v, blocks, n);
}
