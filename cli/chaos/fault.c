#include "cli/chaos/fault.h"

#include <stddef.h>

static bool nothing(struct chaos *c, struct injury *i)
{
    (void)c;
    (void)i;
    return true;
}

static const struct fault_work works[FAULT_KINDS] = {
    [FAULT_KILL_DISPATCHER] = {NULL, fault_kill_dispatcher, fault_start_daemon},
    [FAULT_KILL_WORKER] = {NULL, fault_kill_worker, fault_start_daemon},
    [FAULT_KILL_REDIS] = {NULL, fault_kill_redis, fault_start_redis},
    [FAULT_KILL_POSTGRES] = {NULL, fault_kill_postgres, fault_start_postgres},
    [FAULT_LOSE_REDIS] = {NULL, fault_lose_redis, fault_start_redis},
    [FAULT_TEAR_REDIS] = {NULL, fault_tear_redis, fault_start_redis},
    [FAULT_FLUSH_REDIS] = {NULL, fault_flush_redis, nothing},
    [FAULT_STOP_DISPATCHER] = {NULL, fault_stop_dispatcher, fault_continue},
    [FAULT_STOP_WORKER] = {NULL, fault_stop_worker, fault_continue},
    [FAULT_RECONNECT_ALL] = {NULL, fault_reconnect_all, nothing},
    [FAULT_RESTART_ALL] = {NULL, fault_restart_all, nothing},
};

const struct fault_work *fault_work(enum fault_kind kind)
{
    return &works[kind];
}
