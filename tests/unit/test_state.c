/* The table of transitions: what must hold for every state and event, and each promise by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/store/state.h"

static void terminal_states_never_change(void **unused)
{
    (void)unused;
    for (int s = STATE_SUCCEEDED; s < STATE_COUNT; s++)
        for (int e = 0; e < EVENT_COUNT; e++)
            assert_int_equal(state_next((enum command_state)s, (enum command_event)e), STATE_NONE);
}

static void an_unaddressed_slot_has_no_transition(void **unused)
{
    (void)unused;
    for (int e = 0; e < EVENT_COUNT; e++)
        assert_int_equal(state_next(STATE_NONE, (enum command_event)e), STATE_NONE);
}

static void an_outcome_is_a_fact_in_every_open_state(void **unused)
{
    (void)unused;
    for (int s = STATE_HELD; s <= STATE_SENT; s++) {
        assert_int_equal(state_next((enum command_state)s, EVENT_SUCCEED), STATE_SUCCEEDED);
        assert_int_equal(state_next((enum command_state)s, EVENT_FAIL), STATE_FAILED);
        assert_int_equal(state_next((enum command_state)s, EVENT_REJECT), STATE_REJECTED);
    }
}

static void every_open_state_ends_at_expiry(void **unused)
{
    (void)unused;
    for (int s = STATE_HELD; s < STATE_ROUTED; s++)
        assert_int_equal(state_next((enum command_state)s, EVENT_EXPIRE), STATE_EXPIRED);
    /* It may have been sent a moment ago. */
    assert_int_equal(state_next(STATE_ROUTED, EVENT_EXPIRE), STATE_TIMED_OUT);
    assert_int_equal(state_next(STATE_SENT, EVENT_EXPIRE), STATE_TIMED_OUT);
}

static void a_cancel_spares_what_a_worker_holds(void **unused)
{
    (void)unused;
    assert_int_equal(state_next(STATE_HELD, EVENT_CANCEL), STATE_CANCELED);
    assert_int_equal(state_next(STATE_QUEUED, EVENT_CANCEL), STATE_CANCELED);
    assert_int_equal(state_next(STATE_ROUTED, EVENT_CANCEL), STATE_NONE);
    assert_int_equal(state_next(STATE_SENT, EVENT_CANCEL), STATE_NONE);
    assert_int_equal(state_next(STATE_ROUTED, EVENT_DROP), STATE_CANCELED);
    assert_int_equal(state_next(STATE_SENT, EVENT_DROP), STATE_NONE);
}

static void only_queued_becomes_routed(void **unused)
{
    (void)unused;
    for (int s = 0; s < STATE_COUNT; s++)
        assert_int_equal(state_next((enum command_state)s, EVENT_ROUTE), s == STATE_QUEUED ? STATE_ROUTED : STATE_NONE);
}

static void what_is_lost_is_queued_again(void **unused)
{
    (void)unused;
    assert_int_equal(state_next(STATE_ROUTED, EVENT_LOSE), STATE_QUEUED);
    assert_int_equal(state_next(STATE_SENT, EVENT_LOSE), STATE_NONE); /* it may have been executed */
    assert_int_equal(state_next(STATE_SENT, EVENT_NOT_NOW), STATE_QUEUED);
}

static void what_is_tried_again_is_nobodys(void **unused)
{
    (void)unused;
    for (int s = STATE_HELD; s <= STATE_SENT; s++) {
        assert_int_equal(state_next((enum command_state)s, EVENT_RETRY), STATE_HELD);
        assert_int_equal(state_next((enum command_state)s, EVENT_QUARANTINE), STATE_FAILED);
    }
    assert_int_equal(state_next(STATE_HELD, EVENT_SUPERSEDE), STATE_SUPERSEDED);
    assert_int_equal(state_next(STATE_HELD, EVENT_GIVE_UP), STATE_FAILED);
    for (int s = STATE_QUEUED; s <= STATE_SENT; s++) /* let go meanwhile */
        assert_int_equal(state_next((enum command_state)s, EVENT_GIVE_UP), STATE_NONE);
}

static void not_now_is_no_delivery(void **unused)
{
    (void)unused;
    static const struct {
        uint8_t before;
        enum command_event event;
        unsigned attempts;
        uint8_t after;
    } cases[] = {
#define BYTE(state, attempts) (uint8_t)(state | (attempts) << 4)
        {BYTE(STATE_ROUTED, 0), EVENT_NOT_NOW, 1, BYTE(STATE_QUEUED, 0)}, /* SENT was not recorded yet */
        {BYTE(STATE_SENT, 1), EVENT_NOT_NOW, 1, BYTE(STATE_QUEUED, 0)},
        {BYTE(STATE_SENT, 3), EVENT_NOT_NOW, 0, BYTE(STATE_QUEUED, 2)},
        {BYTE(STATE_SENT, 0), EVENT_NOT_NOW, 0, BYTE(STATE_QUEUED, 0)},
        {BYTE(STATE_SENT, 15), EVENT_NOT_NOW, 15, BYTE(STATE_QUEUED, 14)},
        {BYTE(STATE_QUEUED, 2), EVENT_NOT_NOW, 3, BYTE(STATE_QUEUED, 2)}, /* said again */
        {BYTE(STATE_ROUTED, 1), EVENT_SEND, 2, BYTE(STATE_SENT, 2)},
        {BYTE(STATE_SENT, 2), EVENT_RETRY, 2, BYTE(STATE_HELD, 2)},
        {BYTE(STATE_ROUTED, 1), EVENT_RETRY, 2, BYTE(STATE_HELD, 2)},
        {BYTE(STATE_ROUTED, 1), EVENT_RETRY, 1, BYTE(STATE_ROUTED, 1)}, /* recorded once more, and let go meanwhile */
        {BYTE(STATE_QUEUED, 2), EVENT_RETRY, 2, BYTE(STATE_QUEUED, 2)},
        {BYTE(STATE_HELD, 1), EVENT_OVERDUE, 0, BYTE(STATE_HELD, 1)}, /* it was sent in its time */
        {BYTE(STATE_HELD, 0), EVENT_OVERDUE, 0, BYTE(STATE_EXPIRED, 0)},
        {BYTE(STATE_HELD, 2), EVENT_SEND, 2, BYTE(STATE_HELD, 2)}, /* recorded once more */
        {BYTE(STATE_HELD, 2), EVENT_SEND, 3, BYTE(STATE_SENT, 3)},
        {BYTE(STATE_SENT, 2), EVENT_RETRY, 1, BYTE(STATE_HELD, 2)}, /* said where nobody knows how often it came */
        {BYTE(STATE_SUCCEEDED, 2), EVENT_RETRY, 3, BYTE(STATE_SUCCEEDED, 2)},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(state_apply(cases[i].before, cases[i].event, cases[i].attempts), cases[i].after);
}

static void what_waits_to_be_tried_again_waits_until_it_was(void **unused)
{
    (void)unused;
    static const uint8_t cases[][3] = {
        /* older, newer, joined */
        {BYTE(STATE_SENT, 1), BYTE(STATE_HELD, 1), BYTE(STATE_HELD, 1)},
        {BYTE(STATE_HELD, 1), BYTE(STATE_SENT, 1), BYTE(STATE_HELD, 1)}, /* the same delivery, told late */
        {BYTE(STATE_HELD, 1), BYTE(STATE_QUEUED, 0), BYTE(STATE_HELD, 1)},
        {BYTE(STATE_HELD, 1), BYTE(STATE_SENT, 2), BYTE(STATE_SENT, 2)},
        {BYTE(STATE_SENT, 2), BYTE(STATE_HELD, 1), BYTE(STATE_SENT, 2)}, /* an earlier delivery, told late */
        {BYTE(STATE_HELD, 1), BYTE(STATE_FAILED, 1), BYTE(STATE_FAILED, 1)},
        {BYTE(STATE_FAILED, 2), BYTE(STATE_HELD, 3), BYTE(STATE_FAILED, 3)},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(state_merge(cases[i][0], cases[i][1]), cases[i][2]);
}

static void what_is_unsent_can_be_held_and_released(void **unused)
{
    (void)unused;
    assert_int_equal(state_next(STATE_QUEUED, EVENT_HOLD), STATE_HELD);
    assert_int_equal(state_next(STATE_ROUTED, EVENT_HOLD), STATE_HELD);
    assert_int_equal(state_next(STATE_SENT, EVENT_HOLD), STATE_NONE); /* the device has it */
    assert_int_equal(state_next(STATE_HELD, EVENT_RELEASE), STATE_QUEUED);
    for (int s = STATE_QUEUED; s < STATE_COUNT; s++)
        assert_int_equal(state_next((enum command_state)s, EVENT_RELEASE), STATE_NONE);
    assert_int_equal(state_next(STATE_HELD, EVENT_ROUTE), STATE_NONE); /* nobody gets it */
    assert_int_equal(state_next(STATE_HELD, EVENT_DROP), STATE_CANCELED);
    assert_int_equal(state_next(STATE_HELD, EVENT_SEND), STATE_SENT); /* a fact */
    assert_int_equal(state_next(STATE_HELD, EVENT_LOSE), STATE_NONE);
}

static void numbers_outside_the_enums_change_nothing(void **unused)
{
    (void)unused;
    assert_int_equal(state_next((enum command_state)STATE_COUNT, EVENT_SUCCEED), STATE_NONE);
    assert_int_equal(state_next((enum command_state)255, EVENT_SUCCEED), STATE_NONE);
    assert_int_equal(state_next(STATE_SENT, (enum command_event)EVENT_COUNT), STATE_NONE);
    assert_string_equal(state_name((enum command_state)15), "UNKNOWN");
    assert_string_equal(state_event_name((enum command_event)99), "UNKNOWN");
    assert_false(state_is_terminal((enum command_state)15));
}

static void attempts_stop_at_fifteen(void **unused)
{
    (void)unused;
    assert_int_equal(state_attempts(state_byte(STATE_SENT, 16)), 15);
    assert_int_equal(state_of(state_byte(STATE_SUPERSEDED, 900)), STATE_SUPERSEDED);
}

static void merging_keeps_the_first_terminal_state(void **unused)
{
    (void)unused;
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) {
            uint8_t m = state_merge((uint8_t)a, (uint8_t)b);
            if (state_is_terminal(state_of((uint8_t)a)))
                assert_int_equal(state_of(m), state_of((uint8_t)a));
            else if (state_is_terminal(state_of((uint8_t)b)))
                assert_int_equal(state_of(m), state_of((uint8_t)b));
            assert_int_equal(state_merge(m, (uint8_t)b), m); /* repeating a record changes nothing */
            assert_true(state_attempts(m) >= state_attempts((uint8_t)a) &&
                        state_attempts(m) >= state_attempts((uint8_t)b));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terminal_states_never_change),
        cmocka_unit_test(an_unaddressed_slot_has_no_transition),
        cmocka_unit_test(an_outcome_is_a_fact_in_every_open_state),
        cmocka_unit_test(every_open_state_ends_at_expiry),
        cmocka_unit_test(a_cancel_spares_what_a_worker_holds),
        cmocka_unit_test(only_queued_becomes_routed),
        cmocka_unit_test(what_is_lost_is_queued_again),
        cmocka_unit_test(what_is_tried_again_is_nobodys),
        cmocka_unit_test(not_now_is_no_delivery),
        cmocka_unit_test(what_waits_to_be_tried_again_waits_until_it_was),
        cmocka_unit_test(what_is_unsent_can_be_held_and_released),
        cmocka_unit_test(numbers_outside_the_enums_change_nothing),
        cmocka_unit_test(attempts_stop_at_fifteen),
        cmocka_unit_test(merging_keeps_the_first_terminal_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
