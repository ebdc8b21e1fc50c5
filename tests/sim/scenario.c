#include "tests/sim/scenario.h"

#include <stddef.h>
#include <string.h>

static const struct scenario scenarios[] = {
    /* Redis is emptied while a worker is stopped and nobody leads; another begins meanwhile. Both had one number. */
    {.name = "number-taken-twice",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{2000, "stop", "d0", 13000},
               {8500, "kill", "w1", 3000},
               {10000, "empty-redis", NULL, 1300},
               {13500, "lose-devices", NULL, 1000},
               {15500, "lose-devices", NULL, 500}}},
    /* What a worker has sent to Redis comes there after its devices have gone elsewhere. */
    {.name = "astray",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{900, "stall-redis", "w0", 11000},
               {2500, "lose-devices", NULL, 2000},
               {5500, "lose-devices", NULL, 1500},
               {9000, "lose-devices", NULL, 1000},
               {10500, "stop", "w0", 4000},
               {12500, "lose-devices", NULL, 300}}},
    /* A worker that is stopped loses what it was about to read of a batch; what comes behind it is there. */
    {.name = "lost-on-the-way",
     .dispatchers = 2,
     .workers = 1,
     .steps = {{3000, "stop", "w0", 1700},
               {3900, "cut-redis", "w0", 0},
               {6000, "stop", "w0", 1700},
               {6900, "cut-redis", "w0", 0},
               {9000, "stop", "w0", 1700},
               {9900, "cut-redis", "w0", 0},
               {12000, "stop", "w0", 1700},
               {12900, "cut-redis", "w0", 0},
               {15000, "stop", "w0", 1700},
               {15900, "cut-redis", "w0", 0}}},
    /* The first take of a worker was not answered when its connection broke. */
    {.name = "given-away",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{2000, "kill", "w1", 300},
               {2400, "cut-redis", "w1", 0},
               {5000, "kill", "w1", 300},
               {5400, "cut-redis", "w1", 0},
               {8000, "kill", "w1", 300},
               {8400, "cut-redis", "w1", 0},
               {11000, "kill", "w1", 300},
               {11400, "cut-redis", "w1", 0},
               {14000, "kill", "w1", 300},
               {14400, "cut-redis", "w1", 0}}},
    /* What others have accepted PostgreSQL does not tell the leader of; what the leader itself accepts it has at once.
     */
    {.name = "others-first",
     .dispatchers = 3,
     .workers = 1,
     .steps = {{2000, "stall-postgres", "d0", 2500},
               {2000, "stall-postgres", "d1", 2500},
               {6000, "stall-postgres", "d0", 2500},
               {6000, "stall-postgres", "d1", 2500},
               {10000, "stall-postgres", "d0", 2500},
               {10000, "stall-postgres", "d1", 2500}}},
    /* Redis comes back as it was before a batch was canceled, and a worker begins. */
    {.name = "redis-of-the-past",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{3000, "older-redis", NULL, 1400},
               {3300, "kill", "w1", 1100},
               {6500, "older-redis", NULL, 1400},
               {6800, "kill", "w1", 1100},
               {10000, "older-redis", NULL, 1400},
               {10300, "kill", "w1", 1100},
               {13500, "older-redis", NULL, 1400},
               {13800, "kill", "w1", 1100}}},
    /* A worker that has not noticed that Redis was emptied is not known when others are told of a cancel. */
    {.name = "not-known-when-told",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{5000, "stall-redis", "w1", 6000},
               {5600, "flush-redis", NULL, 0},
               {15000, "lose-devices", NULL, 2000},
               {17000, "lose-devices", NULL, 500}}},
    /* Who was told of a hold is not listed any more, for Redis was emptied meanwhile. */
    {.name = "forgotten-when-told",
     .dispatchers = 1,
     .workers = 1,
     .steps = {{2500, "stall-redis", "w0", 2200},
               {3600, "flush-redis", NULL, 0},
               {6500, "stall-redis", "w0", 2200},
               {7600, "flush-redis", NULL, 0},
               {10500, "stall-redis", "w0", 2200},
               {11600, "flush-redis", NULL, 0},
               {14500, "stall-redis", "w0", 2200},
               {15600, "flush-redis", NULL, 0}}},
    /* Outcomes wait for PostgreSQL while Redis is emptied and filled again. */
    {.name = "outcomes-wait",
     .dispatchers = 1,
     .workers = 1,
     .steps = {{2500, "stall-postgres", "w0", 2500},
               {2700, "empty-redis", NULL, 600},
               {6000, "stall-postgres", "w0", 2500},
               {6200, "empty-redis", NULL, 600},
               {9500, "stall-postgres", "w0", 2500},
               {9700, "empty-redis", NULL, 600},
               {13000, "stall-postgres", "w0", 2500},
               {13200, "empty-redis", NULL, 600},
               {16000, "stall-postgres", "w0", 2500},
               {16200, "empty-redis", NULL, 600}}},
    /* PostgreSQL gives the lease long after it was asked for. */
    {.name = "lease-too-late",
     .dispatchers = 2,
     .workers = 1,
     .steps = {{9000, "stop", "d0", 13000}, {15000, "stall-postgres", NULL, 9000}}},
    /* Another leads, and Redis is lost, while batches are paused, too early, or in their first wave. */
    {.name = "steered-and-lost",
     .dispatchers = 2,
     .workers = 2,
     .steps = {{3000, "kill", "d0", 500},
               {3500, "empty-redis", NULL, 500},
               {7000, "kill", "d1", 500},
               {7500, "flush-redis", NULL, 0},
               {11000, "kill", "d0", 500},
               {11500, "older-redis", NULL, 500}}},
    /* Another leads while some commands of a batch are to be ended. */
    {.name = "steered-by-another",
     .dispatchers = 2,
     .workers = 2,
     .steps = {{2000, "kill", "d0", 300},
               {3500, "kill", "d1", 300},
               {5000, "kill", "d0", 300},
               {6500, "kill", "d1", 300},
               {8000, "kill", "d0", 300},
               {9500, "kill", "d1", 300},
               {11000, "kill", "d0", 300},
               {12500, "kill", "d1", 300}}},
    /* More than a device is given at once waits for it. */
    {.name = "long-queue",
     .dispatchers = 1,
     .workers = 1,
     .steps = {{1500, "lose-devices", NULL, 8000},
               {2000, "lose-devices", NULL, 8000},
               {2500, "lose-devices", NULL, 8000},
               {13000, "lose-devices", NULL, 2000}},
     .batches = 40},
    /* A worker dies when it has just sent, and the devices come back when all is over. */
    {.name = "killed-in-the-act",
     .dispatchers = 1,
     .workers = 1,
     .steps = {{2500, "lose-devices", NULL, 9000},
               {2900, "kill", "w0", 500},
               {5500, "kill", "w0", 500},
               {8500, "lose-devices", NULL, 9000},
               {8900, "kill", "w0", 500},
               {14500, "lose-devices", NULL, 9000},
               {14900, "kill", "w0", 500}},
     .lease_ms = 2000},
};

const struct scenario *scenario_at(int i)
{
    return (size_t)i < sizeof scenarios / sizeof *scenarios ? &scenarios[i] : NULL;
}

const struct scenario *scenario_find(const char *name)
{
    const struct scenario *s = NULL;
    for (int i = 0; (s = scenario_at(i)) && strcmp(s->name, name) != 0; i++)
        ;
    return s;
}
