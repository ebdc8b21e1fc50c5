/* Windows of zones at a given moment: what is open, what has changed, when to look again; and what a Steering may say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/schedule.h"
#include "dispatcher/steering.h"
#include "dispatcher/validate.h"

/* --- schedule ---------------------------------------------------------------------------------------------------- */

/* The default zone open in [10, 20), another in [15, 30) with slots 3 and 4 of block 7. */
static struct schedule two_zones(void)
{
    struct schedule s;
    struct bitmap slots = {{0}};
    assert_true(schedule_make(&s, 2));
    bitmap_set(&slots, 3);
    bitmap_set(&slots, 4);
    target_set_add(&s.zones[1].devices, 7, &slots);
    s.zones[0].opens_ms = 10;
    s.zones[0].closes_ms = 20;
    s.zones[1].opens_ms = 15;
    s.zones[1].closes_ms = 30;
    s.known = true;
    return s;
}

static bool closed(const struct schedule *s, uint32_t block, unsigned slot)
{
    struct bitmap out;
    schedule_closed(s, block, &out);
    return bitmap_test(&out, slot);
}

static void windows_open_and_close_at_their_edges(void **unused)
{
    (void)unused;
    static const struct {
        int64_t now_ms;
        bool more, less, any;
        int64_t next_ms;
        bool plain_closed, zoned_closed;
    } turns[] = {
        {9, false, false, false, 10, true, true},
        {10, true, false, true, 15, false, true}, /* opens with its first millisecond */
        {14, false, false, true, 15, false, true},
        {15, true, false, true, 20, false, false},
        {19, false, false, true, 20, false, false},
        {20, false, true, true, 20, true,
         false},                                 /* is closed with its last; a window that is over is to be read anew */
        {12, true, true, true, 15, false, true}, /* the clock went back */
        {29, true, true, true, 20, true, false}, /* and ahead */
        {30, false, true, false, 20, true, true},
    };
    struct schedule s = two_zones();
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        struct schedule_turn t = schedule_turn(&s, turns[i].now_ms);
        assert_int_equal(t.more, turns[i].more);
        assert_int_equal(t.less, turns[i].less);
        assert_int_equal(t.any, turns[i].any);
        assert_int_equal(t.next_ms, turns[i].next_ms);
        assert_int_equal(closed(&s, 7, 0), turns[i].plain_closed);
        assert_int_equal(closed(&s, 8, 3), turns[i].plain_closed);
        assert_int_equal(closed(&s, 7, 3), turns[i].zoned_closed);
    }
    schedule_free(&s);
}

static void what_is_read_anew_goes_on_from_what_was(void **unused)
{
    (void)unused;
    struct schedule old = two_zones(), s = two_zones();
    const size_t same[] = {0, SIZE_MAX};
    schedule_turn(&old, 16);
    schedule_follow(&s, &old, same);
    struct schedule_turn t = schedule_turn(&s, 16);
    assert_true(t.more && !t.less); /* the second is new, and open */
    schedule_free(&old);
    schedule_free(&s);
}

static void an_unknown_schedule_is_closed(void **unused)
{
    (void)unused;
    struct schedule s = {0};
    struct schedule_turn t = schedule_turn(&s, 5);
    assert_false(t.any || t.more || t.less);
    assert_true(closed(&s, 0, 0));
    assert_true(schedule_make(&s, 1)); /* a zone whose window never comes */
    t = schedule_turn(&s, 5);
    assert_true(!t.any && t.next_ms == INT64_MAX && closed(&s, 0, 1023));
    schedule_free(&s);
}

/* --- steering ---------------------------------------------------------------------------------------------------- */

static void times_are_checked_against_each_other(void **unused)
{
    (void)unused;
    static const struct {
        int64_t not_before_s, delivery_s, expires_s; /* from now; 0: none */
        const char *reason;
    } cases[] = {
        {0, 0, 100, NULL},
        {99, 0, 100, NULL},
        {100, 0, 100, "NEVER_SENT"},
        {101, 0, 100, "NEVER_SENT"},
        {-50, 0, 100, NULL},
        {0, 100, 100, NULL},
        {50, 50, 100, NULL},
        {50, 51, 100, "TIMEOUT_AFTER_EXPIRY"},
        {-50, 101, 100, "TIMEOUT_AFTER_EXPIRY"},
    };
    int64_t now = 1790000000000;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Muster__V1__Steering in = MUSTER__V1__STEERING__INIT;
        Muster__V1__Timeouts timeouts = MUSTER__V1__TIMEOUTS__INIT;
        Google__Protobuf__Timestamp at = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Google__Protobuf__Duration delivery = GOOGLE__PROTOBUF__DURATION__INIT;
        struct status st = {0};
        at.seconds = now / 1000 + cases[i].not_before_s;
        delivery.seconds = cases[i].delivery_s;
        in.not_before = cases[i].not_before_s ? &at : NULL;
        in.timeouts = cases[i].delivery_s ? &timeouts : NULL;
        timeouts.delivery = &delivery;
        steering_check(&st, &in, now, now + cases[i].expires_s * 1000);
        if (cases[i].reason)
            assert_string_equal(st.reason, cases[i].reason);
        else
            assert_int_equal(st.code, STATUS_OK);
    }
}

static void timeouts_have_defaults_by_type(void **unused)
{
    (void)unused;
    static const struct {
        Muster__V1__Command__KindCase kind;
        int64_t minutes;
    } kinds[] = {
        {MUSTER__V1__COMMAND__KIND_LOCK, 5},
        {MUSTER__V1__COMMAND__KIND_UNLOCK, 5},
        {MUSTER__V1__COMMAND__KIND_WIPE, 5},
        {MUSTER__V1__COMMAND__KIND_LOST_MODE, 5},
        {MUSTER__V1__COMMAND__KIND_RESTRICT_FUNCTIONS, 5},
        {MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION, 5},
        {MUSTER__V1__COMMAND__KIND_CONFIGURE, 15},
        {MUSTER__V1__COMMAND__KIND_REMOVE_APPLICATION, 15},
        {MUSTER__V1__COMMAND__KIND_RESTART, 15},
        {MUSTER__V1__COMMAND__KIND_INSTALL_APPLICATION, 60},
        {MUSTER__V1__COMMAND__KIND_CUSTOM, 60},
        {MUSTER__V1__COMMAND__KIND_BACK_UP, 1440},
        {MUSTER__V1__COMMAND__KIND_RESTORE, 1440},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        Muster__V1__Steering in = MUSTER__V1__STEERING__INIT;
        Muster__V1__Timeouts timeouts = MUSTER__V1__TIMEOUTS__INIT;
        struct db_steer out;
        steering_read(&out, &in, kinds[i].kind, 5);
        assert_true(!out.execution_ms && !out.deliver_by_ms); /* only for those who ask */
        in.timeouts = &timeouts;
        steering_read(&out, &in, kinds[i].kind, 5);
        assert_true(out.execution_ms == kinds[i].minutes * 60000 && !out.deliver_by_ms);
    }
}

static void a_window_is_kept_in_a_number(void **unused)
{
    (void)unused;
    for (int days = 1; days < 128; days += 21)
        for (int from = 0; from < 1440; from += 479)
            for (int until = 0; until < 1440; until += 359) {
                struct db_window in = {days, from, until, "UTC"};
                struct db_steer s = {.window = db_window_pack(&in)};
                struct db_window out = db_window_of(&s);
                assert_true(s.window > 0 && out.days == days && out.from == from && out.until == until);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_open_and_close_at_their_edges),
        cmocka_unit_test(what_is_read_anew_goes_on_from_what_was),
        cmocka_unit_test(an_unknown_schedule_is_closed),
        cmocka_unit_test(times_are_checked_against_each_other),
        cmocka_unit_test(timeouts_have_defaults_by_type),
        cmocka_unit_test(a_window_is_kept_in_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
