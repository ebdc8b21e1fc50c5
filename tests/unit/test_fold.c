/* Folding the log, against a model of the two tables: whatever is decided, blocks and log together never say less than
 * the log ever said, and a leader that begins anew from them sees the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dispatcher/fold.h"
#include "proto/ack_log.h"

#define BATCHES 4
#define BLOCKS  3
#define SLOTS   64
#define STREAMS 3
#define ROWS    4000
#define TENANT  7

struct row {
    uint64_t stream, n;
    int64_t at_ms;
    uint8_t *entries;
    size_t len;
};

/* The tables, and the leader. */
struct world {
    uint8_t states[BATCHES][BLOCKS][SLOTS]; /* 0: the column is NULL */
    uint8_t times[BATCHES][BLOCKS][SLOTS * 4];
    bool stored[BATCHES][BLOCKS];
    uint8_t truth[BATCHES][BLOCKS][SLOTS]; /* what all rows ever said, joined in the order they were read */
    struct row rows[ROWS];
    size_t row_count;
    uint64_t last_n[STREAMS + 1]; /* the last stream is the leader's own */
    int64_t now;
    struct open_set set;
    struct fold_log log;
};

static void begin(struct world *w)
{
    uint8_t all[SLOTS / 8];
    memset(all, 0xff, sizeof all);
    open_set_init(&w->set);
    fold_init(&w->log);
    for (unsigned i = 0; i < BATCHES; i++) {
        struct open_batch *batch = open_set_add(&w->set, i + 1, BLOCKS, BLOCKS * SLOTS / 8);
        batch->tenant = TENANT;
        batch->created_ms = 1000;
        for (unsigned k = 0; k < BLOCKS; k++) {
            struct slice states = {w->states[i][k], w->stored[i][k] ? SLOTS : 0};
            assert_true(open_batch_put(&w->set, batch, k, 0, (struct slice){all, sizeof all}, states));
            if (w->stored[i][k])
                open_block_put_times(&batch->blocks[k], (struct slice){w->times[i][k], SLOTS * 4});
        }
    }
}

static void end(struct world *w)
{
    fold_free(&w->log);
    open_set_free(&w->set);
}

static void add_row(struct world *w, uint64_t stream, int64_t at_ms, struct slice entries)
{
    assert_true(w->row_count < ROWS);
    struct row *row = &w->rows[w->row_count++];
    *row = (struct row){stream, ++w->last_n[stream], at_ms, malloc(entries.len + 1), entries.len};
    assert_non_null(row->entries);
    memcpy(row->entries, entries.data, entries.len);
}

/* A flush of a worker: some random entries. Redis sees to it that a command has one outcome only. */
static void flush(struct world *w, unsigned *seed)
{
    static const enum command_state states[] = {STATE_SENT, STATE_QUEUED};
    struct buf b = {0};
    unsigned groups = (unsigned)rand_r(seed) % 3 + 1;
    for (unsigned g = 0; g < groups; g++) {
        unsigned n = (unsigned)rand_r(seed) % 20;
        uint64_t batch = (uint64_t)rand_r(seed) % (BATCHES + 1) + 1; /* the last one is nobody's */
        ack_log_put_group(&b, batch, TENANT, n);
        for (unsigned i = 0; i < n; i++) {
            uint32_t seq = block_seq((unsigned)rand_r(seed) % (BLOCKS + 1), (unsigned)rand_r(seed) % (SLOTS + 1));
            enum command_state outcome = seq % 2 ? STATE_SUCCEEDED : STATE_FAILED, state = outcome;
            if (rand_r(seed) % 2)
                state = states[rand_r(seed) % 2];
            ack_log_put_entry(&b, seq, state_byte(state, (unsigned)rand_r(seed) % 4));
        }
    }
    add_row(w, (uint64_t)rand_r(seed) % STREAMS, w->now, buf_slice(&b));
    buf_free(&b);
}

/* Reads what is new, as the poll does: stream by stream, in order. */
static void read_log(struct world *w)
{
    for (uint64_t stream = 0; stream <= STREAMS; stream++)
        for (size_t i = 0; i < w->row_count; i++)
            if (w->rows[i].stream == stream)
                assert_true(fold_take(&w->log, &w->set, stream, w->rows[i].n, w->rows[i].at_ms,
                                      (struct slice){w->rows[i].entries, w->rows[i].len}, w->now));
}

static void remember_truth(struct world *w)
{
    for (unsigned i = 0; i < BATCHES; i++)
        for (unsigned k = 0; k < BLOCKS; k++)
            for (unsigned slot = 0; slot < SLOTS; slot++) {
                struct open_block *b = &open_set_find(&w->set, i + 1)->blocks[k];
                w->truth[i][k][slot] = b->settled ? w->states[i][k][slot] : open_block_state(b, slot);
            }
}

static void check_truth(struct world *w)
{
    for (unsigned i = 0; i < BATCHES; i++)
        for (unsigned k = 0; k < BLOCKS; k++)
            for (unsigned slot = 0; slot < SLOTS; slot++) {
                struct open_block *b = &open_set_find(&w->set, i + 1)->blocks[k];
                uint8_t got = b->settled ? w->states[i][k][slot] : open_block_state(b, slot);
                uint8_t want = w->truth[i][k][slot];
                assert_int_equal(state_attempts(got), state_attempts(want));
                if (state_is_terminal(state_of(want)))
                    assert_int_equal(got, want);
            }
}

static void forget(struct world *w)
{
    int64_t streams[8], ns[8];
    size_t n = fold_forget(&w->log, streams, ns, 8);
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < w->row_count;)
            if (w->rows[i].stream == (uint64_t)streams[k] && w->rows[i].n <= (uint64_t)ns[k]) {
                free(w->rows[i].entries);
                memmove(&w->rows[i], &w->rows[i + 1], (--w->row_count - i) * sizeof w->rows[0]);
            } else {
                i++;
            }
}

/* One transaction: blocks that are due, and the rows they make superfluous. */
static void write_due(struct world *w)
{
    struct open_block *b;
    while ((b = fold_next(&w->log))) {
        unsigned i = (unsigned)b->batch->id - 1, k = b->block;
        memcpy(w->states[i][k], open_block_states(b).data, SLOTS);
        memcpy(w->times[i][k], open_block_times(b).data, SLOTS * 4);
        w->stored[i][k] = true;
        fold_stored(&w->log, b);
        if (!b->remaining)
            open_block_settle(b);
    }
    forget(w);
}

static void put_anew(void *arg, int64_t at_ms, struct slice entries)
{
    add_row(arg, STREAMS, at_ms, entries);
}

static void write_anew(struct world *w)
{
    assert_true(fold_compact(&w->log, STREAMS, w->last_n[STREAMS] + 1, put_anew, w));
    forget(w);
}

static void nothing_is_lost_whenever_a_leader_begins_anew(void **unused)
{
    (void)unused;
    for (unsigned seed = 1; seed <= 40; seed++) {
        struct world *w = calloc(1, sizeof *w);
        assert_non_null(w);
        unsigned r = seed;
        w->now = 1000;
        begin(w);
        for (int step = 0; step < 300; step++) {
            w->now += rand_r(&r) % 1500;
            flush(w, &r);
            if (rand_r(&r) % 3 == 0)
                read_log(w);
            fold_age(&w->log, w->now);
            switch (rand_r(&r) % 12) {
            case 0: /* another leader */
                read_log(w);
                remember_truth(w);
                end(w);
                begin(w);
                read_log(w);
                check_truth(w);
                break;
            case 1:
                if (list_empty(&w->log.due))
                    write_anew(w);
                break;
            default:
                remember_truth(w);
                write_due(w);
                check_truth(w);
            }
        }
        read_log(w);
        remember_truth(w);
        end(w);
        begin(w);
        read_log(w);
        check_truth(w);
        end(w);
        for (size_t i = 0; i < w->row_count; i++)
            free(w->rows[i].entries);
        free(w);
    }
}

static struct slice one(struct buf *b, uint64_t batch, uint32_t seq, enum command_state state)
{
    buf_reset(b);
    ack_log_put_group(b, batch, TENANT, 1);
    ack_log_put_entry(b, seq, state_byte(state, 1));
    return buf_slice(b);
}

static void a_complete_block_is_due_at_once_and_others_when_it_pays(void **unused)
{
    (void)unused;
    struct world *w = calloc(1, sizeof *w);
    struct buf b = {0};
    uint64_t n = 0;
    begin(w);
    for (unsigned slot = 0; slot + 1 < SLOTS; slot++)
        assert_true(fold_take(&w->log, &w->set, 1, ++n, 2000, one(&b, 1, slot, STATE_SUCCEEDED), 2000));
    assert_true(list_empty(&w->log.due));
    assert_int_equal(w->log.live, SLOTS - 1);
    fold_age(&w->log, 2000 + FOLD_QUIET_MS);
    assert_null(fold_next(&w->log)); /* one too few */
    assert_true(fold_take(&w->log, &w->set, 1, ++n, 9000, one(&b, 1, SLOTS - 1, STATE_FAILED), 9000));
    struct open_block *due = fold_next(&w->log);
    assert_ptr_equal(due, &open_set_find(&w->set, 1)->blocks[0]);
    fold_stored(&w->log, due);
    int64_t stream, upto;
    assert_int_equal(fold_forget(&w->log, &stream, &upto, 1), 1);
    assert_int_equal(stream, 1);
    assert_int_equal(upto, SLOTS);
    assert_int_equal(w->log.rows, 0);
    assert_int_equal(w->log.bytes, 0);
    buf_free(&b);
    end(w);
    free(w);
}

static void a_row_goes_only_when_nothing_before_it_waits(void **unused)
{
    (void)unused;
    struct world *w = calloc(1, sizeof *w);
    struct buf b = {0};
    int64_t stream, upto;
    begin(w);
    fold_take(&w->log, &w->set, 1, 1, 2000, one(&b, 1, 5, STATE_SUCCEEDED), 2000);
    fold_take(&w->log, &w->set, 1, 2, 2000, one(&b, 99, 5, STATE_SUCCEEDED), 2000);
    fold_take(&w->log, &w->set, 1, 3, 2000, one(&b, 1, 5, STATE_FAILED),
              2000); /* says nothing new, but is not stored */
    assert_int_equal(fold_forget(&w->log, &stream, &upto, 1), 0);
    assert_int_equal(w->log.live, 2);
    fold_stored(&w->log, &open_set_find(&w->set, 1)->blocks[0]);
    assert_int_equal(fold_forget(&w->log, &stream, &upto, 1), 1);
    assert_int_equal(upto, 3);
    fold_take(&w->log, &w->set, 1, 2, 2000, one(&b, 1, 6, STATE_SUCCEEDED), 2000); /* read before */
    assert_int_equal(open_block_state(&open_set_find(&w->set, 1)->blocks[0], 6), state_byte(STATE_QUEUED, 0));
    buf_free(&b);
    end(w);
    free(w);
}

static void malformed_rows_count_as_far_as_they_can_be_read(void **unused)
{
    (void)unused;
    struct world *w = calloc(1, sizeof *w);
    struct buf b = {0};
    begin(w);
    one(&b, 1, 5, STATE_SUCCEEDED);
    buf_put_str(&b, "rubbish");
    assert_false(fold_take(&w->log, &w->set, 1, 1, 2000, buf_slice(&b), 2000));
    assert_int_equal(open_block_state(&open_set_find(&w->set, 1)->blocks[0], 5), state_byte(STATE_SUCCEEDED, 1));
    one(&b, 1, 6, STATE_SUCCEEDED);
    store_u32le(buf_head(&b) + 8, TENANT + 1); /* another tenant's batch */
    assert_true(fold_take(&w->log, &w->set, 1, 2, 2000, buf_slice(&b), 2000));
    assert_int_equal(open_block_state(&open_set_find(&w->set, 1)->blocks[0], 6), state_byte(STATE_QUEUED, 0));
    buf_free(&b);
    end(w);
    free(w);
}

static void unknown_batches_are_named_until_known_as_closed(void **unused)
{
    (void)unused;
    struct world *w = calloc(1, sizeof *w);
    struct buf b = {0}, ids = {0};
    begin(w);
    fold_unknown(&w->set, one(&b, 1, 5, STATE_SUCCEEDED), &ids);
    assert_int_equal(buf_len(&ids), 0);
    fold_unknown(&w->set, one(&b, 50, 5, STATE_SUCCEEDED), &ids);
    assert_int_equal(buf_len(&ids), 8);
    assert_int_equal(load_u64le(buf_head(&ids)), 50);
    open_set_note_closed(&w->set, 50);
    buf_reset(&ids);
    fold_unknown(&w->set, one(&b, 50, 5, STATE_SUCCEEDED), &ids);
    assert_int_equal(buf_len(&ids), 0);
    buf_free(&b);
    buf_free(&ids);
    end(w);
    free(w);
}

static void writing_anew_pays_when_little_of_much_is_alive(void **unused)
{
    (void)unused;
    struct fold_log log;
    fold_init(&log);
    assert_false(fold_compact_pays(&log));
    log.bytes = FOLD_COMPACT_COST + 1;
    log.live = 1000;
    assert_true(fold_compact_pays(&log));
    log.live = log.bytes / FOLD_ENTRY_COST;
    assert_false(fold_compact_pays(&log));
    log.live = 0; /* then its rows simply go */
    assert_false(fold_compact_pays(&log));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_whenever_a_leader_begins_anew),
        cmocka_unit_test(a_complete_block_is_due_at_once_and_others_when_it_pays),
        cmocka_unit_test(a_row_goes_only_when_nothing_before_it_waits),
        cmocka_unit_test(malformed_rows_count_as_far_as_they_can_be_read),
        cmocka_unit_test(unknown_batches_are_named_until_known_as_closed),
        cmocka_unit_test(writing_anew_pays_when_little_of_much_is_alive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
