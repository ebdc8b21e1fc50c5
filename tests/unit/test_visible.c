/* Text of others on a terminal: what is written out, what stays, and that whole messages are reached. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/visible.h"
#include "muster/v1/command_service.pb-c.h"

static const struct {
    const char *text, *seen;
} texts[] = {
    {"", ""},
    {"plain ~ text \\ with \"quotes\"", "plain ~ text \\ with \"quotes\""},
    {"ü, 設備, \U0001f4f1, \u200d", "ü, 設備, \U0001f4f1, \u200d"},
    {"one\ntwo\r\n\tthree", "one\\ntwo\\r\\n\\tthree"},
    {"\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"},
    {"\x01\x08\x1f\x7f~", "\\x01\\x08\\x1f\\x7f~"},
    {"\xc2\x80\xc2\x9b[31m\xc2\x9f\xc2\xa0", "\\u0080\\u009b[31m\\u009f\xc2\xa0"},
    {"\u2027\u2028\u2029\u202a\u202e\u202f", "\u2027\\u2028\\u2029\\u202a\\u202e\u202f"},
    {"\u2065\u2066\u2069\u206a", "\u2065\\u2066\\u2069\u206a"},
    {"\x9b", "\\x9b"},
    {"a\xc2", "a\\xc2"},
    {"\xe2\x80", "\\xe2\\x80"},
    {"\xe2\x80z", "\\xe2\\x80z"},
    {"\xed\xa0\x80\xc0\x8a\xff", "\\xed\\xa0\\x80\\xc0\\x8a\\xff"},
    {"\\x1b is done already\\n", "\\x1b is done already\\n"},
};
#define TEXTS (sizeof texts / sizeof *texts)

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEXTS; i++) {
        struct buf once = {0}, twice = {0};
        visible_put(&once, texts[i].text);
        char *seen = buf_take_str(&once);
        assert_non_null(seen);
        assert_string_equal(seen, texts[i].seen);
        visible_put(&twice, seen);
        char *again = buf_take_str(&twice);
        assert_non_null(again);
        assert_string_equal(again, seen);
        free(seen);
        free(again);
    }
}

/* As it comes from the wire, so that fields without content are protobuf-c's constants. */
static ProtobufCMessage *wired(const ProtobufCMessage *m)
{
    struct buf bytes = {0};
    uint8_t *p = buf_reserve(&bytes, protobuf_c_message_get_packed_size(m) + 1);
    assert_non_null(p);
    buf_commit(&bytes, protobuf_c_message_pack(m, p));
    ProtobufCMessage *out = protobuf_c_message_unpack(m->descriptor, NULL, buf_len(&bytes), buf_head(&bytes));
    assert_non_null(out);
    buf_free(&bytes);
    return out;
}

static void test_messages(void **state)
{
    (void)state;
    Muster__V1__DeviceInformation__ItemsEntry item = MUSTER__V1__DEVICE_INFORMATION__ITEMS_ENTRY__INIT, *items = &item;
    Muster__V1__DeviceInformation information = MUSTER__V1__DEVICE_INFORMATION__INIT;
    Muster__V1__CommandResult result = MUSTER__V1__COMMAND_RESULT__INIT;
    Muster__V1__CommandStatus status = MUSTER__V1__COMMAND_STATUS__INIT, bare = MUSTER__V1__COMMAND_STATUS__INIT;
    Muster__V1__CommandStatus *all[] = {&bare, &status};
    Muster__V1__ListCommandsResponse r = MUSTER__V1__LIST_COMMANDS_RESPONSE__INIT;

    item.key = (char *)"k\r";
    item.value = (char *)"v\x1b[1m";
    information.model = (char *)"A\nB";
    information.items = &items;
    information.n_items = 1;
    result.text = (char *)"\u202eevil";
    result.information = &information;
    status.result = &result;
    status.device_id = (char *)"phone-1";
    r.commands = all;
    r.n_commands = 2;
    ProtobufCMessage *m = wired(&r.base);
    assert_true(visible_message(m));
    const Muster__V1__CommandStatus *c = ((Muster__V1__ListCommandsResponse *)m)->commands[1];
    assert_string_equal(c->device_id, "phone-1");
    assert_string_equal(c->command_id, "");
    assert_string_equal(c->result->text, "\\u202eevil");
    assert_string_equal(c->result->information->model, "A\\nB");
    assert_string_equal(c->result->information->items[0]->key, "k\\r");
    assert_string_equal(c->result->information->items[0]->value, "v\\x1b[1m");
    protobuf_c_message_free_unpacked(m, NULL);
}

/* Of a oneof only what is set is looked at: its members share their place. */
static void test_oneofs(void **state)
{
    (void)state;
    Muster__V1__Target group = MUSTER__V1__TARGET__INIT, all = MUSTER__V1__TARGET__INIT;

    group.kind_case = MUSTER__V1__TARGET__KIND_FILTER;
    group.filter = (char *)"tag =\n\"x\"";
    all.kind_case = MUSTER__V1__TARGET__KIND_ALL;
    all.all = true;
    all.exclude = &group;
    ProtobufCMessage *m = wired(&all.base);
    assert_true(visible_message(m));
    assert_string_equal(((Muster__V1__Target *)m)->exclude->filter, "tag =\\n\"x\"");
    protobuf_c_message_free_unpacked(m, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_oneofs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
