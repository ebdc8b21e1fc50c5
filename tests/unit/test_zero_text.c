/* Which text of a message has a zero byte: whole messages, every cut of one, and bytes that may have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "muster/v1/command_service.pb-c.h"
#include "proto/varint.h"
#include "proto/zero_text.h"

/* A length before `content`, as the field of this number. */
static void put(struct buf *out, uint32_t number, const void *content, size_t len)
{
    varint_put(out, number << 3 | WIRE_BYTES);
    varint_put(out, len);
    buf_put(out, content, len);
}

static void put_message(struct buf *out, uint32_t number, struct buf *inner)
{
    put(out, number, buf_slice(inner).data, buf_len(inner));
    buf_free(inner);
}

static const char *found(const struct buf *b)
{
    static char field[ZERO_TEXT_FIELD];
    memset(field, 'x', sizeof field);
    bool any = zero_text_find(&muster__v1__submit_batch_request__descriptor, buf_slice(b), field);
    assert_true(memchr(field, 0, sizeof field) && any == (field[0] != 0));
    return any ? field : NULL;
}

static void test_where(void **state)
{
    (void)state;
    struct buf ids = {0}, exclude = {0}, target = {0}, request = {0};
    put(&request, 1, "id", 2);
    assert_null(found(&request));
    put(&ids, 1, "a", 1);
    put(&ids, 1, "b\0c", 3);
    put_message(&exclude, 2, &ids);
    put_message(&target, 6, &exclude);
    put_message(&request, 3, &target);
    assert_string_equal(found(&request), "target.exclude.devices.ids[1]");
    put(&request, 4, "\0", 1); /* a later one */
    assert_string_equal(found(&request), "target.exclude.devices.ids[1]");
    buf_free(&request);
    put(&request, 4, "\0", 1);
    assert_string_equal(found(&request), "description");
    buf_free(&request);
}

/* Fields that may have some cost no more for being many: squared, this would take hours. */
static void test_many(void **state)
{
    (void)state;
    struct buf request = {0}, target = {0};
    varint_put(&target, 7 << 3 | WIRE_VARINT);
    varint_put(&target, 0);
    for (int i = 0; i < 2000000; i++)
        put(&request, 3, buf_slice(&target).data, buf_len(&target));
    assert_null(found(&request));
    buf_free(&target);
    buf_free(&request);
}

/* Bytes, numbers, lengths and fields that nobody knows may have them. */
static void test_where_they_may_be(void **state)
{
    (void)state;
    struct buf custom = {0}, command = {0}, request = {0};
    put(&custom, 1, "type", 4);
    put(&custom, 2, "a\0b", 3);
    put_message(&command, 12, &custom);
    put_message(&request, 2, &command);
    put(&request, 3, "", 0);
    put(&request, 999, "\0\0", 2);
    varint_put(&request, 7 << 3 | WIRE_VARINT);
    varint_put(&request, 0);
    varint_put(&request, 998 << 3 | WIRE_FIXED64);
    buf_put(&request, "\0\0\0\0\0\0\0\0", 8);
    varint_put(&request, 997 << 3 | WIRE_FIXED32);
    buf_put(&request, "\0\0\0\0", 4);
    assert_null(found(&request));
    put(&request, 1, "r\0", 2);
    assert_string_equal(found(&request), "request_id");
    buf_free(&request);
}

static void test_cut_and_deep(void **state)
{
    (void)state;
    struct buf target = {0}, request = {0};
    put(&target, 5, "x\0", 2);
    for (int i = 0; i < 100; i++) {
        struct buf outer = {0};
        put_message(&outer, 6, &target);
        target = outer;
    }
    put_message(&request, 3, &target);
    assert_null(found(&request)); /* no request is so deep; and the path does not overflow */
    for (size_t n = 0; n <= buf_len(&request); n++) {
        struct buf cut = {0};
        buf_put(&cut, buf_slice(&request).data, n);
        assert_null(found(&cut));
        buf_free(&cut);
    }
    buf_free(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_where_they_may_be),
        cmocka_unit_test(test_cut_and_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
