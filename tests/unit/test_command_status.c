/* The hand-made encoding of commands against the generated one, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "muster/v1/command_service.pb-c.h"
#include "proto/command_status.h"

/* The same as an answer of ListCommands with one command, by protobuf-c. */
static void encode_generated(struct buf *out, const struct command_status *c)
{
    Muster__V1__ListCommandsResponse list = MUSTER__V1__LIST_COMMANDS_RESPONSE__INIT;
    Muster__V1__CommandStatus status = MUSTER__V1__COMMAND_STATUS__INIT, *one = &status;
    Google__Protobuf__Timestamp at = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Muster__V1__CommandResult *result = NULL;
    char id[COMMAND_ID_TEXT + 1] = "", device[129] = "";
    command_id_write(id, &c->id);
    memcpy(device, c->device_id.data, c->device_id.len);
    status.command_id = id;
    status.batch_id = (int64_t)c->id.batch;
    status.device_id = device;
    status.state = (Muster__V1__CommandState)c->state;
    status.attempts = c->attempts;
    at.seconds = c->updated_ms / 1000;
    at.nanos = (int32_t)(c->updated_ms % 1000) * 1000000;
    status.updated_at = c->updated_ms ? &at : NULL;
    if (c->result.len)
        result = muster__v1__command_result__unpack(NULL, c->result.len, c->result.data);
    status.result = result;
    list.commands = &one;
    list.n_commands = 1;
    uint8_t *p = buf_reserve(out, muster__v1__list_commands_response__get_packed_size(&list));
    assert_non_null(p);
    buf_commit(out, muster__v1__list_commands_response__pack(&list, p));
    if (result)
        muster__v1__command_result__free_unpacked(result, NULL);
}

static void check(const struct command_status *c)
{
    struct buf ours = {0}, theirs = {0};
    command_status_put(&ours, 1, c);
    encode_generated(&theirs, c);
    assert_int_equal(buf_len(&ours), buf_len(&theirs));
    assert_memory_equal(buf_head(&ours), buf_head(&theirs), buf_len(&ours));
    buf_free(&ours);
    buf_free(&theirs);
}

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static void it_encodes_as_the_generated_code_does(void **unused)
{
    (void)unused;
    static char longest[129];
    memset(longest, 'x', 128);
    const char *const devices[] = {"", "a", "phone-42", longest};
    const int64_t times[] = {0, 1, 999, 1000, 1795635647102, 253402300799999};
    const uint64_t batches[] = {1, 127, 128, 1ull << 40, (1ull << 48) - 1};
    for (size_t d = 0; d < 4; d++)
        for (size_t t = 0; t < 6; t++)
            for (size_t b = 0; b < 5; b++) {
                struct command_status c = {.id = {batches[b], 3, 1024},
                                           .device_id = text(devices[d]),
                                           .state = (uint8_t)(t * 2),
                                           .attempts = (uint8_t)(t * 3),
                                           .updated_ms = times[t]};
                check(&c);
            }
}

static void a_result_goes_through_as_it_is(void **unused)
{
    (void)unused;
    static char words[20000];
    memset(words, 'w', sizeof words - 1);
    const size_t lengths[] = {1, 100, 200, 16000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        Muster__V1__CommandResult said = MUSTER__V1__COMMAND_RESULT__INIT;
        struct buf result = {0};
        words[lengths[i]] = 0;
        said.code = -7;
        said.text = words;
        uint8_t *p = buf_reserve(&result, muster__v1__command_result__get_packed_size(&said));
        assert_non_null(p);
        buf_commit(&result, muster__v1__command_result__pack(&said, p));
        struct command_status c = {
            .id = {1, 1, 0}, .device_id = text("d"), .state = 6, .updated_ms = 5, .result = buf_slice(&result)};
        check(&c);
        buf_free(&result);
        words[lengths[i]] = 'w';
    }
}

static void more_fields_are_of_the_same_command(void **unused)
{
    (void)unused;
    Muster__V1__CommandStatus more = MUSTER__V1__COMMAND_STATUS__INIT;
    Muster__V1__Pending pending = MUSTER__V1__PENDING__INIT, *list[] = {&pending, &pending};
    struct buf encoded = {0}, out = {0};
    pending.words = (char *)"it waits";
    more.pending = list;
    more.n_pending = 2;
    uint8_t *p = buf_reserve(&encoded, muster__v1__command_status__get_packed_size(&more));
    assert_non_null(p);
    buf_commit(&encoded, muster__v1__command_status__pack(&more, p));
    for (uint32_t seq = 0; seq < 2; seq++)
        command_status_put(&out, 1,
                           &(struct command_status){
                               .id = {9, 2, seq}, .device_id = text("dev"), .state = 2, .more = buf_slice(&encoded)});
    Muster__V1__ListCommandsResponse *answer =
        muster__v1__list_commands_response__unpack(NULL, buf_len(&out), buf_head(&out));
    assert_non_null(answer);
    assert_int_equal(answer->n_commands, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(answer->commands[i]->n_pending, 2);
        assert_string_equal(answer->commands[i]->pending[1]->words, "it waits");
        assert_string_equal(answer->commands[i]->device_id, "dev");
    }
    muster__v1__list_commands_response__free_unpacked(answer, NULL);
    buf_free(&encoded);
    buf_free(&out);
}

static void entries_stand_one_behind_the_other(void **unused)
{
    (void)unused;
    struct buf out = {0};
    for (uint32_t seq = 0; seq < 3000; seq++)
        command_status_put(&out, 1, &(struct command_status){.id = {9, 2, seq}, .device_id = text("dev"), .state = 2});
    Muster__V1__ListCommandsResponse *list =
        muster__v1__list_commands_response__unpack(NULL, buf_len(&out), buf_head(&out));
    assert_non_null(list);
    assert_int_equal(list->n_commands, 3000);
    struct command_id id;
    assert_true(command_id_read(&id, list->commands[2999]->command_id, COMMAND_ID_TEXT));
    assert_int_equal(id.seq, 2999);
    muster__v1__list_commands_response__free_unpacked(list, NULL);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_encodes_as_the_generated_code_does),
        cmocka_unit_test(a_result_goes_through_as_it_is),
        cmocka_unit_test(more_fields_are_of_the_same_command),
        cmocka_unit_test(entries_stand_one_behind_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
