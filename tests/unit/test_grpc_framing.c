#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/grpc_framing.h"

static void put_message(struct buf *out, const char *text)
{
    buf_put_u8(out, 0);
    buf_put_u32be(out, (uint32_t)strlen(text));
    buf_put_str(out, text);
}

static const char *const texts[] = {"hello", "", "a longer message, but not a long one", "x"};
#define TEXTS (sizeof texts / sizeof *texts)

/* Feeds `in` in pieces of `step` bytes and checks that the texts come out. */
static void feed(struct slice in, size_t step)
{
    struct grpc_deframer d = {.max = 100};
    size_t seen = 0;
    while (in.len) {
        struct slice piece = {in.data, in.len < step ? in.len : step};
        in.data += piece.len;
        in.len -= piece.len;
        enum grpc_deframe result;
        while ((result = grpc_deframe(&d, &piece)) == GRPC_DEFRAME_DONE) {
            assert_true(seen < TEXTS);
            assert_int_equal(buf_len(&d.body), strlen(texts[seen]));
            assert_memory_equal(buf_slice(&d.body).data, texts[seen], buf_len(&d.body));
            seen++;
            grpc_deframer_next(&d);
        }
        assert_int_equal(result, GRPC_DEFRAME_MORE);
        assert_int_equal(piece.len, 0);
    }
    assert_int_equal(seen, TEXTS);
    assert_true(grpc_deframer_idle(&d));
    buf_free(&d.body);
}

static void messages_come_in_pieces_of_any_size(void **state)
{
    (void)state;
    struct buf in = {0};
    for (size_t i = 0; i < TEXTS; i++)
        put_message(&in, texts[i]);
    for (size_t step = 1; step <= buf_len(&in); step++)
        feed(buf_slice(&in), step);
    buf_free(&in);
}

static enum status_code refused(const char *prefix)
{
    struct grpc_deframer d = {.max = 100};
    struct slice in = {(const uint8_t *)prefix, 5};
    assert_int_equal(grpc_deframe(&d, &in), GRPC_DEFRAME_BAD);
    assert_non_null(d.why);
    assert_null(d.body.data);
    assert_int_equal(grpc_deframe(&d, &in), GRPC_DEFRAME_BAD);
    return d.code;
}

static void bad_prefixes_are_refused_before_any_body(void **state)
{
    (void)state;
    assert_int_equal(refused("\x00\x00\x00\x00\x65"), STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(refused("\x00\xff\xff\xff\xff"), STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(refused("\x01\x00\x00\x00\x01"), STATUS_INTERNAL);
    assert_int_equal(refused("\x02\x00\x00\x00\x01"), STATUS_INTERNAL);
}

static void a_cut_message_is_not_idle(void **state)
{
    (void)state;
    struct grpc_deframer d = {.max = 100};
    struct slice in = {(const uint8_t *)"\0\0\0\0\5ab", 7};
    assert_int_equal(grpc_deframe(&d, &in), GRPC_DEFRAME_MORE);
    assert_false(grpc_deframer_idle(&d));
    buf_free(&d.body);
}

static void timeouts_are_parsed(void **state)
{
    (void)state;
    int64_t ns;
    assert_true(grpc_timeout_parse("1H", &ns));
    assert_int_equal(ns, 3600000000000);
    assert_true(grpc_timeout_parse("2M", &ns));
    assert_int_equal(ns, 120000000000);
    assert_false(grpc_timeout_parse("000000003S", &ns));
    assert_true(grpc_timeout_parse("00000003S", &ns));
    assert_int_equal(ns, 3000000000);
    assert_true(grpc_timeout_parse("100m", &ns));
    assert_int_equal(ns, 100000000);
    assert_true(grpc_timeout_parse("7u", &ns));
    assert_int_equal(ns, 7000);
    assert_true(grpc_timeout_parse("0n", &ns));
    assert_int_equal(ns, 0);
    assert_true(grpc_timeout_parse("99999999H", &ns));
    assert_int_equal(ns, INT64_MAX);
    const char *bad[] = {"", "1", "S", "1s", "-1S", "+1S", "1 S", "1SS", "123456789S", " 1S", "1.5S", "0x1S"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(grpc_timeout_parse(bad[i], &ns));
}

static void timeouts_are_written_without_getting_shorter(void **state)
{
    (void)state;
    char text[GRPC_TIMEOUT_SIZE];
    const int64_t values[] = {
        0, 1, 99999999, 100000000, 1500000000, 99999999001, 86400000000000, 99999999 * 1000000000ll, INT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        int64_t back;
        grpc_timeout_format(values[i], text);
        assert_true(grpc_timeout_parse(text, &back));
        assert_true(back >= values[i]);
    }
    grpc_timeout_format(-5, text);
    assert_string_equal(text, "0n");
    grpc_timeout_format(1500000000, text);
    assert_string_equal(text, "1500000u");
}

static void messages_are_percent_encoded(void **state)
{
    (void)state;
    struct buf out = {0};
    char back[128];
    const char *text = "\t\ntest with whitespace\r\nand Unicode BMP \xE2\x98\xBA and non-BMP \xF0\x9F\x98\x88\t\n";
    grpc_percent_encode(&out, text);
    grpc_percent_encode(&out, "50%");
    assert_memory_equal(buf_head(&out), "%09%0Atest with", 15);
    assert_memory_equal(buf_head(&out) + buf_len(&out) - 5, "50%25", 5);
    grpc_percent_decode((const char *)buf_head(&out), buf_len(&out) - 5, back, sizeof back);
    assert_string_equal(back, text);
    buf_free(&out);
    grpc_percent_decode("a%", 2, back, sizeof back);
    assert_string_equal(back, "a%");
    grpc_percent_decode("%4", 2, back, sizeof back);
    assert_string_equal(back, "%4");
    grpc_percent_decode("%zz%41%6a", 9, back, sizeof back);
    assert_string_equal(back, "%zzAj");
    grpc_percent_decode("abcdef", 6, back, 4);
    assert_string_equal(back, "abc");
}

static void base64_is_read_padded_or_not(void **state)
{
    (void)state;
    const char *plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
    const char *padded[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        uint8_t out[16];
        size_t n, unpadded = strcspn(padded[i], "=");
        assert_true(grpc_base64_decode(padded[i], strlen(padded[i]), out, &n));
        assert_int_equal(n, strlen(plain[i]));
        assert_memory_equal(out, plain[i], n);
        assert_true(grpc_base64_decode(padded[i], unpadded, out, &n));
        assert_int_equal(n, strlen(plain[i]));
        struct buf text = {0};
        grpc_base64_encode(&text, plain[i], strlen(plain[i]));
        assert_int_equal(buf_len(&text), unpadded);
        assert_memory_equal(buf_slice(&text).data, padded[i], unpadded);
        buf_free(&text);
    }
    const char *bad[] = {"A", "Zg=", "Z===", "Zm9=v", "Z g=", "Zh==", "Zg==Zg=="};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t out[16];
        size_t n;
        assert_false(grpc_base64_decode(bad[i], strlen(bad[i]), out, &n));
    }
}

static bool type_ok(const char *value)
{
    return grpc_content_type_ok(value, strlen(value));
}

static void content_types(void **state)
{
    (void)state;
    assert_true(type_ok("application/grpc"));
    assert_true(type_ok("application/grpc+proto"));
    assert_true(type_ok("Application/gRPC; charset=utf-8"));
    assert_true(type_ok("application/grpc+proto;x=y"));
    assert_false(type_ok("application/grpc+json"));
    assert_false(type_ok("application/grpc+protobuf"));
    assert_false(type_ok("application/grpc-web"));
    assert_false(type_ok("application/json"));
    assert_false(type_ok(""));
    assert_true(grpc_key_is_binary("a-bin", 5));
    assert_false(grpc_key_is_binary("bin", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_in_pieces_of_any_size),
        cmocka_unit_test(bad_prefixes_are_refused_before_any_body),
        cmocka_unit_test(a_cut_message_is_not_idle),
        cmocka_unit_test(timeouts_are_parsed),
        cmocka_unit_test(timeouts_are_written_without_getting_shorter),
        cmocka_unit_test(messages_are_percent_encoded),
        cmocka_unit_test(base64_is_read_padded_or_not),
        cmocka_unit_test(content_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
