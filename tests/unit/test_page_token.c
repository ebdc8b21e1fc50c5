/* Page tokens: back and forth, and refused where they do not belong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/page_token.h"

#define LIST "/muster.v1.CommandService/ListBatches"

static void test_round_trip(void **state)
{
    (void)state;
    struct page_filter f = page_filter_new(LIST, 7);
    page_filter_add_int(&f, 2);
    char text[PAGE_TOKEN_MAX];
    page_token_write(text, &f, INT64_MAX - 1, "na-me");
    struct page_token token;
    struct status st = {0};
    page_token_read(&token, &st, &f, "page_token", text, 0);
    assert_int_equal(st.code, STATUS_OK);
    assert_true(token.after == INT64_MAX - 1);
    assert_string_equal(token.after_name, "na-me");
}

static void test_longest_name(void **state)
{
    (void)state;
    char name[PAGE_TOKEN_NAME_MAX], text[PAGE_TOKEN_MAX];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    struct page_filter f = page_filter_new(LIST, INT32_MAX);
    page_token_write(text, &f, 0, name);
    struct page_token token;
    struct status st = {0};
    page_token_read(&token, &st, &f, "page_token", text, 0);
    assert_int_equal(st.code, STATUS_OK);
    assert_string_equal(token.after_name, name);
}

static void test_first_page(void **state)
{
    (void)state;
    struct page_filter f = page_filter_new(LIST, 7);
    struct page_token token;
    struct status st = {0};
    page_token_read(&token, &st, &f, "page_token", "", -1);
    assert_int_equal(st.code, STATUS_OK);
    assert_true(token.after == -1);
    assert_string_equal(token.after_name, "");
}

static void refused(const struct page_filter *f, const char *text)
{
    struct page_token token;
    struct status st = {0};
    page_token_read(&token, &st, f, "page_token", text, 0);
    assert_int_equal(st.code, STATUS_INVALID_ARGUMENT);
    assert_string_equal(st.reason, "PAGE_TOKEN_INVALID");
    assert_string_equal(st.violations[0].field, "page_token");
}

/* Made by hand: well-formed, and of this list. */
static void test_out_of_range(void **state)
{
    (void)state;
    struct page_filter f = page_filter_new(LIST, 7);
    static const int64_t after[] = {INT64_MAX, -1, INT64_MIN};
    static const char *const names[] = {"\xff", "na\xc3", "\xed\xa0\x80"};
    char text[PAGE_TOKEN_MAX], longest[PAGE_TOKEN_NAME_MAX + 1];
    for (size_t i = 0; i < sizeof after / sizeof *after; i++) {
        page_token_write(text, &f, after[i], NULL);
        refused(&f, text);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        page_token_write(text, &f, 1, names[i]);
        refused(&f, text);
    }
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    page_token_write(text, &f, 1, longest);
    refused(&f, text);
}

static void test_of_another_list(void **state)
{
    (void)state;
    struct page_filter f = page_filter_new(LIST, 7), tenant = page_filter_new(LIST, 8), filters = f;
    struct page_filter method = page_filter_new("/muster.v1.CommandService/ListCommands", 7);
    page_filter_add(&filters, "x", 1);
    char text[PAGE_TOKEN_MAX];
    page_token_write(text, &f, 1, NULL);
    refused(&tenant, text);
    refused(&filters, text);
    refused(&method, text);
}

static void test_garbage(void **state)
{
    (void)state;
    struct page_filter f = page_filter_new(LIST, 7);
    char text[PAGE_TOKEN_MAX], cut[PAGE_TOKEN_MAX], longest[5000];
    page_token_write(text, &f, 1, "name");
    for (size_t n = 1; n < strlen(text); n++) {
        snprintf(cut, sizeof cut, "%.*s", (int)n, text);
        refused(&f, cut);
    }
    refused(&f, "!!!");
    refused(&f, "\xff\xfe");
    memset(longest, 'A', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    refused(&f, longest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_longest_name),
        cmocka_unit_test(test_first_page), cmocka_unit_test(test_of_another_list),
        cmocka_unit_test(test_garbage),    cmocka_unit_test(test_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
