/* The oracle can fail: an honest round is good, and every falsified one is found out by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/chaos/verdict.h"
#include "lib/store/state.h"
#include "proto/command_id.h"

#define ASH     3u /* tenants' numbers */
#define ELM     4u
#define NOW     1764000000000
#define EXPIRES (NOW + 100000)

enum { OF_FIVE = 50, CANCELED = 51, OF_ELM = 52 };

static void add_batch(struct evidence *e, uint64_t id, int tenant, const char *request, uint32_t devices)
{
    struct request *r = evidence_request(e);
    struct stored_batch *b = evidence_batch(e);

    snprintf(r->id, sizeof r->id, "%s", request);
    r->tenant = tenant;
    r->batch = id;
    r->devices = devices;
    r->expires_ms = EXPIRES;
    b->id = id;
    b->tenant = e->tenants[tenant];
    snprintf(b->request, sizeof b->request, "%s", request);
    b->devices = devices;
    b->expires_ms = EXPIRES;
    b->closed_ms = NOW + 500;
}

static void add_command(struct evidence *e, uint64_t batch, uint32_t tenant, uint32_t seq, enum command_state state)
{
    struct told_command *c = evidence_command(e);

    *c = (struct told_command){batch, tenant, seq, (uint8_t)state, (uint8_t)state};
}

static void add_witnessed(struct evidence *e, uint64_t batch, uint32_t tenant, uint32_t seq, enum command_state outcome)
{
    struct witnessed *w = evidence_witnessed(e);
    bool executed = outcome == STATE_SUCCEEDED || outcome == STATE_FAILED;

    *w = (struct witnessed){.batch = batch,
                            .tenant = tenant,
                            .seq = seq,
                            .by_tenant = tenant,
                            .by_seq = seq,
                            .received = 1,
                            .executed = executed,
                            .outcome = (uint8_t)outcome,
                            .acked = true,
                            .received_ms = NOW + 10,
                            .executed_ms = executed ? NOW + 20 : 0,
                            .acked_ms = NOW + 30};
}

/* A round as it should be: every outcome once, a canceled batch, and another tenant's. */
static void honest(struct evidence *e)
{
    *e = (struct evidence){.tenants = {ASH, ELM}, .first_batch = OF_FIVE};
    add_batch(e, OF_FIVE, 0, "t0-1", 5);
    add_batch(e, CANCELED, 0, "t0-2", 2);
    add_batch(e, OF_ELM, 1, "t1-1", 1);
    add_command(e, OF_FIVE, ASH, 0, STATE_SUCCEEDED);
    add_command(e, OF_FIVE, ASH, 1, STATE_FAILED);
    add_command(e, OF_FIVE, ASH, 2, STATE_REJECTED);
    add_command(e, OF_FIVE, ASH, 3, STATE_EXPIRED);
    add_command(e, OF_FIVE, ASH, 4, STATE_TIMED_OUT);
    add_command(e, CANCELED, ASH, 0, STATE_CANCELED);
    add_command(e, CANCELED, ASH, 1, STATE_SUCCEEDED);
    add_command(e, OF_ELM, ELM, 0, STATE_SUCCEEDED);
    add_witnessed(e, OF_FIVE, ASH, 0, STATE_SUCCEEDED);
    add_witnessed(e, OF_FIVE, ASH, 1, STATE_FAILED);
    add_witnessed(e, OF_FIVE, ASH, 2, STATE_REJECTED);
    add_witnessed(e, OF_FIVE, ASH, 4, STATE_QUEUED);
    add_witnessed(e, CANCELED, ASH, 1, STATE_SUCCEEDED);
    add_witnessed(e, OF_ELM, ELM, 0, STATE_SUCCEEDED);
    e->requests[1].asked_for_cancel = true;
    e->requests[1].canceled_ms = NOW + 200;
}

/* The round judged; exactly `wanted` must be broken, BREACHES for nothing. */
static void expect(struct evidence *e, enum breach wanted)
{
    struct verdict *v = calloc(1, sizeof *v);

    assert_non_null(v);
    evidence_sort(e);
    verdict_judge(e, v);
    for (unsigned i = 0; i < BREACHES; i++) {
        bool broken = v->complaints[i].count > 0, meant = (unsigned)wanted == i;
        if (broken != meant)
            print_message("%s: %s\n", breach_name((enum breach)i), v->complaints[i].text[0]);
        assert_int_equal(broken, meant);
    }
    assert_int_equal(verdict_is_good(v), wanted == BREACHES);
    free(v);
    evidence_free(e);
}

static struct witnessed *witnessed(struct evidence *e, uint64_t batch, uint32_t seq)
{
    for (size_t i = 0; i < e->witnessed_count; i++)
        if (e->witnessed[i].batch == batch && e->witnessed[i].seq == seq)
            return &e->witnessed[i];
    fail();
    return NULL;
}

static void test_honest_round_is_good(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    expect(&e, BREACHES);
}

static void test_executed_twice(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    witnessed(&e, OF_FIVE, 0)->executed = 2;
    expect(&e, BREACH_EXECUTED_TWICE);
}

static void test_executed_again_in_a_later_round(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    add_witnessed(&e, OF_FIVE - 1, ASH, 0, STATE_SUCCEEDED); /* seen again: that may be */
    expect(&e, BREACHES);
    honest(&e);
    add_witnessed(&e, OF_FIVE - 1, ASH, 0, STATE_SUCCEEDED);
    witnessed(&e, OF_FIVE - 1, 0)->executed = 2;
    expect(&e, BREACH_EXECUTED_TWICE);
}

static void test_success_that_nobody_executed(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    *witnessed(&e, OF_FIVE, 0) = (struct witnessed){.batch = OF_FIVE, .tenant = ASH, .by_tenant = ASH, .received = 1};
    expect(&e, BREACH_NOT_EXECUTED);
}

static void test_success_that_was_a_failure_and_unacked(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    witnessed(&e, OF_FIVE, 0)->outcome = STATE_FAILED;
    witnessed(&e, OF_FIVE, 0)->acked = false;
    expect(&e, BREACH_NOT_EXECUTED);
}

static void test_puback_of_an_acknowledgement_that_is_missing(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    witnessed(&e, OF_FIVE, 4)->outcome = STATE_REJECTED; /* TIMED_OUT, though acknowledged in time */
    expect(&e, BREACH_ACK_LOST);
    honest(&e);
    witnessed(&e, OF_FIVE, 4)->outcome = STATE_REJECTED; /* the same, but after its end */
    witnessed(&e, OF_FIVE, 4)->acked_ms = EXPIRES + 1;
    expect(&e, BREACHES);
}

static void test_rejection_that_is_none(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    witnessed(&e, OF_FIVE, 2)->outcome = STATE_NONE;
    expect(&e, BREACH_OUTCOME_DIFFERS);
}

static void test_not_terminal(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    e.commands[3].told = e.commands[3].stored = STATE_QUEUED;
    expect(&e, BREACH_NOT_TERMINAL);
}

static void test_batch_that_is_not_closed(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    e.batches[0].closed_ms = 0;
    expect(&e, BREACH_HANG);
}

static void test_command_nobody_submitted(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    add_witnessed(&e, OF_ELM + 1, ASH, 0, STATE_SUCCEEDED);
    expect(&e, BREACH_NOT_ACCEPTED);
}

static void test_batch_nobody_asked_for(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    memcpy(e.requests[2].id, "t1-9", 5);
    e.requests[2].batch = 0;
    expect(&e, BREACH_NOT_ACCEPTED);
}

static void test_sent_after_the_cancel(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    witnessed(&e, CANCELED, 1)->received_ms = NOW + 200 + WAY_MS + 1;
    expect(&e, BREACH_SENT_AFTER_CANCEL);
    honest(&e);
    witnessed(&e, CANCELED, 1)->received_ms = NOW + 200 + WAY_MS + 1; /* the network was slow then */
    *evidence_slow(&e) = (struct slow_time){NOW, NOW + 300};
    expect(&e, BREACHES);
}

static void test_executed_though_canceled(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    add_witnessed(&e, CANCELED, ASH, 0, STATE_SUCCEEDED);
    witnessed(&e, CANCELED, 0)->acked = false;
    expect(&e, BREACH_EXECUTED_UNSENT);
}

static void test_sent_in_a_second_that_all_forgot(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    add_witnessed(&e, CANCELED, ASH, 0, STATE_SUCCEEDED);
    *evidence_blind(&e) = (struct slow_time){NOW, NOW + 100};
    expect(&e, BREACHES);
    honest(&e);
    witnessed(&e, OF_FIVE, 0)->executed = 2; /* which excuses nothing else */
    *evidence_blind(&e) = (struct slow_time){NOW, NOW + 100};
    expect(&e, BREACH_EXECUTED_TWICE);
}

static void test_sent_after_the_expiry(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    witnessed(&e, OF_FIVE, 4)->received_ms = EXPIRES + WAY_MS + 1;
    expect(&e, BREACH_SENT_AFTER_EXPIRY);
}

static void test_command_of_another_tenant(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    witnessed(&e, OF_ELM, 0)->by_tenant = ASH;
    expect(&e, BREACH_FOREIGN_TENANT);
}

static void test_batch_shown_to_another_tenant(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    e.requests[0].foreign = OF_ELM;
    expect(&e, BREACH_FOREIGN_TENANT);
}

static void test_accepted_and_lost(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    *evidence_request(&e) = (struct request){.id = "t0-3", .batch = OF_ELM + 1, .devices = 1};
    expect(&e, BREACH_ACCEPTED_LOST);
    honest(&e);
    e.requests[0].devices = 6;
    expect(&e, BREACH_ACCEPTED_LOST);
}

static void test_accepted_twice(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    e.requests[0].twice = true;
    expect(&e, BREACH_ACCEPTED_TWICE);
    honest(&e);
    struct stored_batch *b = evidence_batch(&e);
    *b = (struct stored_batch){.id = OF_ELM + 1, .tenant = ASH, .request = "t0-1", .closed_ms = NOW};
    expect(&e, BREACH_ACCEPTED_TWICE);
}

static void test_refused(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    *evidence_request(&e) = (struct request){.id = "t0-3", .refused = "INVALID_ARGUMENT"}; /* its expiry had passed */
    expect(&e, BREACHES);
    honest(&e);
    *evidence_request(&e) = (struct request){.id = "t0-3", .refused = "ALREADY_EXISTS"};
    expect(&e, BREACH_REFUSED);
}

static void test_witnesses_differ(void **state)
{
    struct evidence e;

    (void)state;
    honest(&e);
    e.commands[3].stored = STATE_TIMED_OUT;
    expect(&e, BREACH_WITNESSES_DIFFER);
    honest(&e);
    e.command_count--; /* the command of OF_ELM is nowhere, its device has it all the same */
    e.witnessed_count--;
    expect(&e, BREACH_WITNESSES_DIFFER);
}

static char path[] = "/tmp/muster-journal-XXXXXX";

static void write_file(const char *text)
{
    FILE *out = fopen(path, "we");

    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void test_journal(void **state)
{
    struct evidence e = {0};

    (void)state;
    write_file("S t0-1 1700\nA t0-1 7 12\nC t0-1\nS t0-2 1800\nA t0-1 8 12\nK t0-1 1650\nR t0-2 INVALID_ARGUMENT\nF "
               "t0-1 9\nE\n");
    assert_true(evidence_read_journal(&e, path, 1));
    assert_int_equal(e.request_count, 2);
    assert_string_equal(e.requests[0].id, "t0-1");
    assert_int_equal(e.requests[0].tenant, 1);
    assert_int_equal(e.requests[0].expires_ms, 1700);
    assert_true(e.requests[0].twice && e.requests[0].asked_for_cancel);
    assert_int_equal(e.requests[0].canceled_ms, 1650);
    assert_int_equal(e.requests[0].foreign, 9);
    assert_string_equal(e.requests[1].refused, "INVALID_ARGUMENT");
    write_file("S t0-3 1700\nA t0-3 7 12\n"); /* its caller died */
    assert_false(evidence_read_journal(&e, path, 1));
    write_file("A t0-4 7 12\nE\n"); /* answered, never asked */
    assert_false(evidence_read_journal(&e, path, 1));
    evidence_free(&e);
}

static void test_record(void **state)
{
    struct evidence e = {0};
    const struct command_id id = {.batch = 77, .tenant = ASH, .seq = 5};
    char text[COMMAND_ID_TEXT + 1] = "", line[200];

    (void)state;
    command_id_write(text, &id);
    *evidence_device(&e) = (struct known_device){"elm-1", ELM, 1};
    *evidence_device(&e) = (struct known_device){"ash-5", ASH, 5};
    snprintf(line, sizeof line, "ash-5 %s 3 1 FAILED 1 100 200 300\nwho-1 %s 1 0 NONE 0 100 0 0\n", text, text);
    write_file(line);
    assert_true(evidence_read_record(&e, path));
    assert_int_equal(e.witnessed_count, 2);
    const struct witnessed *w = &e.witnessed[0];
    assert_true(w->batch == 77 && w->tenant == ASH && w->seq == 5 && w->by_tenant == ASH && w->by_seq == 5);
    assert_true(w->received == 3 && w->executed == 1 && w->outcome == STATE_FAILED && w->acked);
    assert_true(w->received_ms == 100 && w->executed_ms == 200 && w->acked_ms == 300);
    assert_int_equal(e.witnessed[1].by_tenant, 0);
    write_file("ash-5 no-command 3 1 FAILED 1 100 200 300\n");
    assert_false(evidence_read_record(&e, path));
    evidence_free(&e);
}

static int make_file(void **state)
{
    (void)state;
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_honest_round_is_good),
        cmocka_unit_test(test_executed_twice),
        cmocka_unit_test(test_executed_again_in_a_later_round),
        cmocka_unit_test(test_success_that_nobody_executed),
        cmocka_unit_test(test_success_that_was_a_failure_and_unacked),
        cmocka_unit_test(test_puback_of_an_acknowledgement_that_is_missing),
        cmocka_unit_test(test_rejection_that_is_none),
        cmocka_unit_test(test_not_terminal),
        cmocka_unit_test(test_batch_that_is_not_closed),
        cmocka_unit_test(test_command_nobody_submitted),
        cmocka_unit_test(test_batch_nobody_asked_for),
        cmocka_unit_test(test_sent_after_the_cancel),
        cmocka_unit_test(test_executed_though_canceled),
        cmocka_unit_test(test_sent_in_a_second_that_all_forgot),
        cmocka_unit_test(test_sent_after_the_expiry),
        cmocka_unit_test(test_command_of_another_tenant),
        cmocka_unit_test(test_batch_shown_to_another_tenant),
        cmocka_unit_test(test_accepted_and_lost),
        cmocka_unit_test(test_accepted_twice),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_witnesses_differ),
        cmocka_unit_test_setup_teardown(test_journal, make_file, remove_file),
        cmocka_unit_test_setup_teardown(test_record, make_file, remove_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
