/* PUBACKs in the order of the PUBLISHes, whatever the order in which they are settled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "workers/pubacks.h"

static void the_first_settled_is_said_at_once(void **unused)
{
    (void)unused;
    struct pubacks p = {0};
    struct puback next;
    uint16_t token;
    assert_false(pubacks_next(&p, &next));
    assert_true(pubacks_add(&p, 9, &token));
    assert_false(pubacks_next(&p, &next));
    pubacks_settle(&p, token, 0x87);
    assert_true(pubacks_next(&p, &next));
    assert_int_equal(next.id, 9);
    assert_int_equal(next.reason, 0x87);
    assert_false(pubacks_next(&p, &next));
    assert_int_equal(p.count, 0);
}

static void who_is_settled_waits_for_those_before_it(void **unused)
{
    (void)unused;
    struct pubacks p = {0};
    struct puback next;
    uint16_t tokens[4];
    for (uint16_t i = 0; i < 4; i++)
        assert_true(pubacks_add(&p, i == 1 ? 0 : i + 1, &tokens[i]));
    assert_int_equal(p.named, 3);
    pubacks_settle(&p, tokens[2], 0);
    pubacks_settle(&p, tokens[1], 0);
    assert_false(pubacks_next(&p, &next));
    pubacks_settle(&p, tokens[0], 0);
    for (uint16_t i = 0; i < 3; i++) {
        assert_true(pubacks_next(&p, &next));
        assert_int_equal(next.id, i == 1 ? 0 : i + 1);
    }
    assert_false(pubacks_next(&p, &next));
    assert_int_equal(p.named, 1);
    pubacks_free(&p);
    assert_int_equal(p.count, 0);
}

static void there_are_never_more_than_the_bound(void **unused)
{
    (void)unused;
    struct pubacks p = {0};
    uint16_t token;
    for (uint16_t i = 1; i <= PUBACKS_MAX; i++)
        assert_true(pubacks_add(&p, i, &token));
    assert_false(pubacks_add(&p, 1000, &token));
    assert_int_equal(p.named, PUBACKS_MAX);
    pubacks_free(&p);
}

/* Comes and settles at random, for more than all tokens there are; what is said must be 1, 2, 3 … */
static void tokens_begin_anew(void **unused)
{
    (void)unused;
    struct pubacks p = {0};
    struct puback next;
    uint16_t open[PUBACKS_MAX], said = 0, id = 0;
    unsigned count = 0;
    srand(1);
    for (unsigned round = 0; round < 300000; round++) {
        unsigned most = 1 + round / 1000 % PUBACKS_MAX;
        if (count < most && p.count < PUBACKS_MAX && rand() % 2) {
            assert_true(pubacks_add(&p, ++id ? id : ++id, &open[count++]));
        } else if (count > 0) {
            unsigned at = (unsigned)rand() % count;
            pubacks_settle(&p, open[at], 0);
            open[at] = open[--count];
        }
        while (pubacks_next(&p, &next))
            assert_int_equal(next.id, ++said ? said : ++said);
        assert_int_equal(p.named, p.count);
    }
    pubacks_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_settled_is_said_at_once),
        cmocka_unit_test(who_is_settled_waits_for_those_before_it),
        cmocka_unit_test(there_are_never_more_than_the_bound),
        cmocka_unit_test(tokens_begin_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
