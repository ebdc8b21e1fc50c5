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

void stats_acked(struct stats *s, int64_t received_us, int64_t now_us)
{
    s->v[STAT_ACKED]++;
    s->last_acked_us = (uint64_t)now_us;
    histogram_add(&s->push_puback, now_us - received_us);
}

void stats_add(struct stats *into, const struct stats *from)
{
    for (int i = 0; i < STAT_COUNT; i++)
        into->v[i] += __atomic_load_n(&from->v[i], __ATOMIC_RELAXED);
    into->dumps += __atomic_load_n(&from->dumps, __ATOMIC_ACQUIRE);
    into->dump_failures += __atomic_load_n(&from->dump_failures, __ATOMIC_RELAXED);
    uint64_t last = __atomic_load_n(&from->last_acked_us, __ATOMIC_RELAXED);
    if (last > into->last_acked_us)
        into->last_acked_us = last;
    histogram_merge(&into->push_puback, &from->push_puback);
}
