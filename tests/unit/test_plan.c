/* The capacity model: blocks, flushes, bounds of workers, limits, and inputs at the ends. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/plan_model.h"

#define GIB (1024.0 * 1024 * 1024)

/* Round numbers, so that expectations can be reckoned by hand. */
static const struct plan_figures costs = {
    .accept_us_per_batch = 100,
    .leader_us_per_command = 0.1,
    .leader_us_per_block = 2,
    .leader_us_per_batch = 10,
    .leader_us_per_s = 1000,
    .pg_us_per_command = 0.2,
    .pg_us_per_flush = 200,
    .pg_writes_per_batch = 2,
    .pg_writes_per_flush = 1,
    .wal_bytes_per_command = 10,
    .wal_bytes_per_flush = 300,
    .disk_bytes_per_command = 5,
    .disk_bytes_per_block = 100,
    .disk_bytes_per_batch = 500,
    .pg_commits_per_s = 10000,
    .redis_us_per_command = 0.2,
    .redis_us_per_script = 5,
    .redis_scripts_per_block = 3,
    .redis_us_per_attach = 10,
    .redis_us_per_reconnect = 20,
    .redis_bytes_per_command = 1.5,
    .redis_bytes_per_block = 100,
    .worker_us_per_command_openssl = 20,
    .worker_us_per_command_lean = 10,
    .worker_us_per_flush = 100,
    .worker_bytes_per_connection_openssl = 14000,
    .worker_bytes_per_connection_lean = 500,
    .kernel_bytes_per_connection = 4000,
    .connect_us_full = 300,
    .reconnect_us_full = 400,
    .worker_us_per_ping = 10,
    .worker_bytes = 10e6,
    .dispatcher_bytes = 10e6,
};

/* A million devices, all connected, one command a day to each. */
static struct plan_input million(void)
{
    return (struct plan_input){
        .devices = 1e6,
        .commands_per_day = 1e6,
        .batch_size = 1000,
        .tenant_devices = 102400,
        .peak_factor = 1,
        .connected_share = 1,
        .answer_s = 1,
        .flush_s = 0.005,
        .keepalive_s = 100,
        .storm_s = 1000,
        .open_days = 1,
        .retention_days = 10,
        .cores_per_host = 10,
        .memory_per_host = 100 * GIB,
        .descriptors = 20000,
        .commits_per_s = 10000,
        .wal_bytes_per_s = 1e8,
    };
}

static struct plan plan_of(const struct plan_input *in)
{
    struct plan p;

    assert_null(plan_input_fault(in));
    plan_make(in, &costs, &p);
    return p;
}

static void near(double value, double expected)
{
    if (fabs(value - expected) > 1e-6 + fabs(expected) * 1e-6)
        fail_msg("%.9g is not %.9g", value, expected);
}

static void blocks_are_touched_by_chance_and_all_by_a_whole_tenant(void **unused)
{
    (void)unused;
    static const struct {
        double batch, tenant, devices, low, high;
    } cases[] = {
        {1, 102400, 1e6, 1, 1},
        {102400, 102400, 1e6, 100, 100},
        {1e9, 102400, 1e6, 100, 100},
        {1000, 102400, 1e6, 99, 100},
        {100, 102400, 1e6, 63, 64},
        {1000, 1e9, 1000, 1, 1},
        {2048, 2048, 1e6, 2, 2},
        {2, 2e9, 1e12, 1.99, 2},
        {1, 1, 1, 1, 1},
        {1e6, 2147483647, 1e12, 7.9e5, 8e5},
        {2000, 2048, 1e6, 2, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan_input in = million();
        in.batch_size = cases[i].batch;
        in.tenant_devices = cases[i].tenant;
        in.devices = cases[i].devices;
        struct plan p = plan_of(&in);
        if (p.blocks_per_batch < cases[i].low - 1e-9 || p.blocks_per_batch > cases[i].high + 1e-9)
            fail_msg("case %zu: %.9g blocks", i, p.blocks_per_batch);
    }
}

static void rates_follow_from_the_day_and_the_peak(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    in.commands_per_day = 86400e3;
    in.peak_factor = 4;
    in.batch_size = in.tenant_devices;
    in.reconnects_per_day = 0.0864;
    struct plan p = plan_of(&in);
    near(p.rates.commands_mean, 1000);
    near(p.rates.commands, 4000);
    near(p.rates.batches, 4000 / 102400.0);
    near(p.rates.blocks, 4000 / 1024.0);
    near(p.rates.pings, 1e4);
    near(p.rates.reconnects, 1);
    near(p.rates.storm_connects, 1000);
}

static void a_component_costs_what_its_work_does(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    in.commands_per_day = 86400 * 102400.0;
    in.batch_size = in.tenant_devices;
    in.workers = 1; /* flushes every 25 ms, but the first acknowledgement comes at once */
    struct plan p = plan_of(&in);
    double flushes = 1 / (0.025 + 1 / 102400.0);
    near(p.rates.flushes, flushes);
    near(p.size[PLAN_ACCEPT].cores, 100e-6);
    near(p.size[PLAN_LEADER].cores, (102400 * 0.1 + 100 * 2 + 10 + 1000) / 1e6);
    near(p.size[PLAN_LEADER].us_per_command, (102400 * 0.1 + 100 * 2 + 10) / 102400);
    near(p.size[PLAN_POSTGRES].cores, (102400 * 0.2 + flushes * 200) / 1e6);
    near(p.pg_writes, 2 + flushes);
    near(p.wal_bytes, 102400 * 10 + flushes * 300);
    /* A block's answers come in 40 flushes of one worker. */
    near(p.rates.scripts, 100 * (2 + 40));
    near(p.size[PLAN_WORKER].us_per_command, 20 + flushes * 100 / 102400);
    near(p.open_commands, 86400 * 102400.0);
    near(p.disk_bytes, p.open_commands * 10 * (5 + (100 * 100 + 500) / 102400.0));
}

static void a_worker_with_little_to_do_flushes_for_each_command(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    in.commands_per_day = 86400;
    in.workers = 100;
    struct plan p = plan_of(&in);
    assert_true(p.rates.flushes > 0.99 && p.rates.flushes < 1);
    in.commands_per_day = 86400 * 1e5; /* 1,000/s each: five in 5 ms are no crowd */
    p = plan_of(&in);
    near(p.rates.flushes, 100 / 0.006);
    in.flush_s = 0.02; /* 20 are one */
    p = plan_of(&in);
    near(p.rates.flushes, 100 / 0.101);
}

static void the_hardest_bound_says_how_many_workers(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    struct plan p = plan_of(&in);
    assert_int_equal(p.worker_bound, PLAN_BY_DESCRIPTORS);
    near(p.size[PLAN_WORKER].processes, 67 + 1);
    in.descriptors = 1e6;
    p = plan_of(&in);
    assert_int_equal(p.worker_bound, PLAN_BY_MEMORY);
    near(p.size[PLAN_WORKER].processes, 1 + ceil(1e6 * 18000 / (0.8 * 10 * GIB)));
    in.records = PLAN_LEAN;
    in.commands_per_day = 86400 * 1e6; /* 10 cores for commands, 0.1 for keepalives; the storm is less */
    p = plan_of(&in);
    assert_int_equal(p.worker_bound, PLAN_BY_CPU);
    near(p.size[PLAN_WORKER].processes, ceil(10.1 / 0.6) + 1);
    in.workers = 3;
    p = plan_of(&in);
    assert_int_equal(p.worker_bound, PLAN_BY_WISH);
    near(p.size[PLAN_WORKER].processes, 3);
}

static void a_fleet_that_comes_back_at_once_needs_cores(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    in.storm_s = 10;
    struct plan p = plan_of(&in);
    near(p.rates.storm_connects, 1e5);
    assert_true(p.size[PLAN_WORKER].cores >= 30.1);
    assert_true(p.size[PLAN_REDIS].cores >= 1);
    assert_true(p.load[PLAN_LIMIT_REDIS_CPU] > 1);
}

static void the_first_bottleneck_is_the_highest_load(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    struct plan p = plan_of(&in);
    for (int i = 0; i < PLAN_LIMITS; i++)
        assert_true(p.load[i] <= p.load[p.first]);
    in.wal_bytes_per_s = 1;
    p = plan_of(&in);
    assert_int_equal(p.first, PLAN_LIMIT_WAL);
    in.wal_bytes_per_s = 1e12;
    in.commits_per_s = 0.001;
    p = plan_of(&in);
    assert_int_equal(p.first, PLAN_LIMIT_COMMITS);
}

static void what_there_is_room_for_is_just_within_the_limits(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    struct plan p = plan_of(&in);
    assert_true(p.load[p.first] < 1 && p.room > 1);
    in.devices *= p.room;
    in.commands_per_day *= p.room;
    struct plan full = plan_of(&in);
    assert_true(full.load[full.first] <= 1 && full.load[full.first] > 0.9);
    assert_int_equal(full.first, p.next);
    near(full.room, 1);
    in.devices *= 2;
    in.commands_per_day *= 2;
    struct plan over = plan_of(&in);
    assert_true(over.load[over.first] > 1);
    assert_true(over.room < 1 && over.room > 0.4);
}

static void nothing_and_one_and_ten_thousand_millions_are_finite(void **unused)
{
    (void)unused;
    static const double counts[] = {0, 1, 2, 1023, 1024, 1025, 1e10, 1e12}, loads[] = {0, 1, 1e10, 1e15};
    for (size_t d = 0; d < sizeof counts / sizeof *counts; d++)
        for (size_t c = 0; c < sizeof loads / sizeof *loads; c++)
            for (int share = 0; share <= 1; share++) {
                struct plan_input in = million();
                in.devices = counts[d];
                in.commands_per_day = loads[c];
                in.connected_share = share;
                struct plan p = plan_of(&in);
                for (int i = 0; i < PLAN_LIMITS; i++)
                    assert_true(isfinite(p.load[i]) && p.load[i] >= 0);
                for (int i = 0; i < PLAN_PARTS; i++)
                    assert_true(isfinite(p.size[i].cores) && isfinite(p.size[i].memory) && p.size[i].processes >= 1);
                assert_true(isfinite(p.rates.flushes) && isfinite(p.rates.scripts) && isfinite(p.disk_bytes));
                assert_true(p.size[PLAN_WORKER].processes >= 2);
                if (counts[d] == 0)
                    assert_true(p.rates.commands == 0 && p.connected == 0 && p.memory < 1e9);
            }
}

static void ten_thousand_million_devices_have_not_numbers_for_their_workers(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    in.devices = 1e10;
    struct plan p = plan_of(&in);
    near(p.size[PLAN_WORKER].processes, ceil(1e10 / 15000) + 1);
    assert_true(p.load[PLAN_LIMIT_WORKERS] > 10);
}

static void more_load_never_needs_less(void **unused)
{
    (void)unused;
    struct plan_input in = million();
    struct plan last = plan_of(&in);
    for (int i = 0; i < 20; i++) {
        in.devices *= 1.7;
        in.commands_per_day *= 1.7;
        struct plan p = plan_of(&in);
        for (int k = 0; k < PLAN_LIMITS; k++)
            assert_true(p.load[k] >= last.load[k]);
        assert_true(p.memory > last.memory && p.size[PLAN_WORKER].processes >= last.size[PLAN_WORKER].processes);
        last = p;
    }
}

static void input_without_sense_is_named(void **unused)
{
    (void)unused;
    static const struct {
        size_t at;
        double value;
    } cases[] = {
        {offsetof(struct plan_input, batch_size), 0},        {offsetof(struct plan_input, tenant_devices), 0},
        {offsetof(struct plan_input, peak_factor), 0.5},     {offsetof(struct plan_input, connected_share), 1.1},
        {offsetof(struct plan_input, connected_share), NAN}, {offsetof(struct plan_input, answer_s), 0},
        {offsetof(struct plan_input, flush_s), 0},           {offsetof(struct plan_input, keepalive_s), 0},
        {offsetof(struct plan_input, storm_s), 0},           {offsetof(struct plan_input, cores_per_host), 0},
        {offsetof(struct plan_input, memory_per_host), 0},   {offsetof(struct plan_input, descriptors), 0},
        {offsetof(struct plan_input, commits_per_s), 0},     {offsetof(struct plan_input, wal_bytes_per_s), 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan_input in = million();
        memcpy((char *)&in + cases[i].at, &cases[i].value, sizeof(double));
        assert_non_null(plan_input_fault(&in));
    }
}

/* What `muster plan` reckons with has been measured: no figure that divides or dominates is missing. */
static void the_measured_figures_are_there(void **unused)
{
    (void)unused;
    assert_true(plan_figures.worker_us_per_command_openssl > 1 && plan_figures.worker_us_per_command_openssl < 200);
    assert_true(plan_figures.worker_bytes_per_connection_openssl > 1000);
    assert_true(plan_figures.kernel_bytes_per_connection > 1000);
    assert_true(plan_figures.pg_us_per_flush > 0 && plan_figures.wal_bytes_per_flush > 0);
    assert_true(plan_figures.pg_commits_per_s > 100);
    assert_true(plan_figures.redis_us_per_script > 0 && plan_figures.redis_scripts_per_block >= 1);
    assert_true(strstr(plan_measured_on, "cores") != NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_touched_by_chance_and_all_by_a_whole_tenant),
        cmocka_unit_test(rates_follow_from_the_day_and_the_peak),
        cmocka_unit_test(a_component_costs_what_its_work_does),
        cmocka_unit_test(a_worker_with_little_to_do_flushes_for_each_command),
        cmocka_unit_test(the_hardest_bound_says_how_many_workers),
        cmocka_unit_test(a_fleet_that_comes_back_at_once_needs_cores),
        cmocka_unit_test(the_first_bottleneck_is_the_highest_load),
        cmocka_unit_test(what_there_is_room_for_is_just_within_the_limits),
        cmocka_unit_test(nothing_and_one_and_ten_thousand_millions_are_finite),
        cmocka_unit_test(ten_thousand_million_devices_have_not_numbers_for_their_workers),
        cmocka_unit_test(more_load_never_needs_less),
        cmocka_unit_test(input_without_sense_is_named),
        cmocka_unit_test(the_measured_figures_are_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
