/* Whose turn it is to be routed, and where there is room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/leader_queue.h"
#include "dispatcher/leader_room.h"
#include "dispatcher/moves.h"

#define BATCHES 8
#define MS      1000

/* --- turns -------------------------------------------------------------------------------------------------------- */

struct world {
    struct open_set set;
    struct route_queue q;
    uint32_t waiting; /* this tenant has to wait, */
    uint32_t crowded; /* and this one's workers are full */
};

static bool waits(const void *arg, uint32_t tenant)
{
    return tenant == ((const struct world *)arg)->waiting;
}

static bool fits(void *arg, struct open_block *b)
{
    return b->batch->tenant != ((const struct world *)arg)->crowded;
}

static void world_init(struct world *w)
{
    *w = (struct world){0};
    open_set_init(&w->set);
    queue_init(&w->q);
    w->q.waits = waits;
    w->q.fits = fits;
    w->q.arg = w;
}

static void world_free(struct world *w)
{
    queue_free(&w->q);
    open_set_free(&w->set);
}

/* A batch for the first `span` slots of blocks 0 … blocks - 1, in the queue. */
static struct open_batch *add(struct world *w, uint64_t id, uint32_t tenant, unsigned priority, unsigned blocks,
                              unsigned span)
{
    uint8_t all[BITMAP_BYTES];
    memset(all, 0xff, sizeof all);
    struct open_batch *batch = open_set_add(&w->set, id, blocks, blocks * span / 8);
    assert_non_null(batch);
    batch->tenant = tenant;
    batch->priority = (uint8_t)priority;
    batch->spec = true;
    for (unsigned i = 0; i < blocks; i++)
        assert_true(open_batch_put(&w->set, batch, i, 0, (struct slice){all, span / 8}, (struct slice){all, 0}));
    queue_add(&w->q, batch);
    return batch;
}

static uint64_t pick(struct world *w)
{
    struct open_batch *finished;
    struct open_block *b = queue_pick(&w->q, &finished);
    return b ? b->batch->id : 0;
}

/* Batches, and the order in which their blocks are picked: a digit is the number of a batch. */
static const struct row {
    const char *name;
    struct {
        uint32_t tenant;
        unsigned priority, blocks, span;
    } batches[BATCHES]; /* numbered from 1 */
    uint32_t waiting, crowded;
    const char *order;
} rows[] = {
    {.name = "a batch, block by block", .batches = {{1, 2, 3, 8}}, .order = "111"},
    {.name = "urgent before normal before bulk",
     .batches = {{1, 3, 2, 1024}, {1, 2, 2, 1024}, {1, 1, 2, 1024}},
     .order = "332211"},
    {.name = "also another tenant's", .batches = {{1, 3, 1, 1024}, {2, 1, 1, 8}, {3, 2, 1, 8}}, .order = "231"},
    {.name = "a tenant's batches as they were accepted",
     .batches = {{1, 2, 2, 8}, {1, 2, 1, 8}, {1, 2, 1, 8}},
     .order = "1123"},
    /* A turn is four large blocks: 4 * (1024 + 64) > 4096. What is too much of one is owed for the next. */
    {.name = "turns of large blocks", .batches = {{1, 3, 12, 1024}, {2, 3, 6, 1024}}, .order = "111122221111221111"},
    {.name = "a small one behind a large one",
     .batches = {{1, 3, 10, 1024}, {2, 3, 1, 8}, {3, 3, 1, 8}},
     .order = "111123111111"},
    {.name = "what is urgent does not use up the turn of what is bulk",
     .batches = {{1, 1, 2, 1024}, {1, 3, 5, 1024}, {2, 3, 1, 8}},
     .order = "11222232"},
    {.name = "who has to wait keeps nobody back", .batches = {{1, 2, 2, 8}, {2, 2, 1, 8}}, .waiting = 1, .order = "2"},
    {.name = "nor whose workers are full", .batches = {{1, 2, 2, 8}, {2, 2, 1, 8}}, .crowded = 1, .order = "2"},
    {.name = "nor in a higher class", .batches = {{1, 1, 1, 8}, {2, 3, 1, 8}}, .crowded = 1, .order = "2"},
};

static void test_the_order(void **state)
{
    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct world w;
        char got[64] = "";
        uint64_t id;
        world_init(&w);
        w.waiting = rows[r].waiting;
        w.crowded = rows[r].crowded;
        for (unsigned i = 0; i < BATCHES && rows[r].batches[i].blocks; i++)
            add(&w, i + 1, rows[r].batches[i].tenant, rows[r].batches[i].priority, rows[r].batches[i].blocks,
                rows[r].batches[i].span);
        for (size_t n = 0; n + 1 < sizeof got && (id = pick(&w)) != 0; n++)
            got[n] = (char)('0' + id);
        if (strcmp(got, rows[r].order) != 0)
            fail_msg("%s: %s instead of %s", rows[r].name, got, rows[r].order);
        world_free(&w);
    }
}

/* A tenant of a hundred small batches has a turn of 4096 / (8 + 64) of them, not all. */
static void test_small_batches_are_no_long_turn(void **state)
{
    (void)state;
    struct world w;
    unsigned before = 0;
    world_init(&w);
    for (uint64_t id = 1; id <= 100; id++)
        add(&w, id, 1, 2, 1, 8);
    add(&w, 200, 2, 2, 1, 8);
    while (pick(&w) != 200)
        before++;
    assert_int_equal(before, QUEUE_TURN / (8 + QUEUE_BLOCK_COST) + 1);
    world_free(&w);
}

/* Whoever takes and however: over many turns each of three tenants has had as much, but for one block. */
static void test_shares_are_equal(void **state)
{
    (void)state;
    static const unsigned spans[] = {1024, 256, 8};
    struct world w;
    int64_t had[3] = {0};
    world_init(&w);
    for (uint64_t t = 0; t < 3; t++)
        for (uint64_t k = 0; k < 40; k++)
            add(&w, t * 1000 + k + 1, (uint32_t)t + 1, 3, 40, spans[t]);
    for (unsigned n = 0; n < 1000; n++) {
        uint64_t t = (pick(&w) - 1) / 1000;
        had[t] += spans[t] + QUEUE_BLOCK_COST;
    }
    for (unsigned t = 1; t < 3; t++)
        assert_in_range(had[t] - had[0] + QUEUE_TURN + 1088, 0, 2 * (QUEUE_TURN + 1088));
    world_free(&w);
}

static void test_who_waited_has_its_turn(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add(&w, 1, 1, 2, 1, 8);
    add(&w, 2, 2, 2, 9, 1024);
    w.crowded = 1;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(pick(&w), 2);
    w.crowded = 0;
    assert_int_equal(pick(&w), 1);
    assert_int_equal(pick(&w), 2);
    world_free(&w);
}

static void test_a_batch_without_spec_waits_without_stopping_others(void **state)
{
    (void)state;
    struct world w;
    struct open_batch *out[8];
    world_init(&w);
    struct open_batch *first = add(&w, 1, 1, 2, 1, 8), *other = add(&w, 2, 2, 2, 1, 8);
    first->command_bytes = other->command_bytes = 100;
    queue_set_spec(&w.q, first, false);
    queue_set_spec(&w.q, other, false);
    assert_int_equal(queue_specless(&w.q, out, 8, 150), 1);
    assert_int_equal(queue_specless(&w.q, out, 8, 200), 2);
    assert_int_equal(w.q.specless, 2);
    queue_set_spec(&w.q, other, true);
    assert_int_equal(w.q.specless, 1);
    assert_int_equal(pick(&w), 2);
    assert_int_equal(pick(&w), 0);
    queue_set_spec(&w.q, other, false); /* stands in no line */
    assert_int_equal(w.q.specless, 1);
    queue_set_spec(&w.q, first, true);
    assert_true(queue_has(&w.q, 1));
    assert_int_equal(pick(&w), 1);
    assert_false(queue_has(&w.q, 1));
    assert_int_equal(w.q.specless, 0);
    queue_add(&w.q, other);
    assert_int_equal(w.q.specless, 1);
    queue_remove(&w.q, other);
    assert_int_equal(w.q.specless, 0);
    world_free(&w);
}

static void test_a_batch_with_nothing_open_leaves_the_queue(void **state)
{
    (void)state;
    struct world w;
    struct open_batch *finished;
    world_init(&w);
    struct open_batch *batch = add(&w, 1, 1, 2, 3, 8);
    for (unsigned i = 0; i < 3; i++)
        open_block_apply(&w.set, &batch->blocks[i], EVENT_EXPIRE, NULL, 2000);
    assert_null(queue_pick(&w.q, &finished));
    assert_ptr_equal(finished, batch);
    assert_null(queue_pick(&w.q, &finished));
    assert_null(finished);
    assert_int_equal(w.q.batches, 0);
    world_free(&w);
}

static void test_only_blocks_with_news_are_routed_again(void **state)
{
    (void)state;
    struct world w;
    struct open_batch *finished;
    world_init(&w);
    struct open_batch *batch = add(&w, 1, 1, 2, 8, 8);
    batch->partial = true;
    batch->blocks[2].again = batch->blocks[7].again = true;
    assert_ptr_equal(queue_pick(&w.q, &finished), &batch->blocks[2]);
    assert_ptr_equal(queue_pick(&w.q, &finished), &batch->blocks[7]);
    assert_null(queue_pick(&w.q, &finished));
    assert_int_equal(w.q.batches, 0);
    world_free(&w);
}

/* --- room --------------------------------------------------------------------------------------------------------- */

static void push(struct room *room, uint16_t worker, unsigned class, uint32_t commands, int64_t now_us)
{
    room_pushed(room, worker, class, commands, now_us);
    room_landed(room, worker, class);
}

/* What happens to one inbox, in order, and whether it is full then. */
static void test_when_an_inbox_is_full(void **state)
{
    static const struct {
        int64_t at_ms;
        uint32_t push; /* so many commands, */
        int64_t told;  /* then so many entries are told of; -1: nothing is */
        bool full;
    } steps[] = {
        /* more than 65,536, then one of them is taken */
        {0, 40000, -1, false},
        {1, 40000, -1, true},
        {2, 0, 1, false},
        {3, 30000, 2, true},
        {4, 0, 0, false},
        /* 1,023 may lie there, 1,024 may not; then the first ones are taken */
        {10, 1023, 1, false},
        {20, 0, 1, false},
        {21, 1, 2, true},
        {22, 0, 1, false},
        {30, 5000, 2, true},
        {40, 0, 0, false},
        {41, 5000, 1, false},
        {45, 0, 1, false},
        {46, 0, 1, true},
        /* nothing is taken: a jam, until it is empty */
        {2040, 0, 1, true},
        {2041, 0, 1, false},
        {2042, 70000, 2, false},
        {2050, 0, 1, false},
        {2060, 0, 0, false},
        {2061, 70000, 1, true},
    };
    (void)state;
    struct room room;
    assert_true(room_init(&room));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        int64_t now_us = 1000000000 + steps[i].at_ms * MS;
        if (steps[i].push)
            push(&room, 7, 2, steps[i].push, now_us);
        if (steps[i].told >= 0)
            room_told(&room, 7, 2, (uint64_t)steps[i].told, now_us);
        if (room_is_full(&room, 7, 2, now_us) != steps[i].full)
            fail_msg("step %zu at %d ms", i, (int)steps[i].at_ms);
        assert_int_equal(room_any_full(&room, 2, now_us), steps[i].full);
        assert_false(room_any_full(&room, 1, now_us));
        assert_false(room_is_full(&room, 8, 2, now_us));
        bool changed = room_recheck(&room, now_us);
        assert_true(!changed || !steps[i].full);
        assert_int_equal(list_empty(&room.full), !steps[i].full);
    }
    room_free(&room);
}

/* What Redis said when only the first of three had come does not mean that the others are gone. */
static void test_entries_on_their_way(void **state)
{
    (void)state;
    struct room room;
    assert_true(room_init(&room));
    for (unsigned i = 0; i < 3; i++)
        room_pushed(&room, 1, 0, 30000, MS);
    for (unsigned i = 1; i <= 3; i++) {
        room_landed(&room, 1, 0);
        room_told(&room, 1, 0, i, 2 * MS);
        assert_true(room_is_full(&room, 1, 0, 2 * MS));
    }
    room_told(&room, 1, 0, 2, 3 * MS);
    assert_false(room_is_full(&room, 1, 0, 3 * MS));
    room_free(&room);
}

/* More entries than are known one by one: the last known one stands for all behind it, and goes with the last of them.
 */
static void test_many_entries(void **state)
{
    (void)state;
    struct room room;
    assert_true(room_init(&room));
    for (unsigned i = 0; i < 2 * ROOM_ENTRIES; i++)
        push(&room, 1, 0, 2000, MS);
    room_told(&room, 1, 0, 2 * ROOM_ENTRIES, 10 * MS);
    assert_true(room_is_full(&room, 1, 0, 10 * MS));
    room_told(&room, 1, 0, 1, 10 * MS);
    assert_true(room_is_full(&room, 1, 0, 10 * MS));
    room_told(&room, 1, 0, 0, 10 * MS);
    assert_false(room_is_full(&room, 1, 0, 10 * MS));
    push(&room, 1, 0, 70000, MS);
    assert_true(room_is_full(&room, 1, 0, 10 * MS));
    room_forget(&room, 1);
    assert_true(list_empty(&room.full) && list_empty(&room.heavy));
    assert_false(room_is_full(&room, 1, 0, 10 * MS));
    room_free(&room);
}

/* Whole blocks are soon as much as Redis may be kept with, single commands are not: these are bounded by their number.
 */
static void test_what_may_be_under_way(void **state)
{
    (void)state;
    struct moves m = {0};
    unsigned blocks = 0, commands = 0;
    for (; moves_room(&m); blocks++)
        moves_begin(&m, 1024);
    assert_int_equal(blocks, MOVES_SLOTS / 1024);
    assert_true(blocks < MOVES_MAX);
    moves_end(&m, 1024);
    assert_true(moves_room(&m)); /* a last one, of whatever size */
    moves_begin(&m, 1);
    assert_true(moves_room(&m));
    for (; moves_room(&m); commands++)
        moves_begin(&m, 8);
    assert_int_equal(m.count, MOVES_MAX);
    for (; commands > 0; commands--)
        moves_end(&m, 8);
    moves_end(&m, 1);
    while (m.count > 0)
        moves_end(&m, 1024);
    assert_int_equal(m.slots, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_order),
        cmocka_unit_test(test_small_batches_are_no_long_turn),
        cmocka_unit_test(test_shares_are_equal),
        cmocka_unit_test(test_who_waited_has_its_turn),
        cmocka_unit_test(test_a_batch_without_spec_waits_without_stopping_others),
        cmocka_unit_test(test_a_batch_with_nothing_open_leaves_the_queue),
        cmocka_unit_test(test_only_blocks_with_news_are_routed_again),
        cmocka_unit_test(test_when_an_inbox_is_full),
        cmocka_unit_test(test_entries_on_their_way),
        cmocka_unit_test(test_many_entries),
        cmocka_unit_test(test_what_may_be_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
