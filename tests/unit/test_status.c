#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "proto/status.h"

static void names_every_code(void **state)
{
    (void)state;
    assert_string_equal(status_code_name(STATUS_OK), "OK");
    assert_string_equal(status_code_name(STATUS_UNAUTHENTICATED), "UNAUTHENTICATED");
    assert_string_equal(status_code_name((enum status_code)17), "UNKNOWN");
    assert_string_equal(status_code_name((enum status_code) - 1), "UNKNOWN");
}

static void ok_encodes_to_nothing(void **state)
{
    (void)state;
    struct status st = {0};
    struct buf out = {0};
    status_encode(&st, &out);
    assert_int_equal(buf_len(&out), 0);
    buf_free(&out);
}

static void violations_make_an_invalid_argument(void **state)
{
    (void)state;
    struct status st = {0};
    status_violation(&st, "target.ids[3]", "longer than %d bytes", 64);
    assert_int_equal(st.code, STATUS_INVALID_ARGUMENT);
    assert_string_equal(st.reason, "INVALID_FIELD");
    assert_string_equal(st.message, "target.ids[3]: longer than 64 bytes");
    for (int i = 0; i < 40; i++)
        status_violation(&st, "other", "bad");
    assert_int_equal(st.violation_count, 41);
    assert_string_equal(st.message, "target.ids[3]: longer than 64 bytes");

    struct status other = {0};
    status_set(&other, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "no batch");
    status_violation(&other, "id", "unknown");
    assert_int_equal(other.code, STATUS_NOT_FOUND);
}

static void details_survive_the_way_there_and_back(void **state)
{
    (void)state;
    struct status st = {0}, back;
    status_violation(&st, "a", "one");
    status_violation(&st, "b", "two");
    status_metadata(&st, "limit", "%d", 5);
    st.retry_ms = 1250;
    struct buf out = {0};
    status_encode(&st, &out);
    assert_false(out.failed);

    Google__Rpc__Status *raw = google__rpc__status__unpack(NULL, buf_len(&out), buf_head(&out));
    assert_non_null(raw);
    assert_int_equal(raw->n_details, 3);
    assert_string_equal(raw->details[0]->type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    Google__Rpc__ErrorInfo *info =
        google__rpc__error_info__unpack(NULL, raw->details[0]->value.len, raw->details[0]->value.data);
    assert_non_null(info);
    assert_string_equal(info->domain, "muster");
    assert_string_equal(info->reason, "INVALID_FIELD");
    assert_string_equal(info->metadata[0]->key, "limit");
    google__rpc__error_info__free_unpacked(info, NULL);
    google__rpc__status__free_unpacked(raw, NULL);

    assert_true(status_decode(&back, buf_slice(&out)));
    assert_int_equal(back.code, STATUS_INVALID_ARGUMENT);
    assert_string_equal(back.message, "a: one");
    assert_string_equal(back.reason, "INVALID_FIELD");
    assert_string_equal(back.reason_text, "INVALID_FIELD");
    assert_int_equal(back.violation_count, 2);
    assert_string_equal(back.violations[1].field, "b");
    assert_string_equal(back.violations[1].description, "two");
    assert_int_equal(back.metadata_count, 1);
    assert_string_equal(back.metadata[0].value, "5");
    assert_int_equal(back.retry_ms, 1250);
    buf_free(&out);
}

static void every_cut_of_an_encoding_is_harmless(void **state)
{
    (void)state;
    struct status st = {0}, back;
    status_violation(&st, "field", "words");
    status_metadata(&st, "key", "value");
    struct buf out = {0};
    status_encode(&st, &out);
    for (size_t n = 0; n < buf_len(&out); n++)
        (void)!status_decode(&back, (struct slice){buf_head(&out), n});
    assert_false(status_decode(&back, (struct slice){(const uint8_t *)"\xff\xff", 2}));
    buf_free(&out);
}

static void unknown_reasons_are_kept_as_text(void **state)
{
    (void)state;
    struct status st = {0}, back;
    status_set(&st, STATUS_ABORTED, "NEVER_HEARD_OF", "x");
    struct buf out = {0};
    status_encode(&st, &out);
    assert_true(status_decode(&back, buf_slice(&out)));
    assert_string_equal(back.reason, "");
    assert_string_equal(back.reason_text, "NEVER_HEARD_OF");
    buf_free(&out);
}

static void messages_are_cut_at_a_character(void **state)
{
    (void)state;
    struct status st = {0};
    char text[STATUS_MESSAGE_MAX + 16];
    /* 510 bytes of 'x', then two-byte characters: the limit of 511 falls into the first of them. */
    memset(text, 'x', 510);
    strcpy(text + 510, "\xC3\xA9\xC3\xA9");
    status_set(&st, STATUS_INTERNAL, NULL, "%s", text);
    assert_int_equal(strlen(st.message), 510);
    status_set(&st, STATUS_INTERNAL, NULL, "%s", "bad \xff\xc3 byte \xe2\x82\xac \xed\xa0\x80");
    assert_string_equal(st.message, "bad ?? byte \xe2\x82\xac ???");
    status_set(&st, STATUS_INTERNAL, NULL, "%s", "end \xc3");
    assert_string_equal(st.message, "end ?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_every_code),
        cmocka_unit_test(ok_encodes_to_nothing),
        cmocka_unit_test(violations_make_an_invalid_argument),
        cmocka_unit_test(details_survive_the_way_there_and_back),
        cmocka_unit_test(every_cut_of_an_encoding_is_harmless),
        cmocka_unit_test(unknown_reasons_are_kept_as_text),
        cmocka_unit_test(messages_are_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
