/* Which addresses are public. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <string.h>

#include "lib/base/address_public.h"

static bool is_public(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return address_is_public((const struct sockaddr *)&v4);
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return address_is_public((const struct sockaddr *)&v6);
}

static void those_of_the_internet_are(void **state)
{
    static const char *const addresses[] = {
        "1.1.1.1",         "8.8.8.8",          "9.255.255.255",   "11.0.0.0",        "100.63.255.255",  "100.128.0.0",
        "126.255.255.255", "128.0.0.1",        "169.253.1.1",     "172.15.255.255",  "172.32.0.0",      "192.167.1.1",
        "192.169.0.1",     "198.17.255.255",   "198.20.0.0",      "223.255.255.255", "2606:4700::1111", "2a00:1450::1",
        "::ffff:8.8.8.8",  "64:ff9b::808:808", "2002:808:808::1",
    };
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
        if (!is_public(addresses[i]))
            fail_msg("%s", addresses[i]);
}

static void those_that_lead_inside_are_not(void **state)
{
    static const char *const addresses[] = {
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "4000::1",
    };
    struct sockaddr other = {.sa_family = AF_UNIX};
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
        if (is_public(addresses[i]))
            fail_msg("%s", addresses[i]);
    assert_false(address_is_public(&other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_of_the_internet_are),
        cmocka_unit_test(those_that_lead_inside_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
