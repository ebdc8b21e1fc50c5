/* Growable buffers, readers at every cut, formatted text, error names, lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/base/list.h"

static void test_empty(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(buf_len(&b), 0);
    assert_int_equal(buf_slice(&b).len, 0);
    assert_non_null(buf_slice(&b).data);
    buf_put(&b, "", 0);
    buf_consume(&b, 0);
    buf_reset(&b);
    buf_free(&b);
    char *s = buf_take_str(&b);
    assert_string_equal(s, "");
    free(s);
}

/* It stays secret when it is freed and used again; that what it frees is zeroed is for the eye. */
static void test_secret(void **state)
{
    (void)state;
    struct buf b = {.secret = true};
    buf_free(&b);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 1000; i++)
            buf_put_u8(&b, (uint8_t)i);
        for (unsigned i = 0; i < 1000; i++)
            assert_int_equal(buf_head(&b)[i], (uint8_t)i);
        buf_free(&b);
        assert_true(b.secret);
        assert_null(b.data);
    }
}

/* Puts and consumes of changing sizes keep the bytes in order, wherever the buffer slides or grows. */
static void test_queue(void **state)
{
    (void)state;
    struct buf b = {0};
    uint8_t in = 0, out = 0;
    for (size_t round = 1; round < 2000; round++) {
        for (size_t i = 0; i < round % 97; i++)
            buf_put_u8(&b, in++);
        size_t take = round * 7 % (buf_len(&b) + 1);
        for (size_t i = 0; i < take; i++)
            assert_int_equal(buf_head(&b)[i], out++);
        buf_consume(&b, take);
    }
    assert_false(b.failed);
    assert_true(b.cap <= 65536);
    buf_free(&b);
}

static void test_integers_and_cuts(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_put_u8(&b, 0x01);
    buf_put_u16be(&b, 0x0203);
    buf_put_u32be(&b, 0x04050607);
    buf_put_u16le(&b, 0x0908);
    buf_put_u32le(&b, 0x0d0c0b0a);
    buf_put_u64le(&b, 0x1514131211100f0e);
    assert_int_equal(buf_len(&b), 21);
    for (size_t i = 0; i < 21; i++)
        assert_int_equal(buf_head(&b)[i], i + 1);
    for (size_t cut = 0; cut <= 21; cut++) {
        struct slice s = {buf_head(&b), cut};
        uint8_t a;
        uint16_t c, d;
        uint32_t e, f;
        uint64_t g;
        bool whole = slice_u8(&s, &a) && slice_u16be(&s, &c) && slice_u32be(&s, &e) && slice_u16le(&s, &d) &&
                     slice_u32le(&s, &f) && slice_u64le(&s, &g);
        assert_int_equal(whole, cut == 21);
        if (whole)
            assert_true(a == 1 && c == 0x0203 && e == 0x04050607 && d == 0x0908 && f == 0x0d0c0b0a &&
                        g == 0x1514131211100f0e && s.len == 0);
    }
    struct slice s = {buf_head(&b), 3}, part;
    assert_false(slice_bytes(&s, 4, &part));
    assert_int_equal(s.len, 3);
    assert_true(slice_bytes(&s, 3, &part));
    assert_int_equal(part.len, 3);
    buf_free(&b);
}

static void test_text(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_put_str(&b, "a=");
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%d,", i);
    char *s = buf_take_str(&b);
    assert_int_equal(strncmp(s, "a=0,1,2,", 8), 0);
    assert_string_equal(s + strlen(s) - 5, ",999,");
    assert_null(b.data);
    free(s);
}

/* A size that can't be had fails for good, and harms nothing. */
static void test_failure_is_sticky(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_put_str(&b, "kept");
    assert_null(buf_reserve(&b, SIZE_MAX - 2));
    assert_true(b.failed);
    buf_put_str(&b, "lost");
    assert_int_equal(buf_len(&b), 4);
    assert_null(buf_take_str(&b));
    buf_put_str(&b, "new");
    assert_int_equal(buf_len(&b), 3);
    buf_free(&b);
}

static void test_error_names(void **state)
{
    (void)state;
    assert_string_equal(err_name(ERR_OK), "ok");
    for (int e = ERR_OK; e <= ERR_FENCED; e++)
        assert_string_not_equal(err_name((enum err)e), "unknown");
    assert_string_equal(err_name((enum err)(ERR_FENCED + 1)), "unknown");
    assert_string_equal(err_name((enum err) - 1), "unknown");
}

struct item {
    int n;
    struct list link;
};

static void test_list(void **state)
{
    (void)state;
    struct list head;
    struct item items[5] = {0};
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_pop(&head));
    for (int i = 0; i < 5; i++) {
        items[i].n = i;
        list_append(&head, &items[i].link);
    }
    list_remove(&items[2].link);
    list_remove(&items[2].link);
    list_insert(&items[0].link, &items[2].link);
    int order[5], n = 0;
    list_for_each (l, next, &head) {
        struct item *it = container_of(l, struct item, link);
        order[n++] = it->n;
        list_remove(l);
    }
    assert_int_equal(n, 5);
    assert_memory_equal(order, ((int[]){2, 0, 1, 3, 4}), sizeof order);
    assert_true(list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),       cmocka_unit_test(test_secret),
        cmocka_unit_test(test_queue),       cmocka_unit_test(test_integers_and_cuts),
        cmocka_unit_test(test_text),        cmocka_unit_test(test_failure_is_sticky),
        cmocka_unit_test(test_error_names), cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
