/* The network between one component and what it talks to: cut, slow, lossy. */
#include <stdio.h>
#include <string.h>

#include "cli/chaos/fault.h"
#include "lib/base/clock.h"

/* What a dispatcher talks to, and a worker. */
static const char *const peers[] = {"redis", "pg", "devices"};
#define DISPATCHER_PEERS 2u
#define WORKER_PEERS     3u

/* "worker-2.pg": the beginning of the names of the routes that are hit. */
static void choose(struct chaos *c, struct injury *i)
{
    uint32_t dispatchers = (uint32_t)c->options.dispatchers, workers = (uint32_t)c->options.workers;
    uint32_t n = i->fault->victim % (dispatchers * DISPATCHER_PEERS + workers * WORKER_PEERS);

    if (n < dispatchers * DISPATCHER_PEERS) {
        snprintf(i->victim, sizeof i->victim, "dispatcher-%u.%s", n / DISPATCHER_PEERS + 1,
                 peers[n % DISPATCHER_PEERS]);
    } else {
        n -= dispatchers * DISPATCHER_PEERS;
        snprintf(i->victim, sizeof i->victim, "worker-%u.%s", n / WORKER_PEERS + 1, peers[n % WORKER_PEERS]);
    }
}

static bool tell_all(struct chaos *c, const struct injury *i, const char *verb, const char *value)
{
    for (int n = 0; n < c->route_count; n++)
        if (strncmp(c->routes[n].name, i->victim, strlen(i->victim)) == 0 &&
            !chaos_route_tell(c, c->routes[n].name, verb, value))
            return false;
    return true;
}

/* Half of the cuts are a cable pulled out: nothing comes, not even an error. */
bool fault_cut_network(struct chaos *c, struct injury *i)
{
    choose(c, i);
    return tell_all(c, i, i->fault->victim >> 16 & 1 ? "stall" : "break", "");
}

bool fault_delay_network(struct chaos *c, struct injury *i)
{
    choose(c, i);
    return tell_all(c, i, "delay", "2000");
}

bool fault_lose_packets(struct chaos *c, struct injury *i)
{
    choose(c, i);
    return tell_all(c, i, "lose", "5");
}

bool fault_heal_network(struct chaos *c, struct injury *i)
{
    struct slow_time *slow = evidence_slow(&c->evidence);

    slow->from_ms = i->at_ms;
    slow->to_ms = clock_wall_ms();
    return tell_all(c, i, "heal", "");
}
