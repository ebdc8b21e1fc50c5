/* Protobuf messages to JSON and back: the forms of every type, both spellings, refusals with their paths, depth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "muster/v1/command.pb-c.h"
#include "muster/v1/delivery.pb-c.h"
#include "proto/json.h"

/* Reads, writes, compares; `again` may differ where the input has another spelling. */
static void assert_becomes(const ProtobufCMessageDescriptor *d, const char *text, const char *again)
{
    char error[256] = "";
    ProtobufCMessage *m = json_to_message(d, text, strlen(text), error, sizeof error);
    if (!m)
        fail_msg("%s: %s", text, error);
    char *out = json_from_message(m, false);
    assert_non_null(out);
    assert_string_equal(out, again);
    free(out);
    /* What was read is a message like any other: it packs, and unpacks to the same. */
    size_t size = protobuf_c_message_get_packed_size(m);
    uint8_t *packed = malloc(size + 1);
    protobuf_c_message_pack(m, packed);
    ProtobufCMessage *copy = protobuf_c_message_unpack(d, NULL, size, packed);
    assert_non_null(copy);
    out = json_from_message(copy, false);
    assert_string_equal(out, again);
    free(out);
    free(packed);
    protobuf_c_message_free_unpacked(copy, NULL);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void assert_refused(const ProtobufCMessageDescriptor *d, const char *text, const char *why)
{
    char error[256] = "";
    ProtobufCMessage *m = json_to_message(d, text, strlen(text), error, sizeof error);
    if (m)
        fail_msg("%s was taken", text);
    if (!strstr(error, why))
        fail_msg("%s: \"%s\" does not say \"%s\"", text, error, why);
}

#define COMMAND      (&muster__v1__command__descriptor)
#define INFORMATION  (&muster__v1__device_information__descriptor)
#define OPTION       (&google__protobuf__uninterpreted_option__descriptor)
#define FILE_OPTIONS (&google__protobuf__file_options__descriptor)
#define MESSAGE      (&google__protobuf__descriptor_proto__descriptor)
#define TIMESTAMP    (&google__protobuf__timestamp__descriptor)
#define DURATION     (&google__protobuf__duration__descriptor)

static void test_empty(void **state)
{
    (void)state;
    assert_becomes(COMMAND, "", "{}");
    assert_becomes(COMMAND, " \n", "{}");
    assert_becomes(COMMAND, "{}", "{}");
    assert_becomes(COMMAND, "{\"lock\":{}}", "{\"lock\":{}}");
}

static void test_names_enums_and_oneofs(void **state)
{
    (void)state;
    assert_becomes(COMMAND, "{\"lock\":{\"phone_number\":\"1\",\"message\":\"\"}}",
                   "{\"lock\":{\"phoneNumber\":\"1\"}}");
    assert_becomes(COMMAND, "{\"lock\":{\"phoneNumber\":\"1\"},\"wipe\":null}", "{\"lock\":{\"phoneNumber\":\"1\"}}");
    assert_becomes(
        COMMAND,
        "{\"restrictFunctions\":{\"restrictions\":[{\"function\":\"FUNCTION_USB\",\"allowed\":true},{\"function\":1},"
        "{\"function\":77}]}}",
        "{\"restrictFunctions\":{\"restrictions\":[{\"function\":\"FUNCTION_USB\",\"allowed\":true},"
        "{\"function\":\"FUNCTION_CAMERA\"},{\"function\":77}]}}");
    assert_refused(COMMAND, "{\"lock\":{},\"wipe\":{}}", "wipe: only one field of its oneof");
    assert_refused(COMMAND, "{\"lock\":{\"phoneNumber\":\"1\",\"phone_number\":\"2\"}}",
                   "lock.phone_number: given twice");
    assert_refused(COMMAND, "{\"lock\":{},\"lock\":{}}", "line 1, column");
    assert_refused(COMMAND, "{\"lock\":{\"colour\":\"red\"}}", "lock.colour: unknown field");
    assert_refused(COMMAND, "{\"restrictFunctions\":{\"restrictions\":[{},{\"function\":\"FUNCTION_X\"}]}}",
                   "restrictFunctions.restrictions[1].function: \"FUNCTION_X\" is no Function");
    assert_refused(COMMAND, "{\"restrictFunctions\":{\"restrictions\":{}}}",
                   "restrictFunctions.restrictions: expected an array");
    assert_refused(COMMAND, "{\"restrictFunctions\":{\"restrictions\":[null]}}",
                   "restrictFunctions.restrictions[0]: expected an object");
    assert_becomes(COMMAND, "{\"lost_mode\":{\"action\":1,\"footnote\":\"f\"}}",
                   "{\"lostMode\":{\"action\":\"LOST_MODE_ACTION_ENABLE\",\"footnote\":\"f\"}}");
    assert_refused(COMMAND, "{\"lock\":{\"message\":5}}", "lock.message: expected text");
    assert_refused(COMMAND, "{\"unlock\":{\"clearPasscode\":\"true\"}}",
                   "unlock.clearPasscode: expected true or false");
    assert_refused(COMMAND, "[]", "expected an object");
    assert_refused(COMMAND, "5", "expected an object");
    assert_refused(COMMAND, "{\"lock\":", "line 1");
    assert_refused(COMMAND, "{\"lock\":{\"message\":\"\xff\"}}", "line 1");
    assert_refused(COMMAND, "{\"lock\":{\"message\":\"a\\u0000b\"}}", "line 1");
}

static void test_maps(void **state)
{
    (void)state;
    assert_becomes(INFORMATION, "{\"items\":{\"a\":\"1\",\"b \\\"c\":\"\"}}",
                   "{\"items\":{\"a\":\"1\",\"b \\\"c\":\"\"}}");
    assert_becomes(INFORMATION, "{\"items\":{}}", "{}");
    assert_refused(INFORMATION, "{\"items\":{\"a\":1}}", "items[\"a\"]: expected text");
    assert_refused(INFORMATION, "{\"items\":{\"a\":null}}", "items[\"a\"]: expected text");
    assert_refused(INFORMATION, "{\"items\":[]}", "items: expected an object");
}

static void test_numbers(void **state)
{
    (void)state;
    /* Presence is explicit in this one (proto2): zeros are shown. */
    assert_becomes(OPTION,
                   "{\"positiveIntValue\":\"18446744073709551615\",\"negativeIntValue\":\"-9223372036854775808\"}",
                   "{\"positiveIntValue\":\"18446744073709551615\",\"negativeIntValue\":\"-9223372036854775808\"}");
    assert_becomes(OPTION, "{\"positiveIntValue\":7,\"negativeIntValue\":-7.0,\"doubleValue\":0}",
                   "{\"positiveIntValue\":\"7\",\"negativeIntValue\":\"-7\",\"doubleValue\":0}");
    assert_becomes(OPTION, "{\"doubleValue\":0.1}", "{\"doubleValue\":0.1}");
    assert_becomes(OPTION, "{\"doubleValue\":\"1.7976931348623157e308\"}", "{\"doubleValue\":1.7976931348623157e+308}");
    assert_becomes(OPTION, "{\"doubleValue\":\"-Infinity\"}", "{\"doubleValue\":\"-Infinity\"}");
    assert_becomes(OPTION, "{\"doubleValue\":-0e7}", "{\"doubleValue\":-0.0}");
    assert_becomes(OPTION, "{\"doubleValue\":\"NaN\"}", "{\"doubleValue\":\"NaN\"}");
    assert_refused(OPTION, "{\"positiveIntValue\":-1}", "positiveIntValue: must be between 0");
    assert_refused(OPTION, "{\"positiveIntValue\":\"18446744073709551616\"}",
                   "positiveIntValue: expected a whole number");
    assert_refused(OPTION, "{\"positiveIntValue\":\"\"}", "positiveIntValue");
    assert_refused(OPTION, "{\"positiveIntValue\":\" 1\"}", "positiveIntValue");
    assert_refused(OPTION, "{\"negativeIntValue\":1.5}", "negativeIntValue: expected a whole number");
    assert_refused(OPTION, "{\"negativeIntValue\":1e300}", "negativeIntValue: expected a whole number");
    assert_refused(OPTION, "{\"negativeIntValue\":true}", "negativeIntValue: expected a number");
    assert_refused(OPTION, "{\"doubleValue\":\"inf\"}", "doubleValue: expected a number");
    assert_refused(OPTION, "{\"doubleValue\":\"0x10\"}", "doubleValue: expected a number");
    assert_becomes(MESSAGE, "{\"field\":[{\"number\":-2147483648}]}", "{\"field\":[{\"number\":-2147483648}]}");
    assert_refused(MESSAGE, "{\"field\":[{\"number\":2147483648}]}", "field[0].number: must be between");
    assert_becomes(FILE_OPTIONS, "{\"javaMultipleFiles\":false}", "{\"javaMultipleFiles\":false}");
}

static void test_bytes(void **state)
{
    (void)state;
    assert_becomes(OPTION, "{\"stringValue\":\"\"}", "{\"stringValue\":\"\"}");
    assert_becomes(OPTION, "{\"stringValue\":\"AA\"}", "{\"stringValue\":\"AA==\"}");
    assert_becomes(OPTION, "{\"stringValue\":\"AAE=\"}", "{\"stringValue\":\"AAE=\"}");
    assert_becomes(OPTION, "{\"stringValue\":\"-_-_\"}", "{\"stringValue\":\"+/+/\"}");
    assert_becomes(OPTION, "{\"stringValue\":\"bGlnaHQgd29yay4=\"}", "{\"stringValue\":\"bGlnaHQgd29yay4=\"}");
    assert_refused(OPTION, "{\"stringValue\":\"A\"}", "stringValue: is not base64");
    assert_refused(OPTION, "{\"stringValue\":\"AA=A\"}", "stringValue: is not base64");
    assert_refused(OPTION, "{\"stringValue\":\"AA===\"}", "stringValue: is not base64");
    assert_refused(OPTION, "{\"stringValue\":1}", "stringValue: expected base64 text");
}

static void test_text_is_escaped(void **state)
{
    (void)state;
    assert_becomes(
        COMMAND, "{\"lock\":{\"message\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f\\/bfnrt \xc3\xa4\xf0\x9f\x94\x92\"}}",
        "{\"lock\":{\"message\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f/bfnrt \xc3\xa4\xf0\x9f\x94\x92\"}}");
    /* A message made by code may hold anything. */
    Muster__V1__LockCommand lock = MUSTER__V1__LOCK_COMMAND__INIT;
    lock.message = (char *)"a\xff\xc0\x80\xed\xa0\x80\xe2\x82";
    char *out = json_from_message(&lock.base, false);
    assert_string_equal(out, "{\"message\":\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                             "\xef\xbf\xbd\xef\xbf\xbd\"}");
    free(out);
}

static void test_times(void **state)
{
    (void)state;
    static const char *const stamps[] = {
        "\"1970-01-01T00:00:00Z\"",           "\"2026-01-02T03:04:05.678Z\"",    "\"0001-01-01T00:00:00Z\"",
        "\"9999-12-31T23:59:59.999999999Z\"", "\"2024-02-29T12:00:00.000001Z\"", "\"1969-12-31T23:59:59.500Z\"",
        "\"2000-02-29T00:00:00Z\"",           "\"1900-03-01T00:00:00Z\"",
    };
    for (unsigned i = 0; i < sizeof stamps / sizeof *stamps; i++)
        assert_becomes(TIMESTAMP, stamps[i], stamps[i]);
    assert_becomes(TIMESTAMP, "\"2026-01-02T03:04:05.67+02:30\"", "\"2026-01-02T00:34:05.670Z\"");
    static const char *const no_stamps[] = {"\"\"",
                                            "\"2026-02-29T00:00:00Z\"",
                                            "\"2026-13-01T00:00:00Z\"",
                                            "\"2026-01-01T24:00:00Z\"",
                                            "\"2026-01-01 00:00:00Z\"",
                                            "\"2026-01-01T00:00:00\"",
                                            "\"2026-01-01T00:00:00.Z\"",
                                            "\"2026-01-01T00:00:00.1234567890Z\"",
                                            "\"0000-01-01T00:00:00Z\"",
                                            "\"0001-01-01T00:00:00+00:01\"",
                                            "\"2026-01-01T00:00:00Zx\"",
                                            "5",
                                            "{}",
                                            "\"1900-02-29T00:00:00Z\""};
    for (unsigned i = 0; i < sizeof no_stamps / sizeof *no_stamps; i++)
        assert_refused(TIMESTAMP, no_stamps[i], "expected a time");

    static const char *const durations[] = {"\"0s\"", "\"3.500s\"", "\"-0.000001s\"", "\"-315576000000s\"",
                                            "\"1.000000001s\""};
    for (unsigned i = 0; i < sizeof durations / sizeof *durations; i++)
        assert_becomes(DURATION, durations[i], durations[i]);
    static const char *const no_durations[] = {"\"\"", "\"s\"", "\"1\"", "\"1.s\"", "\"--1s\"", "\"315576000001s\"",
                                               "1"};
    for (unsigned i = 0; i < sizeof no_durations / sizeof *no_durations; i++)
        assert_refused(DURATION, no_durations[i], "expected a duration");

    Google__Protobuf__Timestamp bad = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    bad.seconds = INT64_MAX;
    assert_null(json_from_message(&bad.base, false));
}

/* Every day from year 1 to 9999 in steps of a day and an hour goes there and back. */
static void test_every_date(void **state)
{
    (void)state;
    for (int64_t s = -62135596800; s <= 253402300799; s += 90000 * 37) {
        Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        t.seconds = s;
        char *text = json_from_message(&t.base, false), error[64];
        assert_non_null(text);
        ProtobufCMessage *m = json_to_message(TIMESTAMP, text, strlen(text), error, sizeof error);
        assert_non_null(m);
        assert_int_equal(((Google__Protobuf__Timestamp *)m)->seconds, s);
        free(text);
        protobuf_c_message_free_unpacked(m, NULL);
    }
}

static void test_depth(void **state)
{
    (void)state;
    enum { LEVELS = 5000 };
    char *text = malloc(LEVELS * 20), error[256];
    assert_non_null(text);
    for (unsigned levels = 60; levels <= LEVELS; levels = levels < 70 ? levels + 1 : levels * 4) {
        size_t n = 0;
        for (unsigned i = 0; i < levels; i++)
            n += (size_t)sprintf(text + n, "{\"nestedType\":[");
        for (unsigned i = 0; i < levels; i++)
            n += (size_t)sprintf(text + n, "]}");
        ProtobufCMessage *m = json_to_message(MESSAGE, text, n, error, sizeof error);
        assert_true((m != NULL) == (levels <= JSON_DEPTH_MAX));
        if (m)
            free(json_from_message(m, true));
        protobuf_c_message_free_unpacked(m, NULL);
    }
    free(text);
    Google__Protobuf__DescriptorProto deep[100], *next[100];
    for (int i = 99; i >= 0; i--) {
        google__protobuf__descriptor_proto__init(&deep[i]);
        next[i] = &deep[i];
        if (i < 99) {
            deep[i].n_nested_type = 1;
            deep[i].nested_type = &next[i + 1];
        }
    }
    assert_null(json_from_message(&deep[0].base, false));
    char *out = json_from_message(&deep[60].base, false);
    assert_non_null(out);
    free(out);
}

static void test_pretty(void **state)
{
    (void)state;
    const char *text = "{\n  \"restrictFunctions\": {\n    \"restrictions\": [\n      {\n        \"allowed\": true\n   "
                       "   },\n      {}\n"
                       "    ]\n  }\n}\n";
    char error[64];
    ProtobufCMessage *m = json_to_message(COMMAND, text, strlen(text), error, sizeof error);
    assert_non_null(m);
    char *out = json_from_message(m, true);
    assert_string_equal(out, text);
    free(out);
    protobuf_c_message_free_unpacked(m, NULL);
}

/* A small error buffer and every cut of a valid text. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    const char *text = "{\"restrictFunctions\":{\"restrictions\":[{\"function\":\"FUNCTION_USB\",\"allowed\":true},{"
                       "\"function\":1}]}}";
    char error[8];
    for (size_t n = 1; n < strlen(text); n++) {
        char *exact = malloc(n);
        assert_non_null(exact);
        memcpy(exact, text, n);
        assert_null(json_to_message(COMMAND, exact, n, error, sizeof error));
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),        cmocka_unit_test(test_names_enums_and_oneofs),
        cmocka_unit_test(test_maps),         cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_bytes),        cmocka_unit_test(test_text_is_escaped),
        cmocka_unit_test(test_times),        cmocka_unit_test(test_every_date),
        cmocka_unit_test(test_depth),        cmocka_unit_test(test_pretty),
        cmocka_unit_test(test_cut_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
