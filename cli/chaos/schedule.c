#include "cli/chaos/schedule.h"

#include <stdlib.h>
#include <string.h>

/* Faults of one volley at most. */
#define VOLLEY_MAX 3

/* Load without faults before a volley. */
#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 600

static const struct fault_kind_info kinds[FAULT_KINDS] = {
    [FAULT_KILL_DISPATCHER] = {"kill-dispatcher", "kill -9 of a dispatcher", true, false, TOUCHES_DISPATCHER, 0, 1500},
    [FAULT_KILL_WORKER] = {"kill-worker", "kill -9 of a worker", true, true, TOUCHES_WORKER, 0, 1500},
    [FAULT_KILL_REDIS] = {"kill-redis", "kill -9 of Redis with appendfsync everysec", true, true, TOUCHES_REDIS, 0,
                          1000},
    [FAULT_KILL_POSTGRES] = {"kill-postgres", "kill -9 of PostgreSQL", true, false, TOUCHES_POSTGRES, 0, 1000},
    [FAULT_LOSE_REDIS] = {"lose-redis", "kill -9 of Redis, which comes back empty", true, true, TOUCHES_REDIS, 0, 1000},
    [FAULT_TEAR_REDIS] = {"tear-redis", "kill -9 of Redis, the end of its append-only file is lost", true, true,
                          TOUCHES_REDIS, 0, 1000},
    [FAULT_FLUSH_REDIS] = {"flush-redis", "FLUSHALL", false, true, TOUCHES_REDIS, 0, 0},
    [FAULT_STOP_DISPATCHER] = {"stop-dispatcher", "SIGSTOP of the leading dispatcher past its lease", false, false,
                               TOUCHES_DISPATCHER, 500, 3000},
    [FAULT_STOP_WORKER] = {"stop-worker", "SIGSTOP of a worker past its lease", false, true, TOUCHES_WORKER, 500, 3000},
    [FAULT_PROMOTE_POSTGRES] = {"promote-postgres", "kill -9 of PostgreSQL, its synchronous standby takes over", true,
                                false, TOUCHES_POSTGRES | TOUCHES_NETWORK, 0, 500},
    [FAULT_CUT_NETWORK] = {"cut-network", "connections of a component break and none is made", false, false,
                           TOUCHES_NETWORK, 1000, 4000},
    [FAULT_DELAY_NETWORK] = {"delay-network", "a component's bytes take 2 s longer", false, false, TOUCHES_NETWORK,
                             3000, 5000},
    [FAULT_LOSE_PACKETS] = {"lose-packets", "5 % of a component's packets are lost and sent again", false, false,
                            TOUCHES_NETWORK, 2000, 4000},
    [FAULT_FILL_WAL] = {"fill-wal", "no space for PostgreSQL's log", false, false, TOUCHES_POSTGRES, 1500, 3000},
    [FAULT_FILL_AOF] = {"fill-aof", "no space for Redis' append-only file", false, true, TOUCHES_REDIS, 1500, 3000},
    [FAULT_STEP_CLOCK] = {"step-clock", "the clock of one process goes one hour off and back", false, false,
                          TOUCHES_ALL, 2000, 4000},
    [FAULT_RECONNECT_ALL] = {"reconnect-all", "every device reconnects within a second", false, false, TOUCHES_FLEET, 0,
                             0},
    [FAULT_RESTART_ALL] = {"restart-all", "everything is restarted in turn", false, true, TOUCHES_ALL, 0, 0},
};

const struct fault_kind_info *fault_kind_info(enum fault_kind kind)
{
    return &kinds[kind];
}

bool fault_kind_find(const char *name, enum fault_kind *kind)
{
    for (int i = 0; i < FAULT_KINDS; i++)
        if (strcmp(kinds[i].name, name) == 0) {
            *kind = (enum fault_kind)i;
            return true;
        }
    return false;
}

uint64_t schedule_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint16_t between(uint64_t *random, unsigned min, unsigned max)
{
    return (uint16_t)(min + schedule_random(random) % (max - min + 1));
}

static void shuffle(struct fault *faults, size_t count, uint64_t *random)
{
    for (size_t i = count; i > 1; i--) {
        size_t j = schedule_random(random) % i;
        struct fault other = faults[i - 1];
        faults[i - 1] = faults[j];
        faults[j] = other;
    }
}

/* Draws each fault's numbers, and says which go together. */
static void draw(struct fault *faults, size_t count, uint64_t *random)
{
    unsigned touched = 0, size = 0;

    for (size_t i = 0; i < count; i++) {
        struct fault *f = &faults[i];
        const struct fault_kind_info *info = &kinds[f->kind];
        f->victim = (uint32_t)schedule_random(random);
        f->hold_ms = between(random, info->hold_min_ms, info->hold_max_ms);
        f->pause_ms = between(random, PAUSE_MIN_MS, PAUSE_MAX_MS);
        /* Two of three faults join the volley before them when they may. */
        f->together = size > 0 && size < VOLLEY_MAX && !(touched & info->touches) && schedule_random(random) % 3 > 0;
        size = f->together ? size + 1 : 1;
        touched = f->together ? touched | info->touches : info->touches;
    }
}

void chaos_schedule_make(struct schedule *s, uint64_t seed, const unsigned count[FAULT_KINDS])
{
    uint64_t random = seed;
    size_t all = 0, n = 0;

    for (int kind = 0; kind < FAULT_KINDS; kind++)
        all += count[kind];
    *s = (struct schedule){.faults = calloc(all ? all : 1, sizeof *s->faults), .count = all};
    if (!s->faults)
        abort();
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        for (unsigned i = 0; i < count[kind]; i++)
            s->faults[n++].kind = (enum fault_kind)kind;
    shuffle(s->faults, all, &random);
    draw(s->faults, all, &random);
}

void chaos_schedule_free(struct schedule *s)
{
    free(s->faults);
    *s = (struct schedule){0};
}
