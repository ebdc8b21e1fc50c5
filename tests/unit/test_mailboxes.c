/* How many open commands devices have, and who is told which have too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/mailboxes.h"
#include "dispatcher/open_batch.h"

#define NOTHING ((struct slice){(const uint8_t *)"", 0})

/* A batch of tenant 7 for the devices of `targets` in block 3. */
static struct open_batch *add(struct open_set *set, uint64_t id, uint8_t targets, struct slice states)
{
    struct open_batch *batch = open_set_add(set, id, 1, 1);
    assert_non_null(batch);
    batch->tenant = 7;
    assert_true(open_batch_put(set, batch, 3, 8, (struct slice){&targets, 1}, states));
    return batch;
}

/* What is told next: the full devices of a block as the byte of slots 8 … 15; -1 when nothing is to be told. */
static int told(struct open_set *set, int64_t now_us)
{
    struct bitmap full;
    struct open_counts_block *b = open_counts_next(&set->open, now_us - MAILBOXES_TELL_US, now_us);
    if (!b)
        return -1;
    assert_int_equal(b->tenant, 7);
    assert_int_equal(b->block, 3);
    open_counts_full(&set->open, b, &full);
    return full.bytes[1];
}

static void open_commands_are_counted_by_device(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    set.open.limit = 2;
    struct open_batch *first = add(&set, 1, 0x0f, NOTHING);
    assert_int_equal(told(&set, 1), -1);
    /* Slot 10 has ended before: it does not count. */
    uint8_t states[8] = {0, 2, 5, 2};
    struct open_batch *second = add(&set, 2, 0x0e, (struct slice){states, 8});
    assert_int_equal(set.open.devices, 2);
    assert_int_equal(told(&set, 1), 0x0a);
    assert_int_equal(told(&set, 2), -1);
    add(&set, 3, 0x02, NOTHING); /* more than full */
    assert_int_equal(told(&set, 3), -1);
    /* A command that ends makes room, once. */
    struct open_block *b = &first->blocks[0];
    assert_true(open_block_merge(&set, b, 11, state_byte(STATE_SENT, 1), 10));
    assert_int_equal(told(&set, 4), -1);
    assert_true(open_block_merge(&set, b, 11, state_byte(STATE_FAILED, 1), 10));
    assert_false(open_block_merge(&set, b, 11, state_byte(STATE_SUCCEEDED, 1), 10));
    assert_int_equal(told(&set, 5), 0x02);
    assert_int_equal(open_block_apply(&set, b, EVENT_EXPIRE, NULL, 20), 3);
    assert_int_equal(told(&set, 6), -1); /* slot 9 has two more */
    open_set_remove(&set, second);       /* with what it has open */
    assert_int_equal(told(&set, 7), 0);
    assert_int_equal(set.open.devices, 0);
    open_set_free(&set);
}

static void what_is_full_is_told_again(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    set.open.limit = 1;
    add(&set, 1, 0x01, NOTHING);
    assert_int_equal(told(&set, 10), 0x01);
    assert_int_equal(told(&set, 10 + MAILBOXES_TELL_US), -1);
    assert_int_equal(told(&set, 11 + MAILBOXES_TELL_US), 0x01);
    assert_int_equal(told(&set, 12 + MAILBOXES_TELL_US), -1);
    open_set_free(&set);
}

static void without_a_limit_nothing_is_counted(void **unused)
{
    (void)unused;
    struct open_set set;
    open_set_init(&set);
    struct open_batch *batch = add(&set, 1, 0xff, NOTHING);
    assert_null(batch->blocks[0].counts);
    assert_int_equal(open_block_apply(&set, &batch->blocks[0], EVENT_EXPIRE, NULL, 20), 8);
    assert_null(open_counts_next(&set.open, INT64_MAX, 0));
    open_set_free(&set);
}

static void many_blocks_are_found_again(void **unused)
{
    (void)unused;
    struct open_counts c;
    open_counts_init(&c);
    c.limit = 3;
    for (uint32_t i = 0; i < 1000; i++)
        for (uint32_t k = 0; k <= i % 4; k++)
            open_counts_add(&c, open_counts_of(&c, i % 7, i), i % 1024);
    assert_int_equal(c.count, 1000);
    assert_int_equal(c.devices, 500);
    /* Beyond what can be counted it stays full. */
    struct open_counts_block *b = open_counts_of(&c, 1, 1);
    for (int i = 0; i < 70000; i++)
        open_counts_add(&c, b, 5);
    for (int i = 0; i < 70000; i++)
        open_counts_take(&c, b, 5);
    assert_int_equal(b->open[5], UINT16_MAX);
    open_counts_free(&c);
}

static struct bitmap slots(unsigned a, unsigned b)
{
    struct bitmap m = {{0}};
    bitmap_set(&m, a);
    bitmap_set(&m, b);
    return m;
}

static uint32_t count_full(struct mailboxes *m, uint32_t tenant, const struct target_set *set, int64_t now_us)
{
    struct target_set full = {0};
    mailboxes_find(m, tenant, set, now_us, &full);
    uint32_t n = target_set_count(&full);
    target_set_free(&full);
    return n;
}

static void those_of_a_target_are_found(void **unused)
{
    (void)unused;
    struct mailboxes *m = mailboxes_new();
    struct bitmap none = {{0}}, some = slots(1, 1023), others = slots(2, 1023), more = slots(5, 5);
    struct target_set set = {0}, full = {0};
    target_set_add(&set, 4, &others);
    target_set_add(&set, 9, &others);
    assert_false(mailboxes_any(m, 7, 0));
    mailboxes_told(m, 7, 9, &some, 0);
    mailboxes_told(m, 7, 4, &some, 0);
    mailboxes_told(m, 7, 5, &more, 0);
    mailboxes_told(m, 8, 4, &others, 0);
    assert_true(mailboxes_any(m, 7, 1));
    assert_false(mailboxes_any(m, 6, 1));
    mailboxes_find(m, 7, &set, 1, &full);
    assert_int_equal(full.count, 2);
    assert_int_equal(full.blocks[0].block, 4);
    assert_int_equal(full.blocks[1].block, 9);
    assert_true(bitmap_test(&full.blocks[1].slots, 1023));
    target_set_free(&full);
    assert_int_equal(count_full(m, 7, &set, 1), 2);
    assert_int_equal(count_full(m, 8, &set, 1), 2);
    /* Told otherwise, told again, not told any more. */
    mailboxes_told(m, 7, 4, &none, 2);
    mailboxes_told(m, 7, 6, &none, 2);
    assert_int_equal(count_full(m, 7, &set, 2), 1);
    mailboxes_told(m, 7, 9, &some, MAILBOXES_FORGET_US);
    assert_int_equal(count_full(m, 7, &set, MAILBOXES_FORGET_US + 1), 1);
    assert_int_equal(count_full(m, 7, &set, 2 * MAILBOXES_FORGET_US + 1), 0);
    assert_false(mailboxes_any(m, 7, 2 * MAILBOXES_FORGET_US + 1));
    target_set_free(&set);
    mailboxes_free(&m);
}

static void what_is_told_is_read(void **unused)
{
    (void)unused;
    char text[MAILBOXES_TEXT];
    struct bitmap some = slots(1, 1023), read;
    uint32_t tenant, block;
    mailboxes_write(text, UINT32_MAX, UINT32_MAX, &some);
    struct slice s = {(const uint8_t *)text, strlen(text)};
    assert_true(mailboxes_read(s, &tenant, &block, &read));
    assert_true(tenant == UINT32_MAX && block == UINT32_MAX);
    assert_memory_equal(&read, &some, sizeof some);
    for (size_t n = 0; n < s.len; n++)
        assert_false(mailboxes_read((struct slice){s.data, n}, &tenant, &block, &read));
    text[s.len - 3] = 'g';
    assert_false(mailboxes_read(s, &tenant, &block, &read));
    static const char *const wrong[] = {"full", "full 1", "full 1 2", "full 1 2 ", "empty 1 2 00", "full -1 x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(
            mailboxes_read((struct slice){(const uint8_t *)wrong[i], strlen(wrong[i])}, &tenant, &block, &read));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_commands_are_counted_by_device), cmocka_unit_test(what_is_full_is_told_again),
        cmocka_unit_test(without_a_limit_nothing_is_counted),  cmocka_unit_test(many_blocks_are_found_again),
        cmocka_unit_test(those_of_a_target_are_found),         cmocka_unit_test(what_is_told_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
