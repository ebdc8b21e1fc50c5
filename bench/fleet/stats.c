#include "bench/fleet/stats.h"

static const char *const names[STAT_COUNT] = {
    [STAT_CONNECTED] = "connected", [STAT_READY] = "ready",
    [STAT_CONNECTS] = "connects",   [STAT_RECONNECTS] = "reconnects",
    [STAT_FAILURES] = "failures",   [STAT_REFUSED] = "refused",
    [STAT_LOST] = "lost",           [STAT_RECEIVED] = "received",
    [STAT_REPEATED] = "repeated",   [STAT_EXECUTED] = "executed",
    [STAT_ANSWERED] = "answered",   [STAT_ACKED] = "acked",
    [STAT_SILENT] = "silent",       [STAT_CRASHES] = "crashes",
    [STAT_CHURNED] = "churned",     [STAT_BAD] = "bad",
    [STAT_BYTES_IN] = "bytes_in",   [STAT_BYTES_OUT] = "bytes_out",
};

const char *stat_name(enum tally s)
{
    return names[s];
}

void stats_add(struct stats *into, const struct stats *from)
{
    for (int i = 0; i < STAT_COUNT; i++)
        into->v[i] += __atomic_load_n(&from->v[i], __ATOMIC_RELAXED);
    into->dumps += __atomic_load_n(&from->dumps, __ATOMIC_ACQUIRE);
    into->dump_failures += __atomic_load_n(&from->dump_failures, __ATOMIC_RELAXED);
    histogram_merge(&into->push_puback, &from->push_puback);
}
