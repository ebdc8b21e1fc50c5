/* What keeps a command: from what is known to the reasons that are told, each rule by itself and their order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/pending_reasons.h"
#include "dispatcher/retry.h"
#include "lib/store/state.h"

#define NOW_MS  1764100800000ll /* 2025-11-25T20:00:00Z */
#define BATCH   17
#define R(name) MUSTER__V1__PENDING_REASON__PENDING_REASON_##name

static struct pending_facts facts;
static struct db_pending_batch batch;
static struct pending_command command;
static struct arena arena;

/* A command that nothing keeps but that its device is not there. */
static int begin(void **state)
{
    (void)state;
    memset(&arena, 0, sizeof arena);
    facts = (struct pending_facts){.tenant = 1,
                                   .seq = 42,
                                   .now_ms = NOW_MS,
                                   .device = {.platform = 1, .seen_ms = NOW_MS - 7200000, .led = true},
                                   .all_gate = {.reason = ""},
                                   .tenant_gate = {.reason = ""},
                                   .redis = true,
                                   .worker_there = true};
    batch = (struct db_pending_batch){
        .id = BATCH, .device_count = 100, .expires_ms = NOW_MS + 86400000, .reason = "", .zone = ""};
    command = (struct pending_command){.batch = BATCH, .state = state_byte(STATE_QUEUED, 0)};
    return 0;
}

static int end(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

/* Exactly these reasons, in this order. */
static void told(const Muster__V1__PendingReason *reasons, size_t n)
{
    pending_reasons(&arena, &facts, &batch, &command);
    assert_int_equal(command.count, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(command.list[i]->reason, reasons[i]);
        assert_true(command.list[i]->words[0]);
    }
}
#define told(...)                                                                                                      \
    told((const Muster__V1__PendingReason[]){__VA_ARGS__},                                                             \
         sizeof((const Muster__V1__PendingReason[]){__VA_ARGS__}) / sizeof(Muster__V1__PendingReason))

static void says(size_t i, const char *words)
{
    if (!strstr(command.list[i]->words, words))
        fail_msg("\"%s\" does not say \"%s\"", command.list[i]->words, words);
}

static int64_t ms(const Google__Protobuf__Timestamp *at)
{
    return at ? at->seconds * 1000 + at->nanos / 1000000 : 0;
}

static void test_device(void **state)
{
    (void)state;
    told(R(OFFLINE));
    says(0, "2025-11-25T18:00:00Z");
    assert_int_equal(ms(command.list[0]->since), NOW_MS - 7200000);
    assert_int_equal(command.expires_ms, batch.expires_ms);
    facts.device.seen_ms = 0;
    told(R(OFFLINE));
    says(0, "not been seen");
    assert_null(command.list[0]->since);
    facts.redis = false;
    told(R(REDIS_AWAY));
    facts.redis = true;
    facts.worker = 3;
    told(R(ROUTING));
    says(0, "not come to the batch");
    batch.routed = true;
    facts.device.led = false;
    told(R(ROUTING));
    says(0, "not given it to the device's worker yet; no dispatcher leads");
    command.state = state_byte(STATE_QUEUED, 2);
    told(R(AGAIN));
    says(0, "sent 2 times");
    command.state = state_byte(STATE_QUEUED, 0);
    command.at_ms = NOW_MS - 3000;
    told(R(AGAIN));
    assert_int_equal(ms(command.list[0]->since), NOW_MS - 3000);
    assert_int_equal(command.list[0]->worker, 3);
}

static void test_in_hand(void **state)
{
    (void)state;
    facts.worker = 3;
    facts.inbox = 12;
    command.state = state_byte(STATE_ROUTED, 0);
    told(R(WORKER));
    says(0, "12 entries");
    assert_int_equal(command.list[0]->ahead, 12);
    facts.worker_there = false;
    told(R(WORKER));
    says(0, "lost its lease");
    command.state = state_byte(STATE_SENT, 1);
    command.at_ms = NOW_MS - 5000;
    told(R(IN_FLIGHT));
    says(0, "at 2025-11-25T19:59:55Z by worker 3, 1 time by now");
    says(0, "lost its lease");
    assert_int_equal(ms(command.list[0]->since), NOW_MS - 5000);
    /* Whatever holds the rest: what was sent goes to its own end. */
    batch.paused = batch.steered = true;
    facts.all_gate.closed = true;
    batch.deliver_by_ms = NOW_MS + 1000;
    facts.worker = 0;
    command.at_ms = 0;
    told(R(OFFLINE), R(IN_FLIGHT));
    says(1, "sent, 1 time by now, and not answered");
    assert_int_equal(command.list[1]->worker, 0);
    assert_int_equal(command.expires_ms, batch.expires_ms);
}

static void test_behind(void **state)
{
    static const struct live_pending open[] = {
        {5, 1 /* HELD */}, {7, 2 /* QUEUED */}, {9, 3 /* ROUTED */}, {BATCH, 2}, {20, 2}, {21, 4 | 1 << 4 /* SENT */}};
    (void)state;
    facts.open = open;
    facts.open_count = sizeof open / sizeof *open;
    facts.worker = 3;
    told(R(BEHIND));
    says(0, "3 other commands of the device go before; next is 00000000-0015-8000-8000-00010000002a, SENT");
    assert_int_equal(command.list[0]->ahead, 3);
    assert_string_equal(command.list[0]->command_id, "00000000-0015-8000-8000-00010000002a");
    facts.open_count = 5;
    told(R(BEHIND));
    says(0, "2 other commands of the device go before; next is 00000000-0007-8000-8000-00010000002a, QUEUED");
    facts.open_count = 3; /* Redis does not have it: who is before it is not known */
    told(R(ROUTING));
    facts.open = open + 3;
    facts.open_count = 2;
    told(R(ROUTING));
}

static void test_batch(void **state)
{
    (void)state;
    batch.approval = MUSTER__V1__APPROVAL_STATE__APPROVAL_STATE_PENDING;
    batch.approve_by_ms = NOW_MS + 60000;
    told(R(APPROVAL), R(OFFLINE));
    says(0, "muster batch approve 17");
    assert_int_equal(ms(command.list[0]->until), NOW_MS + 60000);
    batch.approval = MUSTER__V1__APPROVAL_STATE__APPROVAL_STATE_COOLING_OFF;
    batch.release_ms = NOW_MS + 1000;
    told(R(COOLING_OFF), R(OFFLINE));
    assert_int_equal(ms(command.list[0]->until), NOW_MS + 1000);
    batch.approval = 0;
    batch.cancel_requested_ms = NOW_MS - 1;
    told(R(CANCELING), R(OFFLINE));
    batch.cancel_requested_ms = 0;
    batch.not_before_ms = NOW_MS;
    told(R(OFFLINE));
    batch.not_before_ms = NOW_MS + 1;
    told(R(NOT_BEFORE), R(OFFLINE));
    batch.not_before_ms = 0;
    batch.older = true;
    told(R(OLDER), R(OFFLINE));
    batch.older = false;
    /* What was asked for is on its way. */
    facts.worker = 3;
    batch.asked = true;
    told(R(CHANGING));
    batch.asked = false;
    command.state = state_byte(STATE_HELD, 0);
    told(R(CHANGING));
}

static void test_paused_and_stopped(void **state)
{
    char longest[257] = "";
    (void)state;
    memset(longest, 'x', 256);
    batch.paused = batch.asked = true;
    batch.handled_ms = NOW_MS - 1000;
    batch.reason = longest;
    told(R(PAUSED), R(OFFLINE));
    says(0, "being paused: x");
    says(0, "(muster batch resume 17)");
    assert_string_equal(command.list[0]->said, longest);
    assert_null(command.list[0]->since);
    batch.asked = false;
    batch.reason = "";
    told(R(PAUSED), R(OFFLINE));
    says(0, "the batch is paused (muster");
    assert_int_equal(ms(command.list[0]->since), NOW_MS - 1000);
    batch.paused = false;
    batch.stopped = 1 << 1 | 1 << 5;
    batch.reason = "12 of 20 went wrong";
    told(R(PLATFORM_STOPPED), R(OFFLINE));
    says(0, "stopped for PLATFORM_IOS: 12 of 20");
    facts.device.platform = 2;
    told(R(OFFLINE));
    facts.device.platform = 255;
    told(R(OFFLINE));
}

static void test_windows(void **state)
{
    (void)state;
    batch.windowed = true;
    batch.zone = "Europe/Berlin";
    batch.opens_ms = NOW_MS - 1000;
    batch.closes_ms = NOW_MS + 1000;
    told(R(OFFLINE));
    batch.opens_ms = NOW_MS + 1000;
    batch.closes_ms = NOW_MS + 2000;
    told(R(WINDOW), R(OFFLINE));
    says(0, "opens at 2025-11-25T20:00:01Z");
    assert_string_equal(command.list[0]->time_zone, "Europe/Berlin");
    batch.opens_ms = batch.expires_ms;
    told(R(WINDOW), R(OFFLINE));
    says(0, "no more before the batch expires");
    assert_null(command.list[0]->until);
    batch.opens_ms = batch.closes_ms = 0;
    told(R(WINDOW), R(OFFLINE));
}

static void test_gates(void **state)
{
    (void)state;
    facts.tenant_gate = (struct db_gate){.tenant = 1, .closed = true, .reason = "stolen key", .changed_ms = NOW_MS - 5};
    facts.all_gate = (struct db_gate){.closed = true, .reason = "", .changed_ms = NOW_MS - 6};
    facts.redis = false;
    told(R(TENANT_HELD), R(ALL_HELD), R(REDIS_AWAY));
    says(0, "of the tenant is held: stolen key (muster release)");
    says(1, "of all tenants is held (muster release --all)");
    assert_string_equal(command.list[0]->said, "stolen key");
    assert_int_equal(ms(command.list[1]->since), NOW_MS - 6);
}

/* Waves of 10, 20 and 70 devices; 5 are a canary with the first. */
static void steer(uint8_t *bytes, bool canary, bool rate)
{
    Muster__V1__Steering in = MUSTER__V1__STEERING__INIT;
    Muster__V1__Wave first = MUSTER__V1__WAVE__INIT, second = MUSTER__V1__WAVE__INIT, third = MUSTER__V1__WAVE__INIT;
    Muster__V1__Wave *waves[] = {&first, &second, &third};
    Muster__V1__Rate speed = MUSTER__V1__RATE__INIT;
    Google__Protobuf__Duration per = GOOGLE__PROTOBUF__DURATION__INIT;
    first.size_case = canary ? MUSTER__V1__WAVE__SIZE_GROUP : MUSTER__V1__WAVE__SIZE_DEVICES;
    if (canary)
        first.group = (char *)"canary";
    else
        first.devices = 10;
    second.size_case = MUSTER__V1__WAVE__SIZE_DEVICES;
    second.devices = 20;
    second.release_case = MUSTER__V1__WAVE__RELEASE_SUCCESS_PERCENT;
    second.success_percent = 90;
    third.release_case = MUSTER__V1__WAVE__RELEASE_BY_HAND;
    third.by_hand = true;
    in.waves = waves;
    in.n_waves = 3;
    per.seconds = 60;
    speed.devices = 30;
    speed.per = &per;
    if (rate)
        in.rate = &speed;
    batch.steering = (struct slice){bytes, muster__v1__steering__pack(&in, bytes)};
    batch.waves = 3;
}

static void test_waves_and_turns(void **state)
{
    /* Place among those who are in no part, of whom 5 are the canary; wave expected, from 1 on. */
    static const struct {
        bool canary, joined;
        int64_t rank;
        uint32_t wave;
    } places[] = {
        {true, false, 0, 1}, {false, false, 0, 2}, {false, false, 19, 2}, {false, false, 20, 3}, {false, true, 0, 3}};
    uint8_t bytes[256];
    (void)state;
    steer(bytes, false, false);
    batch.rank = 9;
    told(R(OFFLINE));
    batch.rank = 10;
    told(R(WAVE), R(OFFLINE));
    says(0, "wave 2 of 3, of which 1 is out; wave 2 goes out when 90 percent of the 10 devices before have succeeded");
    batch.rank = 30;
    told(R(WAVE), R(OFFLINE));
    assert_int_equal(command.list[0]->wave, 3);
    assert_int_equal(command.list[0]->waves, 3);
    batch.wave = 1;
    told(R(WAVE), R(OFFLINE));
    says(0, "of which 2 are out; wave 3 goes out by hand (muster batch release 17)");
    batch.wave = 2;
    told(R(OFFLINE));

    steer(bytes, true, false);
    batch.canaries = 5;
    batch.joiners = 3;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        batch.wave = places[i].wave - 1;
        batch.canary = places[i].canary;
        batch.joined = places[i].joined;
        batch.rank = places[i].rank;
        told(R(OFFLINE));
        if (!batch.wave--)
            continue;
        told(R(WAVE), R(OFFLINE));
        assert_int_equal(command.list[0]->wave, places[i].wave);
    }

    steer(bytes, false, true);
    batch.canary = batch.joined = false;
    batch.canaries = batch.joiners = 0;
    batch.wave = 0;
    batch.rank = 3;
    told(R(RATE), R(OFFLINE));
    says(0, "30 devices in 60 s");
    batch.had_turn = true;
    told(R(OFFLINE));
    batch.rank = 50;
    told(R(WAVE), R(OFFLINE));
}

static void test_tried_again(void **state)
{
    (void)state;
    command.state = state_byte(STATE_HELD, 2);
    command.at_ms = NOW_MS - 1000;
    batch.retry =
        (struct db_retry){.after = 1 << STATE_FAILED, .attempts = 3, .factor = 2, .initial_ms = 10000, .max_ms = 60000};
    told(R(RETRY), R(OFFLINE));
    says(0, "2 of 3 deliveries");
    int64_t wait_ms = ms(command.list[0]->until) - command.at_ms;
    assert_int_equal(wait_ms, retry_wait_ms(&batch.retry, 2, BATCH, 42));
    assert_in_range(wait_ms, 16000, 24000);
    assert_int_equal(ms(command.list[0]->since), command.at_ms);
    /* One that was never sent is held by something else. */
    facts.worker = 3;
    command.state = state_byte(STATE_HELD, 0);
    told(R(CHANGING));
    batch.retry.after = 0;
    command.state = state_byte(STATE_HELD, 2);
    told(R(CHANGING));
}

/* Everything at once: no more than there is room for, and in order. */
static void test_all_at_once(void **state)
{
    uint8_t bytes[256];
    (void)state;
    steer(bytes, false, true);
    batch.rank = 50;
    batch.approval = MUSTER__V1__APPROVAL_STATE__APPROVAL_STATE_PENDING;
    batch.cancel_requested_ms = 1;
    batch.paused = batch.windowed = batch.older = true;
    batch.stopped = 2;
    batch.not_before_ms = NOW_MS + 5;
    facts.tenant_gate.closed = facts.all_gate.closed = true;
    told(R(APPROVAL), R(CANCELING), R(PAUSED), R(PLATFORM_STOPPED), R(NOT_BEFORE), R(WINDOW), R(WAVE), R(OLDER),
         R(TENANT_HELD), R(ALL_HELD), R(OFFLINE));
    batch.deliver_by_ms = NOW_MS + 7;
    told(R(APPROVAL), R(CANCELING), R(PAUSED), R(PLATFORM_STOPPED), R(NOT_BEFORE), R(WINDOW), R(WAVE), R(OLDER),
         R(TENANT_HELD), R(ALL_HELD), R(OFFLINE));
    assert_int_equal(command.expires_ms, NOW_MS + 7);
}

/* Without memory there may be less to read, and the arena says so. */
static void test_memory(void **state)
{
    (void)state;
    batch.paused = true;
    batch.reason = "why";
    arena.limit = 1;
    pending_reasons(&arena, &facts, &batch, &command);
    assert_true(arena.failed);
    assert_int_equal(command.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(test_device),
        TEST(test_in_hand),
        TEST(test_behind),
        TEST(test_batch),
        TEST(test_paused_and_stopped),
        TEST(test_windows),
        TEST(test_gates),
        TEST(test_waves_and_turns),
        TEST(test_all_at_once),
        TEST(test_memory),
        TEST(test_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
