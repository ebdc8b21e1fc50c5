#include "tests/sim/net.h"

#include "tests/sim/fault.h"

int64_t net_delay(struct world *w)
{
    const struct fault_plan *plan = fault_plan(w);
    if (plan->slow_per_mille && chance(w, plan->slow_per_mille))
        return between(w, 1 * MS, plan->slow_us);
    return between(w, 40, 400);
}

int64_t wire_arrival(struct world *w, struct wire *wire)
{
    int64_t at = w->now_us + net_delay(w);
    if (at < wire->stall_us)
        at = wire->stall_us;
    if (at <= wire->last_us)
        at = wire->last_us + 1;
    return wire->last_us = at;
}

void wire_stall(struct wire *wire, int64_t until_us)
{
    if (until_us > wire->stall_us)
        wire->stall_us = until_us;
}
