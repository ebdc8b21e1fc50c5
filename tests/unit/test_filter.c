/* The filter language: what is a filter and what it means, where and why a text is none, and its limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/filter.h"

static struct slice slice_of(const char *text)
{
    return (struct slice){(const uint8_t *)text, strlen(text)};
}

/* The program as text: tests as field op(values), then the operators. */
static void write_program(const struct filter *f, char *out, size_t size)
{
    static const char *const names[] = {"id", "platform", "os", "model", "tag", "group", "attr", "seen"};
    static const char *const ops[] = {"any", "prefix", "exists", "<", "<=", ">", ">=", "==", "within"};
    size_t at = 0, depth = 0;
    for (size_t i = 0; i < f->step_count; i++) {
        const struct filter_step *step = &f->steps[i];
        const struct filter_test *t = &f->tests[step->test];
        depth += step->kind == FILTER_TEST ? 1u : step->kind == FILTER_NOT ? 0u : (size_t)-1;
        assert_in_range(depth, 1, FILTER_STACK_MAX);
        if (i)
            at += (size_t)snprintf(out + at, size - at, " ");
        if (step->kind != FILTER_TEST) {
            at += (size_t)snprintf(out + at, size - at, "%s",
                                   step->kind == FILTER_NOT   ? "NOT"
                                   : step->kind == FILTER_AND ? "AND"
                                                              : "OR");
            continue;
        }
        at += (size_t)snprintf(out + at, size - at, "%s%s%s %s(", names[t->field], *t->name ? "." : "", t->name,
                               ops[t->op]);
        for (size_t v = 0; v < t->value_count; v++)
            at += (size_t)snprintf(out + at, size - at, "%s%s", v ? "," : "", f->values[t->first_value + v].text);
        if (t->op == FILTER_WITHIN)
            at += (size_t)snprintf(out + at, size - at, "%lldh", (long long)t->ms / 3600000);
        at += (size_t)snprintf(out + at, size - at, ")");
        assert_true(at < size);
    }
    assert_int_equal(depth, 1);
}

static void means(void **state)
{
    (void)state;
    static const struct {
        const char *text, *program;
    } table[] = {
        {"os_version < 17.2 and tag = \"store-12\" and last_seen within 7d",
         "os <(17.2) tag any(store-12) AND seen within(168h) AND"},
        {"tag=a", "tag any(a)"},
        {"tag!=a", "tag any(a) NOT"},
        {"tag in (a, \"b c\",d)", "tag any(a,b c,d)"},
        {"tag not in (a)", "tag any(a) NOT"},
        {"tag exists", "tag exists()"},
        {"not tag exists", "tag exists() NOT"},
        {"NOT NOT tag EXISTS", "tag exists()"},
        {"not (not tag exists)", "tag exists()"},
        {"not tag != a", "tag any(a)"},
        {"tag = a or tag = b and tag = c", "tag any(a) tag any(b) tag any(c) AND OR"},
        {"(tag = a or tag = b) and tag = c", "tag any(a) tag any(b) OR tag any(c) AND"},
        {"not tag = a and tag = b", "tag any(a) NOT tag any(b) AND"},
        {"not (tag = a and tag = b)", "tag any(a) tag any(b) AND NOT"},
        {"tag = a OR\n\ttag = b\r\n", "tag any(a) tag any(b) OR"},
        {"platform = ios", "platform any(ios)"},
        {"platform in (Android, \"windows\")", "platform any(Android,windows)"},
        {"platform != unspecified", "platform any(unspecified) NOT"},
        {"device_id startswith store-12-", "id prefix(store-12-)"},
        {"device_id not startswith \"x:@\"", "id prefix(x:@) NOT"},
        {"device_id in (a,b)", "id any(a,b)"},
        {"os_version = 17.2", "os ==(17.2)"},
        {"os_version = \"17.2\"", "os ==(17.2)"},
        {"os_version = \"17.2 beta\"", "os any(17.2 beta)"},
        {"os_version in (beta, 17.2, \"x\", 17.3)", "os ==(17.2,17.3) os any(beta,x) OR"},
        {"os_version not in (beta, 17.2)", "os ==(17.2) os any(beta) OR NOT"},
        {"os_version <= 10.0.19045.3803", "os <=(10.0.19045.3803)"},
        {"os_version > 17", "os >(17)"},
        {"os_version >= \"17.0\"", "os >=(17.0)"},
        {"os_version startswith \"17.\"", "os prefix(17.)"},
        {"os_version exists", "os exists()"},
        {"model startswith iPhone", "model prefix(iPhone)"},
        {"group = vip", "group any(vip)"},
        {"group not in (vip, staff)", "group any(vip,staff) NOT"},
        {"attr.department = \"sales\"", "attr.department any(sales)"},
        {"attr.cost-center_2.eu = 4711", "attr.cost-center_2.eu any(4711)"},
        {"attr.level >= 3", "attr.level >=(3)"},
        {"attr.in exists", "attr.in exists()"},
        {"attr.zone = Europe/Berlin", "attr.zone any(Europe/Berlin)"},
        {"last_seen within 1h", "seen within(1h)"},
        {"last_seen not within 2w", "seen within(336h) NOT"},
        {"last_seen within 366d", "seen within(8784h)"},
        {"tag = \"a\\\"b\\\\\"", "tag any(a\"b\\)"},
        {"tag = \"\"", "tag any()"},
        {"tag = \"Fuß 日本 🦊\"", "tag any(Fuß 日本 🦊)"},
    };
    struct filter *f = malloc(sizeof *f);
    struct filter_error error;
    char program[4096];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!filter_parse(f, slice_of(table[i].text), &error))
            fail_msg("%s: line %u, column %u: expected %s, found %s", table[i].text, error.line, error.column,
                     error.expected, error.found);
        write_program(f, program, sizeof program);
        assert_string_equal(program, table[i].program);
    }
    assert_true(filter_parse(f, slice_of("platform in (Android, windows)"), &error));
    assert_int_equal(f->values[0].platform, 5);
    assert_int_equal(f->values[1].platform, 6);
    free(f);
}

#define FIELD     "a field (device_id, platform, os_version, model, tag, group, attr.NAME, last_seen), not or ("
#define VALUE     "a value: a word, or text in double quotes"
#define PLATFORMS "a platform (unspecified, ios, ipados, macos, tvos, android, windows)"
#define DURATION  "a duration from 1h to 366d, such as 12h, 7d or 2w"
#define ORDERED   "=, !=, <, <=, >, >=, in, not in, startswith or exists"

static void says_where(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line, column;
        size_t offset;
        const char *expected, *found;
    } table[] = {
        {"", 1, 1, 0, FIELD, "the end"},
        {"  \n ", 2, 2, 4, FIELD, "the end"},
        {"tag = a and", 1, 12, 11, FIELD, "the end"},
        {"tag = a tag = b", 1, 9, 8, "and, or, the end", "\"tag\""},
        {"tag = a)", 1, 8, 7, "and, or, the end", "\")\""},
        {"(tag = a", 1, 9, 8, "and, or, )", "the end"},
        {"(tag = a b", 1, 10, 9, "and, or, )", "\"b\""},
        {"colour = red", 1, 1, 0, FIELD, "\"colour\""},
        {"Tag = a", 1, 1, 0, FIELD, "\"Tag\""},
        {"attr = a", 1, 1, 0, FIELD, "\"attr\""},
        {"attr. = a", 1, 1, 0, "attr.NAME with a name of 1 to 64 of A-Z a-z 0-9 _ . -", "\"attr.\""},
        {"attr.a@b = a", 1, 1, 0, "attr.NAME with a name of 1 to 64 of A-Z a-z 0-9 _ . -", "\"attr.a@b\""},
        {"\"tag\" = a", 1, 1, 0, FIELD, "\"tag\""},
        {"tag a", 1, 5, 4, "=, !=, in, not in, startswith or exists", "\"a\""},
        {"tag < 17", 1, 5, 4, "=, !=, in, not in, startswith or exists", "\"<\""},
        {"tag == a", 1, 6, 5, VALUE, "\"=\""},
        {"tag =", 1, 6, 5, VALUE, "the end"},
        {"tag = and", 1, 7, 6, VALUE, "\"and\""},
        {"tag = (a)", 1, 7, 6, VALUE, "\"(\""},
        {"tag in a", 1, 8, 7, "(", "\"a\""},
        {"tag in ()", 1, 9, 8, VALUE, "\")\""},
        {"tag in (a b)", 1, 11, 10, ", or )", "\"b\""},
        {"tag in (a,)", 1, 11, 10, VALUE, "\")\""},
        {"tag not = a", 1, 9, 8, "in or startswith", "\"=\""},
        {"group not startswith a", 1, 11, 10, "in", "\"startswith\""},
        {"group exists", 1, 7, 6, "=, !=, in or not in", "\"exists\""},
        {"device_id exists", 1, 11, 10, "=, !=, in, not in or startswith", "\"exists\""},
        {"platform startswith a", 1, 10, 9, "=, !=, in or not in", "\"startswith\""},
        {"platform = beos", 1, 12, 11, PLATFORMS, "\"beos\""},
        {"platform in (ios, \"be os\")", 1, 19, 18, PLATFORMS, "\"be os\""},
        {"os_version < beta", 1, 14, 13, "a version such as 17.2", "\"beta\""},
        {"os_version < 17.", 1, 14, 13, "a version such as 17.2", "\"17.\""},
        {"os_version < 1234567890", 1, 14, 13, "a version such as 17.2", "\"1234567890\""},
        {"os_version < 1.2.3.4.5.6.7.8.9", 1, 14, 13, "a version such as 17.2", "\"1.2.3.4.5.6.7.8.9\""},
        {"os_version <", 1, 13, 12, "a version such as 17.2", "the end"},
        {"os_version within 7d", 1, 12, 11, ORDERED, "\"within\""},
        {"last_seen = 7d", 1, 11, 10, "within or not within", "\"=\""},
        {"last_seen not in (7d)", 1, 15, 14, "within", "\"in\""},
        {"last_seen within 5m", 1, 18, 17, DURATION, "\"5m\""},
        {"last_seen within 0h", 1, 18, 17, DURATION, "\"0h\""},
        {"last_seen within 367d", 1, 18, 17, DURATION, "\"367d\""},
        {"last_seen within 99999999999999999999d", 1, 18, 17, DURATION, "\"99999999999999999999d\""},
        {"last_seen within d", 1, 18, 17, DURATION, "\"d\""},
        {"last_seen within \"7d\"", 1, 18, 17, DURATION, "\"7d\""},
        {"tag = \"a", 1, 7, 6, "a closing \" on the same line", "\"\"\""},
        {"tag = \"a\n\"", 1, 7, 6, "a closing \" on the same line", "\"\"\""},
        {"tag = \"a\\\"", 1, 7, 6, "a closing \" on the same line", "\"\"\""},
        {"tag = \"ü\\\\\\n\"", 1, 11, 11, "\\\" or \\\\", "\"\\n\""},
        {"tag = a;", 1, 8, 7, "and, or, the end", "\";\""},
        {"tag = 'a'", 1, 7, 6, VALUE, "\"'\""},
        {"tag = a & tag = b", 1, 9, 8, "and, or, the end", "\"&\""},
        {"tag = \"ü日🦊\" x", 1, 13, 18, "and, or, the end", "\"x\""},
        {"tag = \"ü\" and\n\ttag = \"日\" or\n\t nope", 3, 3, 33, FIELD, "\"nope\""},
        {"tag = \xff", 1, 7, 6, "UTF-8", "a byte 0xff"},
        {"tag = \"ü\xc3\x28\"", 1, 9, 9, "UTF-8", "a byte 0xc3"},
        {"tag = a ünd", 1, 9, 8, "and, or, the end", "\"ü\""},
        {"tag = a abcdefghijklmnopqrstuvwxyz", 1, 9, 8, "and, or, the end", "\"abcdefghijklmnopqrstuvwx…\""},
        {"not", 1, 4, 3, FIELD, "the end"},
        {"()", 1, 2, 1, FIELD, "\")\""},
    };
    struct filter *f = malloc(sizeof *f);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct filter_error error = {0};
        if (filter_parse(f, slice_of(table[i].text), &error))
            fail_msg("%s: is a filter", table[i].text);
        if (error.line != table[i].line || error.column != table[i].column || error.offset != table[i].offset ||
            strcmp(error.expected, table[i].expected) != 0 || strcmp(error.found, table[i].found) != 0)
            fail_msg("%s: line %u, column %u, offset %zu: expected %s, found %s", table[i].text, error.line,
                     error.column, error.offset, error.expected, error.found);
    }
    free(f);
}

/* `unit` as often as it says, between two texts. */
static char *repeated(const char *before, const char *unit, size_t times, const char *after)
{
    struct buf b = {0};
    buf_put_str(&b, before);
    for (size_t i = 0; i < times; i++)
        buf_put_str(&b, unit);
    buf_put_str(&b, after);
    char *text = buf_take_str(&b);
    assert_non_null(text);
    return text;
}

/* The last that is allowed, and the first that is not. */
static void keeps_its_limits(void **state)
{
    (void)state;
    char name[FILTER_NAME_MAX + 10], fitting[80];
    static const struct {
        const char *before, *unit, *after;
        size_t fits;
        const char *expected;
    } table[] = {
        {"tag = a", " or tag = a", "", FILTER_TESTS_MAX - 1, "at most 64 tests"},
        {"tag in (a", ",a", ")", FILTER_VALUES_MAX - 1, "at most 256 values"},
        {"tag = \"", "x", "\"", FILTER_VALUE_MAX, "a value of at most 256 bytes"},
        {"tag = a", " ", "", FILTER_BYTES_MAX - 7, "at most 4096 bytes"},
        {"", "not ", "tag = a", FILTER_DEPTH_MAX, "at most 16 of ( and not in one another"},
    };
    struct filter *f = malloc(sizeof *f);
    struct filter_error error;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char *text = repeated(table[i].before, table[i].unit, table[i].fits, table[i].after);
        assert_true(filter_parse(f, slice_of(text), &error));
        free(text);
        text = repeated(table[i].before, table[i].unit, table[i].fits + 1, table[i].after);
        assert_false(filter_parse(f, slice_of(text), &error));
        assert_string_equal(error.expected, table[i].expected);
        free(text);
    }
    for (size_t depth = FILTER_DEPTH_MAX; depth <= FILTER_DEPTH_MAX + 1; depth++) {
        char *open = repeated("", "(tag = a or tag = b and ", depth, "os_version in (1, b)");
        char *text = repeated(open, ")", depth, "");
        char program[4096];
        assert_int_equal(filter_parse(f, slice_of(text), &error), depth == FILTER_DEPTH_MAX);
        if (depth == FILTER_DEPTH_MAX)
            write_program(f, program, sizeof program); /* looks at the depth of the stack */
        free(open);
        free(text);
    }
    memset(name, 'n', sizeof name);
    snprintf(fitting, sizeof fitting, "attr.%.*s exists", (int)FILTER_NAME_MAX, name);
    assert_true(filter_parse(f, slice_of(fitting), &error));
    snprintf(fitting, sizeof fitting, "attr.%.*s exists", (int)FILTER_NAME_MAX + 1, name);
    assert_false(filter_parse(f, slice_of(fitting), &error));
    assert_string_equal(error.expected, "attr.NAME with a name of 1 to 64 of A-Z a-z 0-9 _ . -");
    free(f);
}

/* The longest program: a "not" wherever one can be. */
static void longest_program_fits(void **state)
{
    (void)state;
    struct filter *f = malloc(sizeof *f);
    struct filter_error error;
    char *text = repeated("not(tag!=a", " or not(tag!=a)", FILTER_TESTS_MAX - 1, ")");
    assert_true(filter_parse(f, slice_of(text), &error));
    assert_true(f->step_count <= FILTER_STEPS_MAX);
    free(text);
    text = repeated("", "not(tag!=a or ", FILTER_DEPTH_MAX / 2, "tag=a");
    char *whole = repeated(text, ")", FILTER_DEPTH_MAX / 2, "");
    assert_true(filter_parse(f, slice_of(whole), &error));
    free(text);
    free(whole);
    free(f);
}

static void knows_versions(void **state)
{
    (void)state;
    static const char *const good[] = {"0", "17", "17.2", "10.0.19045.3803", "1.2.3.4.5.6.7.8", "999999999.0"};
    static const char *const bad[] = {
        "", ".", "17.", ".1", "1..2", "1.a", "v1", "1 ", "-1", "1.2.3.4.5.6.7.8.9", "1234567890"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(filter_is_version(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(filter_is_version(bad[i]));
    assert_true(filter_name_ok("cost-center.EU_2"));
    assert_false(filter_name_ok(""));
    assert_false(filter_name_ok("a b"));
    assert_false(filter_name_ok("ü"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means),
        cmocka_unit_test(says_where),
        cmocka_unit_test(keeps_its_limits),
        cmocka_unit_test(longest_program_fits),
        cmocka_unit_test(knows_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
