/* The leader's picture of open batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dispatcher/open_batch.h"

#define NOTHING ((struct slice){(const uint8_t *)"", 0})

/* A batch for all slots of blocks 0 … blocks - 1. */
static struct open_batch *add(struct open_set *set, uint64_t id, uint32_t tenant, int priority, unsigned blocks,
                              unsigned span)
{
    uint8_t all[BITMAP_BYTES];
    memset(all, 0xff, sizeof all);
    struct open_batch *batch = open_set_add(set, id, blocks, blocks * span / 8);
    assert_non_null(batch);
    batch->tenant = tenant;
    batch->priority = (uint8_t)priority;
    batch->created_ms = 1000;
    for (unsigned i = 0; i < blocks; i++)
        assert_true(open_batch_put(set, batch, i, 0, (struct slice){all, span / 8}, NOTHING));
    return batch;
}

static void batches_are_found_until_removed(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    for (uint64_t id = 1; id <= 1000; id++)
        add(&set, id, 1, 2, 1, 8);
    assert_int_equal(set.batches, 1000);
    assert_int_equal(set.remaining, 8000);
    for (uint64_t id = 1; id <= 1000; id += 2)
        open_set_remove(&set, open_set_find(&set, id));
    for (uint64_t id = 1; id <= 1000; id++) {
        assert_int_equal(open_set_find(&set, id) != NULL, id % 2 == 0);
        assert_int_equal(open_set_is_closed(&set, id), id % 2 == 1);
    }
    assert_int_equal(set.remaining, 4000);
    open_set_free(&set);
}

static void the_first_terminal_state_stays(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 5, 1, 2, 1, 16);
    struct open_block *b = &batch->blocks[0];
    assert_int_equal(open_block_state(b, 3), state_byte(STATE_QUEUED, 0));
    assert_true(open_block_merge(&set, b, 3, state_byte(STATE_SENT, 1), 1500));
    assert_int_equal(batch->remaining, 16);
    assert_true(open_block_merge(&set, b, 3, state_byte(STATE_FAILED, 1), 2000));
    assert_false(open_block_merge(&set, b, 3, state_byte(STATE_SUCCEEDED, 1), 2500));
    assert_false(open_block_merge(&set, b, 3, state_byte(STATE_QUEUED, 0), 2500));
    assert_int_equal(open_block_state(b, 3), state_byte(STATE_FAILED, 1));
    assert_int_equal(open_block_time(b, 3), 2000);
    assert_int_equal(batch->remaining, 15);
    assert_int_equal(b->dirty, 1);
    assert_int_equal(open_block_next_dirty(b, 0), 3);
    assert_int_equal(open_block_next_dirty(b, 4), BLOCK_SLOTS);
    assert_false(open_block_merge(&set, b, 16, state_byte(STATE_FAILED, 1), 2000));
    assert_false(open_block_merge(&set, b, 1023, state_byte(STATE_FAILED, 1), 2000));
    open_set_free(&set);
}

static void a_complete_block_settles_with_its_counts(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 5, 1, 2, 2, 8);
    for (unsigned slot = 0; slot < 8; slot++)
        open_block_merge(&set, &batch->blocks[0], slot, state_byte(slot < 3 ? STATE_SUCCEEDED : STATE_FAILED, 1), 2000);
    assert_int_equal(batch->blocks[0].remaining, 0);
    open_block_clean(&batch->blocks[0]);
    open_block_settle(&batch->blocks[0]);
    assert_int_equal(batch->counts[STATE_SUCCEEDED], 3);
    assert_int_equal(batch->counts[STATE_FAILED], 5);
    assert_int_equal(batch->unsettled, 1);
    assert_int_equal(batch->remaining, 8);
    assert_null(batch->blocks[0].cells);
    open_set_free(&set);
}

static void stored_blocks_come_back(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    uint8_t targets[2] = {0x81, 0x01}, states[16] = {0}, times[64] = {0};
    states[0] = state_byte(STATE_SUCCEEDED, 1);
    states[7] = state_byte(STATE_SENT, 2);
    states[8] = state_byte(STATE_QUEUED, 0);
    states[9] = state_byte(STATE_QUEUED, 0); /* not addressed: must not count */
    store_u32le(times, 77);
    struct open_batch *batch = open_set_add(&set, 9, 1, 2);
    batch->created_ms = 1000;
    assert_true(open_batch_put(&set, batch, 4, 24, (struct slice){targets, 2}, (struct slice){states, 16}));
    struct open_block *b = open_batch_block(batch, 4);
    assert_non_null(b);
    assert_null(open_batch_block(batch, 3));
    open_block_put_times(b, (struct slice){times, 64});
    assert_int_equal(b->remaining, 2);
    assert_int_equal(open_block_time(b, 24), 1077);
    assert_int_equal(open_block_state(b, 33), 0);

    struct buf out = {0};
    struct state_string s;
    open_block_string(b, &out);
    assert_true(state_string_parse(&s, buf_slice(&out)));
    assert_int_equal(s.first, 24);
    assert_int_equal(s.count, 9);
    assert_int_equal(state_string_get(&s, 24), state_byte(STATE_SUCCEEDED, 1));
    assert_int_equal(state_string_get(&s, 31), state_byte(STATE_SENT, 2)); /* it may have been executed */
    assert_int_equal(state_string_get(&s, 25), 0);
    buf_free(&out);
    open_set_free(&set);
}

static void unreadable_rows_are_refused(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    uint8_t bytes[1024] = {1};
    struct open_batch *batch = open_set_add(&set, 9, 8, 8 * 128);
    assert_false(open_batch_put(&set, batch, 0, 0, NOTHING, NOTHING));
    assert_false(open_batch_put(&set, batch, 0, 4, (struct slice){bytes, 1}, NOTHING));
    assert_false(open_batch_put(&set, batch, 0, 8, (struct slice){bytes, 128}, NOTHING));
    assert_false(open_batch_put(&set, batch, 0, 0, (struct slice){bytes, 2}, (struct slice){bytes, 15}));
    assert_true(open_batch_put(&set, batch, 7, 0, (struct slice){bytes, 1}, NOTHING));
    assert_false(open_batch_put(&set, batch, 7, 0, (struct slice){bytes, 1}, NOTHING));
    open_set_free(&set);
}

static void events_happen_where_the_table_lets_them(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 5, 1, 2, 1, 8);
    struct open_block *b = &batch->blocks[0];
    struct bitmap only = {{0x07}};
    open_block_merge(&set, b, 0, state_byte(STATE_SENT, 1), 2000);
    open_block_merge(&set, b, 1, state_byte(STATE_SUCCEEDED, 1), 2000);
    assert_int_equal(open_block_apply(&set, b, EVENT_CANCEL, &only, 3000), 1);
    assert_int_equal(open_block_state(b, 2), state_byte(STATE_CANCELED, 0));
    assert_int_equal(open_block_apply(&set, b, EVENT_EXPIRE, NULL, 3000), 6);
    assert_int_equal(open_block_state(b, 0), state_byte(STATE_TIMED_OUT, 1));
    assert_int_equal(open_block_state(b, 1), state_byte(STATE_SUCCEEDED, 1));
    assert_int_equal(open_block_state(b, 7), state_byte(STATE_EXPIRED, 0));
    assert_int_equal(batch->remaining, 0);
    open_set_free(&set);
}

static void strings_of_redis_join(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 5, 1, 2, 1, 8);
    struct open_block *b = &batch->blocks[0];
    uint8_t states[] = {state_byte(STATE_ROUTED, 0), state_byte(STATE_SENT, 1), state_byte(STATE_CANCELED, 0), 0x0f};
    struct state_string s = {2, 4, states};
    assert_int_equal(open_block_merge_string(&set, b, &s, false, 2000), 2);
    assert_int_equal(open_block_state(b, 2), state_byte(STATE_QUEUED, 0));
    assert_int_equal(open_block_state(b, 3), state_byte(STATE_SENT, 1));
    assert_int_equal(open_block_state(b, 4), state_byte(STATE_CANCELED, 0));
    assert_int_equal(open_block_state(b, 5), state_byte(STATE_QUEUED, 0));
    open_set_free(&set);
}

/* A worker has had an outcome a moment ago; the picture knows nothing of it, or only that it was sent. */
static void what_waits_to_be_tried_again_is_not_taken_for_held(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 5, 1, 2, 1, 8);
    struct open_block *b = &batch->blocks[0];
    uint8_t held = state_byte(STATE_HELD, 1), states[] = {held, held, held, state_byte(STATE_HELD, 0)};
    struct state_string s = {2, 4, states};
    open_block_merge(&set, b, 3, state_byte(STATE_SENT, 1), 1000);
    open_block_merge(&set, b, 4, state_byte(STATE_QUEUED, 1), 1000); /* let go since, and held with its batch */
    batch->retry_after = 1u << STATE_FAILED;
    open_block_merge_string(&set, b, &s, false, 2000);
    assert_int_equal(open_block_state(b, 2), held);
    assert_int_equal(open_block_state(b, 3), held);
    assert_int_equal(open_block_state(b, 4), state_byte(STATE_QUEUED, 1));
    assert_int_equal(open_block_state(b, 5), state_byte(STATE_QUEUED, 0));
    assert_int_equal(b->put_back, 2);
    open_set_free(&set);
}

/* Redis was asked before a device said "not now", and its answer comes after the log has told that. */
static void what_the_log_has_told_since_redis_was_asked_stands(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 5, 1, 2, 1, 8);
    struct open_block *b = &batch->blocks[0];
    uint8_t sent = state_byte(STATE_SENT, 1), put_off = state_byte(STATE_QUEUED, 1);
    uint8_t states[] = {sent, sent, state_byte(STATE_SENT, 2)};
    struct state_string s = {2, 3, states};
    open_block_merge(&set, b, 2, put_off, 1000);
    open_block_merge(&set, b, 4, put_off, 1000);
    assert_int_equal(open_block_merge_string(&set, b, &s, true, 2000), 2);
    assert_int_equal(open_block_state(b, 2), put_off);
    assert_int_equal(open_block_state(b, 3), sent);
    assert_int_equal(open_block_state(b, 4), state_byte(STATE_SENT, 2));
    open_block_merge_string(&set, b, &s, false, 3000);
    assert_int_equal(open_block_state(b, 2), sent);
    open_set_free(&set);
}

/* A worker that was stopped had it stored when Redis had lost it, and the leader had waited long enough. */
static void an_outcome_stands_against_an_end_that_nobody_has_been_told(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 5, 1, 2, 1, 8);
    struct open_block *b = &batch->blocks[0];
    uint8_t done = state_byte(STATE_SUCCEEDED, 1), failed = state_byte(STATE_FAILED, 2),
            over = state_byte(STATE_SUPERSEDED, 1);
    open_block_merge(&set, b, 2, over, 1000);
    assert_true(open_block_logged(&set, b, 2, done, 900));
    assert_int_equal(open_block_state(b, 2), done);
    assert_true(open_block_logged(&set, b, 2, failed, 900)); /* in the log the first counts, with all deliveries */
    assert_int_equal(open_block_state(b, 2), state_byte(STATE_SUCCEEDED, 2));
    open_block_logged(&set, b, 3, over, 1000);
    assert_false(open_block_logged(&set, b, 3, done, 900)); /* the end is in the log */
    open_block_merge(&set, b, 4, over, 1000);
    open_block_clean(b);
    open_block_merge(&set, b, 4, state_byte(STATE_SENT, 2), 1100); /* changed again, for its deliveries */
    assert_false(open_block_logged(&set, b, 4, done, 900));        /* the end is stored */
    assert_int_equal(state_of(open_block_state(b, 4)), STATE_SUPERSEDED);
    assert_int_equal(batch->remaining, 5);
    open_set_free(&set);
}

static void a_held_batch_is_held_in_redis(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 1, 1, 2, 1, 8);
    struct open_block *b = &batch->blocks[0];
    struct state_string s;
    struct buf out = {0};
    assert_true(open_block_merge(&set, b, b->first, state_byte(STATE_SUCCEEDED, 1), 5));
    assert_true(open_block_merge(&set, b, b->first + 1u, state_byte(STATE_SENT, 1), 5));
    batch->held = true;
    open_block_string(b, &out);
    assert_true(state_string_parse(&s, buf_slice(&out)));
    assert_int_equal(s.states[0], state_byte(STATE_SUCCEEDED, 1));
    assert_int_equal(s.states[1], state_byte(STATE_SENT, 1));
    assert_int_equal(s.states[2], state_byte(STATE_HELD, 0));
    /* What is HELD there is, for the picture, still to be sent. */
    assert_int_equal(open_block_merge_string(&set, b, &s, false, 6), 0);
    batch->held = false;
    buf_reset(&out);
    open_block_string(b, &out);
    assert_true(state_string_parse(&s, buf_slice(&out)));
    assert_int_equal(s.states[2], state_byte(STATE_QUEUED, 0));
    buf_free(&out);
    open_set_free(&set);
}

/* --- growing ------------------------------------------------------------------------------------------------------ */

static struct bitmap slots_from(unsigned from, unsigned to)
{
    struct bitmap m = {{0}};
    for (unsigned i = from; i < to; i++)
        bitmap_set(&m, i);
    return m;
}

static void devices_join_in_their_place(void **unused)
{
    (void)unused;
    struct open_set set;
    struct buf out = {0};
    struct state_string s;
    open_set_init(&set);
    struct open_batch *batch = open_set_add_growing(&set, 5, 2);
    assert_non_null(batch);
    batch->created_ms = 1000;
    assert_int_equal(batch->block_count, 2);
    struct bitmap some = slots_from(100, 110), more = slots_from(90, 105);
    assert_int_equal(open_block_join(&set, &batch->blocks[1], &some, 0), 10);
    assert_int_equal(set.remaining, 10);
    /* Some are done; then others join, before and among them. */
    for (unsigned slot = 100; slot < 110; slot++)
        assert_true(open_block_merge(&set, &batch->blocks[1], slot, state_byte(STATE_SUCCEEDED, 1), 2000));
    assert_int_equal(batch->remaining, 0);
    assert_int_equal(open_block_join(&set, &batch->blocks[1], &more, 3000), 10);
    assert_int_equal(batch->remaining, 10);
    assert_int_equal(open_block_state(&batch->blocks[1], 90), state_byte(STATE_QUEUED, 0));
    assert_int_equal(open_block_state(&batch->blocks[1], 104), state_byte(STATE_SUCCEEDED, 1));
    assert_true(open_block_is_dirty(&batch->blocks[1], 90)); /* what is stored has no state of them */
    open_block_string(&batch->blocks[1], &out);
    assert_true(state_string_parse(&s, buf_slice(&out)));
    assert_int_equal(s.first, 90);
    assert_int_equal(s.count, 20);
    assert_int_equal(state_of(state_string_get(&s, 99)), STATE_QUEUED);
    buf_free(&out);
    /* A block that was not there: who has routed all goes on behind it. */
    batch->route_next = 2;
    assert_true(open_batch_extend(batch, 4));
    assert_int_equal(batch->route_next, 4);
    batch->route_next = 1;
    assert_true(open_batch_extend(batch, 5));
    assert_int_equal(batch->route_next, 1);
    assert_int_equal(open_block_join(&set, &batch->blocks[4], &some, 3000), 10);
    assert_ptr_equal(open_batch_block(batch, 4), &batch->blocks[4]);
    assert_null(open_batch_block(batch, 5));
    assert_false(open_batch_extend(batch, 5000));
    open_set_free(&set);
}

static void a_growing_batch_settles_when_it_is_sealed(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = open_set_add_growing(&set, 5, 3);
    assert_non_null(batch);
    struct bitmap one = slots_from(7, 8);
    assert_int_equal(open_block_join(&set, &batch->blocks[0], &one, 0), 1);
    assert_int_equal(open_block_join(&set, &batch->blocks[1], &one, 0), 1);
    for (unsigned i = 0; i < 2; i++)
        assert_true(open_block_merge(&set, &batch->blocks[i], 7, state_byte(STATE_FAILED, 2), 2000));
    open_block_clean(&batch->blocks[0]); /* the other one is not stored yet */
    assert_int_equal(batch->unsettled, 3);
    open_batch_seal(batch);
    assert_false(batch->growing);
    assert_int_equal(batch->unsettled, 1);
    assert_int_equal(batch->counts[STATE_FAILED], 1);
    open_block_clean(&batch->blocks[1]);
    open_block_settle(&batch->blocks[1]);
    assert_int_equal(batch->unsettled, 0);
    assert_int_equal(batch->counts[STATE_FAILED], 2);
    open_batch_seal(batch); /* once more, nothing */
    open_set_free(&set);
}

static void a_stored_block_finds_its_place(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = open_set_add_growing(&set, 5, 2);
    assert_non_null(batch);
    const uint8_t targets[] = {0x07}, states[8] = {state_byte(STATE_SUCCEEDED, 1), 0, state_byte(STATE_SENT, 1), 9};
    struct slice t = {targets, 1}, s = {states, 8};
    assert_false(open_batch_place(&set, batch, 2, 0, t, s));
    assert_false(open_batch_place(&set, batch, 1, 7, t, s));
    assert_false(open_batch_place(&set, batch, 1, 8, t, (struct slice){states, 7}));
    assert_true(open_batch_place(&set, batch, 1, 8, t, s));
    assert_int_equal(batch->remaining, 2);
    assert_int_equal(open_block_state(&batch->blocks[1], 8), state_byte(STATE_SUCCEEDED, 1));
    assert_int_equal(open_block_state(&batch->blocks[1], 9), state_byte(STATE_QUEUED, 0)); /* who has just joined */
    assert_int_equal(open_block_state(&batch->blocks[1], 10), state_byte(STATE_SENT, 1));
    assert_int_equal(open_block_state(&batch->blocks[1], 11), 0);
    open_set_free(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_found_until_removed),
        cmocka_unit_test(the_first_terminal_state_stays),
        cmocka_unit_test(a_complete_block_settles_with_its_counts),
        cmocka_unit_test(stored_blocks_come_back),
        cmocka_unit_test(unreadable_rows_are_refused),
        cmocka_unit_test(events_happen_where_the_table_lets_them),
        cmocka_unit_test(strings_of_redis_join),
        cmocka_unit_test(what_waits_to_be_tried_again_is_not_taken_for_held),
        cmocka_unit_test(what_the_log_has_told_since_redis_was_asked_stands),
        cmocka_unit_test(an_outcome_stands_against_an_end_that_nobody_has_been_told),
        cmocka_unit_test(a_held_batch_is_held_in_redis),
        cmocka_unit_test(devices_join_in_their_place),
        cmocka_unit_test(a_growing_batch_settles_when_it_is_sealed),
        cmocka_unit_test(a_stored_block_finds_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
