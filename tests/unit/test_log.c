/* Log lines: form, threshold, quoting, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

/* What `write_lines` sends to standard error, at most 64 KiB. */
static const char *captured(void (*write_lines)(void))
{
    static char out[65536];
    int fds[2], kept = dup(2);
    assert_int_equal(pipe(fds), 0);
    dup2(fds[1], 2);
    close(fds[1]);
    write_lines();
    dup2(kept, 2);
    close(kept);
    ssize_t n = read(fds[0], out, sizeof out - 1);
    if (n < 0)
        n = 0;
    out[n] = 0;
    close(fds[0]);
    return out;
}

static void plain_lines(void)
{
    log_init("muster-test", LOG_INFO);
    log_debug("hidden", "a=%d", 1);
    log_info("shown", "a=%d b=%s", 1, log_quote("x y"));
    log_warn("bare", "%s", "");
}

static void test_lines(void **state)
{
    (void)state;
    const char *out = captured(plain_lines);
    assert_null(strstr(out, "hidden"));
    assert_int_equal(strncmp(out, "ts=20", 5), 0);
    assert_int_equal(out[3 + 23], 'Z');
    assert_non_null(strstr(out, "Z level=info process=muster-test event=shown a=1 b=\"x y\"\n"));
    assert_non_null(strstr(out, " level=warn process=muster-test event=bare"));
}

static void long_line(void)
{
    char big[10000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    log_error("long", "v=%s", big);
}

static void test_long_line_is_cut(void **state)
{
    (void)state;
    const char *out = captured(long_line);
    assert_int_equal(strlen(out), 4096);
    assert_int_equal(out[4095], '\n');
}

static void test_quote(void **state)
{
    (void)state;
    assert_string_equal(log_quote("a\"b\\c\n\r\t\x01\xff"), "\"a\\\"b\\\\c\\n\\r\\t\\x01\\xff\"");
    assert_string_equal(log_quote(NULL), "null");
    assert_string_equal(log_quote_n("a\0b", 3), "\"a\\x00b\"");
    char big[1000];
    memset(big, 1, sizeof big);
    const char *quoted = log_quote_n(big, sizeof big);
    assert_int_equal(strlen(quoted), 256 * 4 + 5);
    assert_string_equal(quoted + strlen(quoted) - 4, "...\"");
    /* Four at a time live side by side. */
    const char *one = log_quote("1"), *two = log_quote("2"), *three = log_quote("3"), *four = log_quote("4");
    assert_string_equal(one, "\"1\"");
    assert_string_equal(two, "\"2\"");
    assert_string_equal(three, "\"3\"");
    assert_string_equal(four, "\"4\"");
}

static void test_levels(void **state)
{
    (void)state;
    enum log_level level = LOG_DEBUG;
    assert_int_equal(log_level_parse("warn", &level), 0);
    assert_int_equal(level, LOG_WARN);
    assert_int_equal(log_level_parse("loud", &level), -1);
    assert_int_equal(level, LOG_WARN);
}

static void test_clock(void **state)
{
    (void)state;
    assert_true(clock_wall_ms() > 1600000000000);
    int64_t before = clock_mono_us();
    assert_true(clock_mono_us() >= before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_long_line_is_cut),
        cmocka_unit_test(test_quote), cmocka_unit_test(test_levels),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
