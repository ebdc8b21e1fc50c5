/* Who is turned away, and whose turn it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatcher/shares.h"

#define SECOND 1000000

struct world {
    struct shares shares;
    struct share e[64];
    unsigned n;
};

static void init(struct world *w, size_t entries, size_t cost)
{
    *w = (struct world){0};
    shares_init(&w->shares, &(struct shares_limits){entries, cost, SECOND, 2});
}

static struct share *add(struct world *w, uint32_t tenant, size_t cost, int64_t now_us)
{
    struct share *e = &w->e[w->n++];
    assert_true(shares_add(&w->shares, e, tenant, cost, now_us));
    return e;
}

static void clear(struct world *w)
{
    for (unsigned i = 0; i < w->n; i++)
        if (w->e[i].tenant)
            shares_remove(&w->shares, &w->e[i]);
    assert_int_equal(w->shares.count, 0);
    assert_int_equal(w->shares.cost, 0);
    assert_int_equal(w->shares.tenants, 0);
    assert_true(list_empty(&w->shares.turn));
}

/* Full: the one that filled it is turned away, another comes in, until it has as much. */
static void test_the_largest_is_turned_away(void **state)
{
    (void)state;
    struct world w;
    init(&w, 8, SIZE_MAX);
    for (int i = 0; i < 8; i++) {
        assert_true(shares_may(&w.shares, 1, 1, 0));
        add(&w, 1, 1, 0);
    }
    assert_false(shares_may(&w.shares, 1, 1, 0));
    unsigned small = 0;
    for (; shares_may(&w.shares, 2, 1, 0); small++)
        add(&w, 2, 1, 0);
    assert_int_equal(small, 8);
    assert_true(shares_may(&w.shares, 3, 1, 0));
    clear(&w);
}

static void test_cost_counts_too(void **state)
{
    (void)state;
    struct world w;
    init(&w, SIZE_MAX, 100);
    add(&w, 1, 90, 0);
    assert_true(shares_may(&w.shares, 1, 10, 0));
    assert_false(shares_may(&w.shares, 1, 11, 0));
    add(&w, 2, 5, 0);
    assert_true(shares_may(&w.shares, 2, 30, 0));
    clear(&w);
}

/* Who has waited too long gets no more, but for a few; who has little does. */
static void test_patience(void **state)
{
    (void)state;
    struct world w;
    init(&w, SIZE_MAX, SIZE_MAX);
    add(&w, 1, 1, 0);
    assert_true(shares_may(&w.shares, 1, 1, 2 * SECOND));
    struct share *second = add(&w, 1, 1, SECOND / 2);
    assert_true(shares_may(&w.shares, 1, 1, SECOND - 1));
    assert_false(shares_may(&w.shares, 1, 1, SECOND));
    add(&w, 2, 1, 0);
    assert_true(shares_may(&w.shares, 2, 1, 2 * SECOND));
    shares_remove(&w.shares, &w.e[0]);
    assert_ptr_equal(second->tenant->entries.next, &second->link);
    add(&w, 1, 1, SECOND);
    assert_true(shares_may(&w.shares, 1, 1, SECOND * 3 / 2 - 1));
    assert_false(shares_may(&w.shares, 1, 1, SECOND * 3 / 2));
    clear(&w);
}

static void test_put_back_and_turns(void **state)
{
    (void)state;
    struct world w;
    init(&w, 8, SIZE_MAX);
    struct share *a = add(&w, 1, 3, 5), *b = add(&w, 1, 1, 6);
    add(&w, 2, 1, 7);
    shares_take(&w.shares, a);
    assert_int_equal(w.shares.count, 2);
    shares_put_back(&w.shares, a);
    assert_ptr_equal(a->tenant->entries.next, &a->link);
    assert_int_equal(a->since_us, 5);
    assert_int_equal(w.shares.cost, 5);
    assert_ptr_equal(w.shares.turn.next, &b->tenant->link);
    shares_turn(&w.shares, b->tenant);
    assert_ptr_equal(w.shares.turn.prev, &b->tenant->link);
    /* Tenants of one bucket are told apart. */
    add(&w, 1 + SHARES_BUCKETS, 1, 0);
    assert_int_equal(w.shares.tenants, 3);
    clear(&w);
}

/* Of a tenant whose entries are all taken nothing counts, and one that is put back waits again. */
static void test_taken(void **state)
{
    (void)state;
    struct world w;
    init(&w, 2, SIZE_MAX);
    struct share *a = add(&w, 1, 3, 5), *b = add(&w, 1, 1, 6);
    shares_take(&w.shares, a);
    shares_take(&w.shares, b);
    assert_int_equal(w.shares.tenants + w.shares.count + w.shares.cost, 0);
    assert_true(list_empty(&w.shares.turn));
    assert_true(shares_may(&w.shares, 1, 1, 10 * SECOND));
    struct share *c = add(&w, 1, 1, 7);
    assert_ptr_equal(c->tenant, a->tenant);
    shares_remove(&w.shares, c);
    shares_let_go(a);
    shares_put_back(&w.shares, b);
    assert_int_equal(w.shares.tenants, 1);
    assert_int_equal(w.shares.cost, 1);
    clear(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_largest_is_turned_away),
        cmocka_unit_test(test_cost_counts_too),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_put_back_and_turns),
        cmocka_unit_test(test_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
