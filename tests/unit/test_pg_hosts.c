/* The hosts of a connection string in another order: names, addresses and ports stay together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/store/pg_hosts.h"

static void test_order(void **state)
{
    static const char *const hosts[] = {"a,b,c", "b,c,a", "c,a,b", "a,b,c"}, *const ports[] = {"1,2,3", "2,3,1",
                                                                                               "3,1,2", "1,2,3"};
    struct pg_hosts h;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_true(pg_hosts_from(&h, "host=a,b,c port=1,2,3 dbname=x", i));
        assert_string_equal(h.host, hosts[i]);
        assert_string_equal(h.port, ports[i]);
        assert_null(h.hostaddr);
        pg_hosts_clear(&h);
    }
}

static void test_one_port_for_all(void **state)
{
    struct pg_hosts h;

    (void)state;
    assert_true(pg_hosts_from(&h, "postgresql://a,b:5433/x?hostaddr=127.0.0.1,127.0.0.2", 1));
    assert_string_equal(h.host, "b,a");
    assert_string_equal(h.hostaddr, "127.0.0.2,127.0.0.1");
    pg_hosts_clear(&h);
    assert_true(pg_hosts_from(&h, "host=a,b port=5433", 1));
    assert_string_equal(h.host, "b,a");
    assert_string_equal(h.port, "5433");
    pg_hosts_clear(&h);
}

static void test_nothing_to_turn(void **state)
{
    struct pg_hosts h;

    (void)state;
    assert_false(pg_hosts_from(&h, "host=a port=1", 1));
    assert_false(pg_hosts_from(&h, "dbname=x", 1));
    assert_false(pg_hosts_from(&h, "no connection string", 1));
    assert_true(!h.host && !h.hostaddr && !h.port);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_one_port_for_all),
        cmocka_unit_test(test_nothing_to_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
