/* Limits of requests: each just kept and just broken, all violations told at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/validate.h"

#define NOW 1700000000000

static Muster__V1__LockCommand lock;
static Muster__V1__Command command;
static Muster__V1__Target target;
static Muster__V1__SubmitBatchRequest request;

static int setup(void **state)
{
    (void)state;
    muster__v1__lock_command__init(&lock);
    muster__v1__command__init(&command);
    muster__v1__target__init(&target);
    muster__v1__submit_batch_request__init(&request);
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    command.lock = &lock;
    target.kind_case = MUSTER__V1__TARGET__KIND_ALL;
    target.all = 1;
    request.request_id = (char *)"r";
    request.command = &command;
    request.target = &target;
    return 0;
}

static struct status check(void)
{
    struct status st = {0};
    validate_submit(&st, &request, NOW);
    return st;
}

static void good(void)
{
    struct status st = check();
    assert_string_equal(st.message, "");
    assert_int_equal(st.code, STATUS_OK);
}

static void bad(const char *field)
{
    struct status st = check();
    assert_int_equal(st.code, STATUS_INVALID_ARGUMENT);
    assert_string_equal(st.reason, "INVALID_FIELD");
    assert_int_equal(st.violation_count, 1);
    assert_string_equal(st.violations[0].field, field);
}

static char *repeat(char c, size_t n)
{
    static char text[70000];
    memset(text, c, n);
    text[n] = 0;
    return text;
}

static void test_plain(void **state)
{
    (void)state;
    good();
}

static void test_request_id(void **state)
{
    (void)state;
    request.request_id = (char *)"";
    bad("request_id");
    request.validate_only = 1;
    good();
    request.request_id = repeat('r', 128);
    good();
    request.request_id = repeat('r', 129);
    bad("request_id");
    request.request_id = (char *)"\xc3";
    bad("request_id");
    request.request_id = (char *)"\xed\xa0\x80";
    bad("request_id");
    request.request_id = (char *)"gr\xc3\xbc\xc3\x9f\xf0\x9f\x94\x92";
    good();
}

static void test_all_at_once(void **state)
{
    (void)state;
    request.request_id = (char *)"";
    request.command = NULL;
    request.target = NULL;
    request.priority = 9;
    request.description = repeat('d', 1025);
    struct status st = check();
    assert_int_equal(st.violation_count, 5);
}

static void test_expiry(void **state)
{
    (void)state;
    Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    request.expires_at = &t;
    t.seconds = NOW / 1000;
    bad("expires_at");
    t.nanos = 1000000;
    good();
    t.nanos = -1;
    bad("expires_at");
    t.nanos = 0;
    t.seconds = NOW / 1000 + 40 * 86400;
    good();
    t.nanos = 1000000;
    bad("expires_at");
    t.seconds = INT64_MAX;
    bad("expires_at");
    t.seconds = INT64_MIN;
    bad("expires_at");
    request.expires_at = NULL;
}

/* What is wrong with the steering is told beside what is wrong with the time that it is compared with. */
static void test_expiry_and_steering(void **state)
{
    (void)state;
    Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Muster__V1__Steering steering = MUSTER__V1__STEERING__INIT;
    Muster__V1__Rate rate = MUSTER__V1__RATE__INIT;
    static const struct {
        int64_t seconds;
        int32_t nanos;
    } wrong[] = {{NOW / 1000 + 60, -1}, {INT64_MAX, 0}, {NOW / 1000 - 1, 0}, {NOW / 1000 + 41 * 86400, 0}};
    steering.rate = &rate;
    request.steering = &steering;
    bad("steering.rate.devices");
    request.expires_at = &t;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        t.seconds = wrong[i].seconds;
        t.nanos = wrong[i].nanos;
        rate.devices = 0;
        struct status st = check();
        assert_int_equal(st.code, STATUS_INVALID_ARGUMENT);
        assert_int_equal(st.violation_count, 2);
        assert_string_equal(st.violations[0].field, "expires_at");
        assert_string_equal(st.violations[1].field, "steering.rate.devices");
        rate.devices = 1;
        bad("expires_at");
    }
    request.expires_at = NULL;
    request.steering = NULL;
}

static void test_target(void **state)
{
    (void)state;
    target.all = 0;
    bad("target.all");
    target.kind_case = MUSTER__V1__TARGET__KIND__NOT_SET;
    bad("target");
    target.kind_case = MUSTER__V1__TARGET__KIND_PLATFORM;
    target.platform = MUSTER__V1__PLATFORM__PLATFORM_WINDOWS;
    good();
    target.platform = (Muster__V1__Platform)7;
    bad("target.platform");
    target.platform = MUSTER__V1__PLATFORM__PLATFORM_UNSPECIFIED;
    bad("target.platform");
    target.platform = (Muster__V1__Platform)-1;
    bad("target.platform");

    Muster__V1__DeviceIds ids = MUSTER__V1__DEVICE_IDS__INIT;
    char *list[] = {(char *)"ok.-_:@1", (char *)"", (char *)"with space", repeat('x', 129)};
    ids.ids = list;
    target.kind_case = MUSTER__V1__TARGET__KIND_DEVICES;
    target.devices = &ids;
    bad("target.devices.ids");
    ids.n_ids = 1;
    good();
    ids.n_ids = 4;
    struct status st = check();
    assert_int_equal(st.violation_count, 3);
    assert_string_equal(st.violations[0].field, "target.devices.ids[1]");
    assert_string_equal(st.violations[2].field, "target.devices.ids[3]");
}

static void test_command_size(void **state)
{
    (void)state;
    static uint8_t bytes[65536];
    Muster__V1__CustomCommand custom = MUSTER__V1__CUSTOM_COMMAND__INIT;
    command.kind_case = MUSTER__V1__COMMAND__KIND_CUSTOM;
    command.custom = &custom;
    custom.type = (char *)"com.example/blink_1-a";
    custom.payload.data = bytes;
    /* Tags and lengths: 4 + 4 + 2, and the type. */
    custom.payload.len = 65536 - 10 - strlen(custom.type);
    assert_int_equal(muster__v1__command__get_packed_size(&command), 65536);
    good();
    custom.payload.len++;
    bad("command");
    custom.payload.len = 0;
    custom.type = (char *)"";
    bad("command.custom.type");
    custom.type = (char *)"a b";
    bad("command.custom.type");
}

static void test_lock(void **state)
{
    (void)state;
    lock.message = repeat('m', 512);
    good();
    lock.message = repeat('m', 513);
    bad("command.lock.message");
    lock.message = (char *)"";
    lock.phone_number = repeat('1', 33);
    bad("command.lock.phone_number");
    lock.phone_number = (char *)"";
    lock.passcode = repeat('1', 65);
    bad("command.lock.passcode");
}

static void test_lost_mode(void **state)
{
    (void)state;
    Muster__V1__LostModeCommand c = MUSTER__V1__LOST_MODE_COMMAND__INIT;
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOST_MODE;
    command.lost_mode = &c;
    bad("command.lost_mode.action");
    c.action = (Muster__V1__LostModeAction)3;
    bad("command.lost_mode.action");
    c.action = MUSTER__V1__LOST_MODE_ACTION__LOST_MODE_ACTION_ENABLE;
    bad("command.lost_mode.message");
    c.footnote = repeat('f', 512);
    bad("command.lost_mode.message");
    c.phone_number = (char *)"1";
    good();
    c.footnote = repeat('f', 513);
    bad("command.lost_mode.footnote");
    c.footnote = (char *)"";
    c.phone_number = repeat('1', 33);
    bad("command.lost_mode.phone_number");
    c.phone_number = (char *)"";
    c.message = repeat('m', 512);
    good();
    c.message = repeat('m', 513);
    bad("command.lost_mode.message");
    c.message = (char *)"\xc3";
    bad("command.lost_mode.message");
}

static void test_lost_mode_is_left_without_texts(void **state)
{
    (void)state;
    Muster__V1__LostModeCommand c = MUSTER__V1__LOST_MODE_COMMAND__INIT;
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOST_MODE;
    command.lost_mode = &c;
    c.action = MUSTER__V1__LOST_MODE_ACTION__LOST_MODE_ACTION_DISABLE;
    good();
    c.message = c.phone_number = c.footnote = (char *)"x";
    struct status st = check();
    assert_int_equal(st.violation_count, 3);
    assert_string_equal(st.violations[0].field, "command.lost_mode.message");
    assert_string_equal(st.violations[1].field, "command.lost_mode.phone_number");
    assert_string_equal(st.violations[2].field, "command.lost_mode.footnote");
}

static ProtobufCBinaryData value(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

/* The one device with neither is none of those with the least or the most of a field, nor the one with the largest
 * command. */
static void test_lost_mode_with_values(void **state)
{
    (void)state;
    Muster__V1__LostModeCommand c = MUSTER__V1__LOST_MODE_COMMAND__INIT;
    Muster__V1__Values values = MUSTER__V1__VALUES__INIT;
    Muster__V1__Variable v[3] = {MUSTER__V1__VARIABLE__INIT, MUSTER__V1__VARIABLE__INIT, MUSTER__V1__VARIABLE__INIT};
    Muster__V1__Variable *variables[] = {&v[0], &v[1], &v[2]};
    char *ids[] = {(char *)"a", (char *)"b", (char *)"c", (char *)"d"};
    ProtobufCBinaryData texts[3][4] = {{value(""), value("hi"), value(""), value("x")},
                                       {value("1"), value(""), value(""), value("1")},
                                       {value("f"), value("f"), value("ff"), value("fff")}};
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOST_MODE;
    command.lost_mode = &c;
    c.action = MUSTER__V1__LOST_MODE_ACTION__LOST_MODE_ACTION_ENABLE;
    c.message = (char *)"{{m}}";
    c.phone_number = (char *)"{{p}}";
    c.footnote = (char *)"{{f}}";
    for (size_t i = 0; i < 3; i++) {
        v[i].name = (char *)(uintptr_t)(i == 0 ? "m" : i == 1 ? "p" : "f");
        v[i].values = texts[i];
        v[i].n_values = 4;
    }
    values.device_ids = ids;
    values.n_device_ids = 4;
    values.variables = variables;
    values.n_variables = 3;
    request.values = &values;
    bad("command.lost_mode.message");
    assert_non_null(strstr(check().violations[0].description, "for c: "));
    texts[1][2] = value("2");
    good();
    c.phone_number = (char *)"1 {{p}}";
    texts[1][2] = value("");
    good();
    texts[2][1] = value(repeat('f', 513));
    bad("command.lost_mode.footnote");
}

static void test_restrict(void **state)
{
    (void)state;
    Muster__V1__Restriction a = MUSTER__V1__RESTRICTION__INIT, b = MUSTER__V1__RESTRICTION__INIT;
    Muster__V1__Restriction *list[65] = {&a, &b};
    Muster__V1__RestrictCommand c = MUSTER__V1__RESTRICT_COMMAND__INIT;
    command.kind_case = MUSTER__V1__COMMAND__KIND_RESTRICT_FUNCTIONS;
    command.restrict_functions = &c;
    c.restrictions = list;
    bad("command.restrict_functions.restrictions");
    c.n_restrictions = 2;
    a.function = MUSTER__V1__FUNCTION__FUNCTION_CAMERA;
    b.function = MUSTER__V1__FUNCTION__FUNCTION_USB;
    good();
    b.function = a.function;
    bad("command.restrict_functions.restrictions[1].function");
    b.function = 99;
    bad("command.restrict_functions.restrictions[1].function");
    for (unsigned i = 2; i < 65; i++)
        list[i] = &a;
    c.n_restrictions = 65;
    bad("command.restrict_functions.restrictions");
}

static void test_others(void **state)
{
    (void)state;
    Muster__V1__InstallApplicationCommand install = MUSTER__V1__INSTALL_APPLICATION_COMMAND__INIT;
    uint8_t hash[33];
    command.kind_case = MUSTER__V1__COMMAND__KIND_INSTALL_APPLICATION;
    command.install_application = &install;
    bad("command.install_application.application_id");
    install.application_id = (char *)"a";
    install.sha256 = (ProtobufCBinaryData){32, hash};
    good();
    install.sha256.len = 33;
    bad("command.install_application.sha256");

    Muster__V1__RestartCommand restart = MUSTER__V1__RESTART_COMMAND__INIT;
    Google__Protobuf__Duration grace = GOOGLE__PROTOBUF__DURATION__INIT;
    command.kind_case = MUSTER__V1__COMMAND__KIND_RESTART;
    command.restart = &restart;
    good();
    restart.grace = &grace;
    grace.seconds = 3600;
    good();
    grace.nanos = 1000000;
    bad("command.restart.grace");
    grace = (Google__Protobuf__Duration)GOOGLE__PROTOBUF__DURATION__INIT;
    grace.seconds = -1;
    bad("command.restart.grace");

    command.kind_case = MUSTER__V1__COMMAND__KIND__NOT_SET;
    bad("command");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_plain, setup),
        cmocka_unit_test_setup(test_request_id, setup),
        cmocka_unit_test_setup(test_all_at_once, setup),
        cmocka_unit_test_setup(test_expiry, setup),
        cmocka_unit_test_setup(test_expiry_and_steering, setup),
        cmocka_unit_test_setup(test_target, setup),
        cmocka_unit_test_setup(test_command_size, setup),
        cmocka_unit_test_setup(test_lock, setup),
        cmocka_unit_test_setup(test_restrict, setup),
        cmocka_unit_test_setup(test_others, setup),
        cmocka_unit_test_setup(test_lost_mode, setup),
        cmocka_unit_test_setup(test_lost_mode_is_left_without_texts, setup),
        cmocka_unit_test_setup(test_lost_mode_with_values, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
