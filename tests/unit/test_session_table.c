/* The table of sessions: found by tenant and number, replaced, removed, counted, walked while being emptied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/session.h"
#include "workers/session_table.h"

#define TENANTS 3
#define PER     5000

static struct session sessions[TENANTS][PER], other;

/* Sparse: every seventh number. */
static uint32_t seq_of(unsigned i)
{
    return i * 7;
}

static struct session *named(struct session *s, uint32_t tenant, uint32_t seq)
{
    s->tenant = tenant;
    s->seq = seq;
    return s;
}

static struct session_table *filled(void)
{
    struct session_table *t = session_table_new();
    assert_non_null(t);
    for (unsigned tenant = 0; tenant < TENANTS; tenant++)
        for (unsigned i = 0; i < PER; i++)
            assert_true(session_table_put(t, named(&sessions[tenant][i], tenant + 1, seq_of(i))));
    return t;
}

static void an_empty_table_knows_nobody(void **unused)
{
    (void)unused;
    struct session_table *t = session_table_new();
    assert_non_null(t);
    assert_null(session_table_get(t, 1, 0));
    assert_int_equal(session_table_count(t), 0);
    session_table_free(&t);
    assert_null(t);
    session_table_free(&t);
}

static void each_is_found_under_its_own_number_only(void **unused)
{
    (void)unused;
    struct session_table *t = filled();
    assert_int_equal(session_table_count(t), TENANTS * PER);
    for (unsigned tenant = 0; tenant < TENANTS; tenant++)
        for (unsigned i = 0; i < PER; i++) {
            assert_ptr_equal(session_table_get(t, tenant + 1, seq_of(i)), &sessions[tenant][i]);
            assert_null(session_table_get(t, tenant + 1, seq_of(i) + 1));
        }
    assert_null(session_table_get(t, TENANTS + 1, 0));
    assert_null(session_table_get(t, 1, UINT32_MAX));
    session_table_free(&t);
}

static void the_largest_numbers_have_a_place(void **unused)
{
    (void)unused;
    struct session_table *t = session_table_new();
    assert_true(session_table_put(t, named(&other, (1u << 30) - 1, UINT32_MAX)));
    assert_ptr_equal(session_table_get(t, (1u << 30) - 1, UINT32_MAX), &other);
    assert_null(session_table_get(t, (1u << 30) - 1, UINT32_MAX - 1));
    session_table_free(&t);
}

static void replaced_and_removed_ones_are_counted_right(void **unused)
{
    (void)unused;
    struct session_table *t = filled();
    assert_ptr_equal(session_table_still(t, 1, seq_of(3), sessions[0][3].generation), &sessions[0][3]);
    assert_true(session_table_put(t, named(&other, 1, seq_of(3))));
    other.generation = sessions[0][3].generation + 1;
    assert_ptr_equal(session_table_get(t, 1, seq_of(3)), &other);
    assert_ptr_equal(session_table_still(t, 1, seq_of(3), other.generation), &other);
    assert_null(session_table_still(t, 1, seq_of(3), sessions[0][3].generation));
    assert_int_equal(session_table_count(t), TENANTS * PER);
    session_table_remove(t, &sessions[0][3]); /* it is not there any more */
    assert_ptr_equal(session_table_get(t, 1, seq_of(3)), &other);
    session_table_remove(t, &other);
    session_table_remove(t, &other);
    assert_null(session_table_get(t, 1, seq_of(3)));
    assert_int_equal(session_table_count(t), TENANTS * PER - 1);
    session_table_free(&t);
}

/* Every second one goes, whatever stood behind it is still found; then all come again. */
static void what_is_left_is_found_when_others_go(void **unused)
{
    (void)unused;
    struct session_table *t = filled();
    for (unsigned tenant = 0; tenant < TENANTS; tenant++)
        for (unsigned i = tenant & 1; i < PER; i += 2)
            session_table_remove(t, &sessions[tenant][i]);
    assert_int_equal(session_table_count(t), TENANTS * PER / 2);
    for (unsigned tenant = 0; tenant < TENANTS; tenant++)
        for (unsigned i = 0; i < PER; i++)
            assert_ptr_equal(session_table_get(t, tenant + 1, seq_of(i)),
                             (i ^ tenant) & 1 ? &sessions[tenant][i] : NULL);
    for (unsigned tenant = 0; tenant < TENANTS; tenant++)
        for (unsigned i = 0; i < PER; i++)
            assert_true(session_table_put(t, &sessions[tenant][i]));
    assert_int_equal(session_table_count(t), TENANTS * PER);
    session_table_free(&t);
}

struct walk {
    struct session_table *table;
    unsigned seen;
};

static void remove_one(void *arg, struct session *s)
{
    struct walk *w = arg;
    w->seen++;
    session_table_remove(w->table, s);
}

static void a_walk_sees_each_once_and_may_remove_it(void **unused)
{
    (void)unused;
    struct walk w = {filled(), 0};
    session_table_each(w.table, remove_one, &w);
    assert_int_equal(w.seen, TENANTS * PER);
    assert_int_equal(session_table_count(w.table), 0);
    session_table_free(&w.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_table_knows_nobody),
        cmocka_unit_test(each_is_found_under_its_own_number_only),
        cmocka_unit_test(the_largest_numbers_have_a_place),
        cmocka_unit_test(replaced_and_removed_ones_are_counted_right),
        cmocka_unit_test(what_is_left_is_found_when_others_go),
        cmocka_unit_test(a_walk_sees_each_once_and_may_remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
