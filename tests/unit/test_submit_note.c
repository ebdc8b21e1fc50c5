/* What the audit says of a batch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "dispatcher/submit_note.h"
#include "lib/base/utf8.h"

static void command_request_and_target(void **state)
{
    Muster__V1__Command command = MUSTER__V1__COMMAND__INIT;
    Muster__V1__Target target = MUSTER__V1__TARGET__INIT, less = MUSTER__V1__TARGET__INIT;
    Muster__V1__SubmitBatchRequest in = MUSTER__V1__SUBMIT_BATCH_REQUEST__INIT;
    Muster__V1__GroupNames groups = MUSTER__V1__GROUP_NAMES__INIT;
    char *names[] = {"a", "b", "c", "d", "e"}, out[SUBMIT_NOTE_MAX];
    (void)state;
    command.kind_case = MUSTER__V1__COMMAND__KIND_WIPE;
    in.command = &command;
    in.target = &target;
    in.request_id = "r-1";
    target.kind_case = MUSTER__V1__TARGET__KIND_PLATFORM;
    target.platform = MUSTER__V1__PLATFORM__PLATFORM_IOS;
    target.exclude = &less;
    less.kind_case = MUSTER__V1__TARGET__KIND_GROUPS;
    less.groups = &groups;
    groups.names = names;
    groups.n_names = 5;
    submit_note(out, &in);
    assert_string_equal(out, "wipe; request r-1; PLATFORM_IOS, less groups a, b, c and 2 more");
    groups.n_names = 1;
    submit_note(out, &in);
    assert_string_equal(out, "wipe; request r-1; PLATFORM_IOS, less group a");
}

/* Texts of every length, of characters of two to four bytes: what is too long is cut, but no character is. */
static void no_character_is_cut(void **state)
{
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\x9d"};
    Muster__V1__Command command = MUSTER__V1__COMMAND__INIT;
    Muster__V1__Target target = MUSTER__V1__TARGET__INIT, less = MUSTER__V1__TARGET__INIT;
    Muster__V1__DeviceIds devices = MUSTER__V1__DEVICE_IDS__INIT;
    Muster__V1__SubmitBatchRequest in = MUSTER__V1__SUBMIT_BATCH_REQUEST__INIT;
    char id[129], filter[512], out[SUBMIT_NOTE_MAX];
    char *ids[] = {id, id, id};
    (void)state;
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    in.command = &command;
    in.target = &target;
    in.request_id = "r";
    target.kind_case = MUSTER__V1__TARGET__KIND_DEVICES;
    target.devices = &devices;
    target.exclude = &less;
    devices.ids = ids;
    devices.n_ids = 3;
    less.kind_case = MUSTER__V1__TARGET__KIND_FILTER;
    less.filter = filter;
    for (size_t kind = 0; kind < 3; kind++)
        for (size_t len = 1; len <= 128; len++) {
            memset(id, 'x', len);
            id[len] = 0;
            filter[0] = 0;
            for (size_t i = 0; i < 60; i++)
                strcat(filter, characters[kind]);
            submit_note(out, &in);
            assert_true(strlen(out) < SUBMIT_NOTE_MAX && strlen(out) > 100);
            if (!utf8_good((struct slice){(const uint8_t *)out, strlen(out)}))
                fail_msg("kind %zu, %zu: %s", kind, len, out);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(command_request_and_target),
        cmocka_unit_test(no_character_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
