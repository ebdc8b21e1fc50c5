#include "cli/chaos/fault.h"

#include <stddef.h>

static bool nothing(struct chaos *c, struct injury *i)
{
    (void)c;
    (void)i;
    return true;
}

static const struct fault_work works[FAULT_KINDS] = {
    [FAULT_KILL_DISPATCHER] = {NULL, fault_kill_dispatcher, fault_start_daemon, NULL},
    [FAULT_KILL_WORKER] = {NULL, fault_kill_worker, fault_start_daemon, NULL},
    [FAULT_KILL_REDIS] = {NULL, fault_kill_redis, fault_start_redis, NULL},
    [FAULT_KILL_POSTGRES] = {NULL, fault_kill_postgres, fault_start_postgres, NULL},
    [FAULT_LOSE_REDIS] = {NULL, fault_lose_redis, fault_start_redis, NULL},
    [FAULT_TEAR_REDIS] = {NULL, fault_tear_redis, fault_start_redis, NULL},
    [FAULT_FLUSH_REDIS] = {NULL, fault_flush_redis, nothing, NULL},
    [FAULT_STOP_DISPATCHER] = {NULL, fault_stop_dispatcher, fault_continue, NULL},
    [FAULT_STOP_WORKER] = {NULL, fault_stop_worker, fault_continue, NULL},
    [FAULT_PROMOTE_POSTGRES] = {NULL, fault_promote_postgres, fault_finish_promotion, fault_light_postgres},
    [FAULT_CUT_NETWORK] = {NULL, fault_cut_network, fault_heal_network, NULL},
    [FAULT_DELAY_NETWORK] = {NULL, fault_delay_network, fault_heal_network, NULL},
    [FAULT_LOSE_PACKETS] = {NULL, fault_lose_packets, fault_heal_network, NULL},
    [FAULT_FILL_WAL] = {fault_disk_prevented, fault_fill_wal, fault_empty_wal, NULL},
    [FAULT_FILL_AOF] = {fault_disk_prevented, fault_fill_aof, fault_empty_aof, NULL},
    [FAULT_STEP_CLOCK] = {fault_clock_prevented, fault_step_clock, fault_set_clock_right, NULL},
    [FAULT_RECONNECT_ALL] = {NULL, fault_reconnect_all, nothing, NULL},
    [FAULT_RESTART_ALL] = {NULL, fault_restart_all, nothing, NULL},
};

const struct fault_work *fault_work(enum fault_kind kind)
{
    return &works[kind];
}
