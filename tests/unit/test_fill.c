/* Commands with places for values: what is filled is what protobuf would have encoded; what is no template, no packed
 * values or no block of them is refused, cut at every byte too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/store/value_block.h"
#include "muster/v1/command.pb-c.h"
#include "proto/fill.h"

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

/* Encoded; owned. */
static struct slice encode(const Muster__V1__Command *c)
{
    uint8_t *bytes = malloc(muster__v1__command__get_packed_size(c) + 1);
    assert_non_null(bytes);
    return (struct slice){bytes, muster__v1__command__pack(c, bytes)};
}

static struct slice lock_command(const char *message, const char *phone, const char *passcode)
{
    Muster__V1__LockCommand lock = MUSTER__V1__LOCK_COMMAND__INIT;
    Muster__V1__Command c = MUSTER__V1__COMMAND__INIT;
    lock.message = (char *)message;
    lock.phone_number = (char *)phone;
    lock.passcode = (char *)passcode;
    c.kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    c.lock = &lock;
    return encode(&c);
}

static void release(struct slice s)
{
    free((void *)(uintptr_t)s.data);
}

static void filled_is_what_encoding_gives(void **unused)
{
    (void)unused;
    static const struct {
        const char *message, *phone, *passcode;
        const char *want_message, *want_phone, *want_passcode;
    } cases[] = {
        {"hi", "", "{{a}}", "hi", "", "1234"},
        {"{{a}}", "", "", "1234", "", ""},
        {"{{a}}{{b}}{{a}}", "+{{b}}", "x{{a}}y", "1234a much longer value1234", "+a much longer value", "x1234y"},
        {"{{{a}}}", "{{b", "{{a}}}}", "{1234}", "{{b", "1234}}"},
        {"{{}} { {{a }} {{a}}", "", "", "{{}} { {{a }} 1234", "", ""},
    };
    const char *names[] = {"a", "b"};
    const struct slice values[] = {text("1234"), text("a much longer value")};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct slice template = lock_command(cases[i].message, cases[i].phone, cases[i].passcode);
        struct slice want = lock_command(cases[i].want_message, cases[i].want_phone, cases[i].want_passcode);
        struct fill fill;
        struct fill_error error;
        struct buf out = {0};
        assert_true(fill_parse(&fill, template, names, 2, &error));
        assert_int_equal(fill.text, fill.used);
        fill_put(&fill, template, values, &out);
        assert_int_equal(fill_size(&fill, values), want.len);
        assert_int_equal(buf_len(&out), want.len);
        assert_memory_equal(buf_head(&out), want.data, want.len);
        buf_free(&out);
        release(template);
        release(want);
    }
}

/* Lengths of one, two and three bytes at each of the levels. */
static void lengths_grow_and_shrink(void **unused)
{
    (void)unused;
    const char *names[] = {"v"};
    char *value = malloc(FILL_VALUE_MAX + 1);
    assert_non_null(value);
    static const size_t lens[] = {0, 1, 100, 118, 119, 120, 127, 128, 200, FILL_VALUE_MAX};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct slice template = lock_command("m", "", "{{v}}");
        struct fill fill;
        struct fill_error error;
        struct buf out = {0};
        memset(value, 'x', lens[i]);
        value[lens[i]] = '\0';
        struct slice one = {(const uint8_t *)value, lens[i]};
        assert_true(fill_parse(&fill, template, names, 1, &error));
        assert_int_equal(fill_field_size(&fill, 0, &one), lens[i]);
        fill_put(&fill, template, &one, &out);
        Muster__V1__Command *c = muster__v1__command__unpack(NULL, buf_len(&out), buf_head(&out));
        assert_non_null(c);
        assert_string_equal(c->lock->passcode, value);
        assert_string_equal(c->lock->message, "m");
        assert_int_equal(fill_size(&fill, &one), buf_len(&out));
        muster__v1__command__free_unpacked(c, NULL);
        buf_free(&out);
        release(template);
    }
    free(value);
}

static void bytes_and_lists_take_values_too(void **unused)
{
    (void)unused;
    Muster__V1__CustomCommand custom = MUSTER__V1__CUSTOM_COMMAND__INIT;
    Muster__V1__QueryInformationCommand query = MUSTER__V1__QUERY_INFORMATION_COMMAND__INIT;
    Muster__V1__Command c = MUSTER__V1__COMMAND__INIT;
    const char *names[] = {"v"};
    const struct slice value = {(const uint8_t *)"\0\xff", 2};
    struct fill fill;
    struct fill_error error;
    custom.type = (char *)"t";
    custom.payload = (ProtobufCBinaryData){7, (uint8_t *)(uintptr_t) "{{v}}{{"};
    c.kind_case = MUSTER__V1__COMMAND__KIND_CUSTOM;
    c.custom = &custom;
    struct slice template = encode(&c);
    struct buf out = {0};
    assert_true(fill_parse(&fill, template, names, 1, &error));
    assert_int_equal(fill.text, 0);
    fill_put(&fill, template, &value, &out);
    Muster__V1__Command *filled = muster__v1__command__unpack(NULL, buf_len(&out), buf_head(&out));
    assert_non_null(filled);
    assert_int_equal(filled->custom->payload.len, 4);
    assert_memory_equal(filled->custom->payload.data, "\0\xff{{", 4);
    muster__v1__command__free_unpacked(filled, NULL);
    buf_reset(&out);
    release(template);

    char *items[] = {(char *)"one", (char *)"{{v}}", (char *)"", (char *)"{{v}}s"};
    query.items = items;
    query.n_items = 4;
    c.kind_case = MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION;
    c.query_information = &query;
    template = encode(&c);
    const struct slice model = text("model");
    assert_true(fill_parse(&fill, template, names, 1, &error));
    fill_put(&fill, template, &model, &out);
    filled = muster__v1__command__unpack(NULL, buf_len(&out), buf_head(&out));
    assert_non_null(filled);
    assert_int_equal(filled->query_information->n_items, 4);
    assert_string_equal(filled->query_information->items[1], "model");
    assert_string_equal(filled->query_information->items[3], "models");
    muster__v1__command__free_unpacked(filled, NULL);
    buf_free(&out);
    release(template);
}

static void what_takes_no_values_says_so(void **unused)
{
    (void)unused;
    Muster__V1__CustomCommand custom = MUSTER__V1__CUSTOM_COMMAND__INIT;
    Muster__V1__Command c = MUSTER__V1__COMMAND__INIT;
    const char *names[] = {"v"};
    char many[FILL_PLACES_MAX * 5 + 6] = "";
    struct fill fill;
    struct fill_error error;
    custom.type = (char *)"{{v}}";
    c.kind_case = MUSTER__V1__COMMAND__KIND_CUSTOM;
    c.custom = &custom;
    struct slice template = encode(&c);
    assert_false(fill_parse(&fill, template, names, 1, &error));
    assert_string_equal(error.field, "command.custom.type");
    assert_string_equal(error.what, "takes no values");
    release(template);

    template = lock_command("{{v}}", "{{w}}", "");
    assert_false(fill_parse(&fill, template, names, 1, &error));
    assert_string_equal(error.field, "command.lock.phone_number");
    assert_string_equal(error.what, "{{w}} is none of the variables");
    release(template);

    for (size_t i = 0; i <= FILL_PLACES_MAX; i++)
        strcat(many, "{{v}}");
    template = lock_command(many, "", "");
    assert_false(fill_parse(&fill, template, names, 1, &error));
    assert_string_equal(error.field, "command.lock.message");
    release(template);

    static const uint8_t none[] = {0x0a, 0x05, 0x0a}, empty[] = {0x78, 0x01};
    assert_false(fill_parse(&fill, (struct slice){none, sizeof none}, names, 1, &error));
    assert_string_equal(error.field, "command");
    assert_false(fill_parse(&fill, (struct slice){empty, sizeof empty}, names, 1, &error));
    assert_false(fill_parse(&fill, (struct slice){empty, 0}, names, 1, &error));
}

static void names_are_words(void **unused)
{
    (void)unused;
    char longest[FILL_NAME_MAX + 2];
    memset(longest, 'n', sizeof longest);
    longest[FILL_NAME_MAX] = '\0';
    assert_true(fill_name_ok("a") && fill_name_ok("Wifi_2") && fill_name_ok(longest));
    longest[FILL_NAME_MAX] = 'n';
    longest[FILL_NAME_MAX + 1] = '\0';
    assert_false(fill_name_ok("") || fill_name_ok("a-b") || fill_name_ok("a b") || fill_name_ok("\xc3\xa4") ||
                 fill_name_ok(longest));
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

static void make_block(struct buf *out, const struct bitmap *slots)
{
    value_block_begin(out, 2, slots);
    for (unsigned slot = bitmap_next(slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(slots, slot + 1)) {
        char a[16];
        snprintf(a, sizeof a, "%u", slot);
        const struct slice values[] = {text(a), {(const uint8_t *)"", 0}};
        fill_pack(out, values, 2);
    }
}

static void a_block_gives_each_slot_its_values(void **unused)
{
    (void)unused;
    static const unsigned sets[][5] = {{0}, {1023}, {5, 6, 7, 8, 700}, {63, 64, 65, 127, 128}, {0, 1, 512, 1022, 1023}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        struct bitmap slots = {{0}};
        struct buf bytes = {0};
        struct value_block v;
        for (size_t k = 0; k < 5; k++)
            bitmap_set(&slots, sets[i][k] || !k ? sets[i][k] : sets[i][0]);
        make_block(&bytes, &slots);
        assert_int_equal(value_block_read(&v, buf_slice(&bytes), 2), ERR_OK);
        assert_int_equal(v.count, bitmap_count(&slots));
        for (unsigned slot = 0; slot <= BLOCK_SLOTS; slot++) {
            struct slice one = value_block_get(&v, slot), values[2];
            char want[16];
            if (slot == BLOCK_SLOTS || !bitmap_test(&slots, slot)) {
                assert_int_equal(one.len, 0);
                continue;
            }
            snprintf(want, sizeof want, "%u", slot);
            assert_true(fill_unpack(one, values, 2));
            assert_int_equal(values[0].len, strlen(want));
            assert_memory_equal(values[0].data, want, values[0].len);
            assert_int_equal(values[1].len, 0);
        }
        value_block_free(&v);
        buf_free(&bytes);
    }
}

static void a_block_of_nobody_is_one(void **unused)
{
    (void)unused;
    const struct bitmap nobody = {{0}};
    struct buf bytes = {0};
    struct value_block v;
    value_block_begin(&bytes, 1, &nobody);
    assert_int_equal(buf_len(&bytes), VALUE_BLOCK_HEADER);
    assert_int_equal(value_block_read(&v, buf_slice(&bytes), 1), ERR_OK);
    assert_int_equal(value_block_get(&v, 0).len, 0);
    value_block_free(&v);
    buf_free(&bytes);
}

static void what_is_no_block_is_refused(void **unused)
{
    (void)unused;
    struct bitmap slots = {{0}};
    struct buf bytes = {0};
    struct value_block v;
    bitmap_set(&slots, 9);
    bitmap_set(&slots, 90);
    make_block(&bytes, &slots);
    for (size_t len = 0; len < buf_len(&bytes); len++)
        assert_int_equal(value_block_read(&v, (struct slice){buf_head(&bytes), len}, 2), ERR_INVALID);
    for (unsigned variables = 0; variables < 12; variables++)
        if (variables != 2)
            assert_int_equal(value_block_read(&v, buf_slice(&bytes), variables), ERR_INVALID);
    buf_put_u8(&bytes, 0);
    assert_int_equal(value_block_read(&v, buf_slice(&bytes), 2), ERR_INVALID); /* a byte more */
    uint8_t *version = buf_head(&bytes);
    (*version)++;
    bytes.end--;
    assert_int_equal(value_block_read(&v, buf_slice(&bytes), 2), ERR_INVALID);
    buf_free(&bytes);
    static const uint8_t huge[] = {0x81, 0x80, 0x01}; /* 16,385 bytes, which are not there */
    struct slice values[1];
    assert_false(fill_unpack((struct slice){huge, sizeof huge}, values, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filled_is_what_encoding_gives),
        cmocka_unit_test(lengths_grow_and_shrink),
        cmocka_unit_test(bytes_and_lists_take_values_too),
        cmocka_unit_test(what_takes_no_values_says_so),
        cmocka_unit_test(names_are_words),
        cmocka_unit_test(a_block_gives_each_slot_its_values),
        cmocka_unit_test(a_block_of_nobody_is_one),
        cmocka_unit_test(what_is_no_block_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
