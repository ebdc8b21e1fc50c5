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
     .steps = {{3000, "stop", "w0", 1700}, {3900, "cut-redis", "w0", 0}},
     .times = 5,
     .every_ms = 3000},
    /* The first take of a worker was not answered when its connection broke. */
    {.name = "given-away",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{2000, "kill", "w1", 300}, {2400, "cut-redis", "w1", 0}},
     .times = 5,
     .every_ms = 3000},
    /* Redis gives what comes next to a take whose connection is lost, which it does not know. */
    {.name = "taken-by-nobody",
     .dispatchers = 1,
     .workers = 1,
     .steps = {{1500, "cut-redis", "w0", 0}},
     .times = 10,
     .every_ms = 1500,
     .batches = 40},
    /* What others have accepted PostgreSQL does not tell the leader of; what the leader itself accepts it has at once.
     */
    {.name = "others-first",
     .dispatchers = 3,
     .workers = 1,
     .steps = {{2000, "stall-postgres", "d0", 2500}, {2000, "stall-postgres", "d1", 2500}},
     .times = 3,
     .every_ms = 4000},
    /* Redis comes back as it was before a batch was canceled, and a worker begins. */
    {.name = "redis-of-the-past",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{3000, "older-redis", NULL, 1400}, {3300, "kill", "w1", 1100}},
     .times = 4,
     .every_ms = 3500},
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
     .steps = {{2500, "stall-redis", "w0", 2200}, {3600, "flush-redis", NULL, 0}},
     .times = 4,
     .every_ms = 4000},
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
     .steps = {{2000, "kill", "d0", 300}, {3500, "kill", "d1", 300}},
     .times = 4,
     .every_ms = 3000},
    /* Some moves of a batch have failed, others are under way, and those behind it are at the door. */
    {.name = "overtaken-by-others",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{2000, "stall-redis", "d0", 900}, {2400, "cut-redis", "d0", 0}},
     .times = 5,
     .every_ms = 2000,
     .batches = 40},
    /* More than a device is given at once waits for it. */
    {.name = "long-queue",
     .dispatchers = 1,
     .workers = 1,
     .steps = {{1500, "lose-devices", NULL, 8000},
               {2000, "lose-devices", NULL, 8000},
               {2500, "lose-devices", NULL, 8000},
               {13000, "lose-devices", NULL, 2000}},
     .batches = 40},
    /* Some commands break their device's connection whenever they come, and nothing else does while a worker lives:
     * what was sent and never came would count too. */
    {.name = "breaks-its-connection",
     .dispatchers = 2,
     .workers = 2,
     .steps = {{6000, "kill", "w0", 500}, {9000, "kill", "d0", 500}, {12000, "kill", "w1", 500}},
     .quarantine_after = 3},
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
    /* What a leader has written comes to PostgreSQL when another leads. */
    {.name = "written-too-late",
     .dispatchers = 2,
     .workers = 1,
     .steps = {{2500, "stall-postgres", "d0", 6000},
               {9500, "stall-postgres", "d1", 6000},
               {16000, "stall-postgres", "d0", 5500}}},
    /* Outcomes are slow to become durable while others of their block are let go. */
    {.name = "tried-again",
     .dispatchers = 1,
     .workers = 2,
     .steps = {{2000, "stall-postgres", "w0", 900}, {2300, "stall-postgres", "w1", 900}},
     .times = 6,
     .every_ms = 2500,
     .wants = WANTS_RETRY},
    /* The batch is not in Redis when an outcome comes; another leads when it expires. */
    {.name = "tried-again-and-lost",
     .dispatchers = 2,
     .workers = 2,
     .steps = {{2500, "flush-redis", NULL, 0},
               {2600, "lose-devices", NULL, 800},
               {3500, "kill", "d0", 700},
               {5000, "stall-redis", "d1", 1500},
               {5100, "kill", "w0", 500}},
     .times = 3,
     .every_ms = 5500,
     .wants = WANTS_RETRY},
    /* What is recorded once more, when it was tried again meanwhile. */
    {.name = "recorded-late",
     .dispatchers = 1,
     .workers = 1,
     .steps = {{2500, "stall-postgres", "w0", 2500}, {3500, "cut-redis", "w0", 0}, {4000, "cut-postgres", "w0", 0}},
     .times = 5,
     .every_ms = 3500,
     .wants = WANTS_RETRY},
    /* Only Redis knew that something was sent; its device goes before Redis is filled again. */
    {.name = "sent-and-forgotten",
     .dispatchers = 2,
     .workers = 2,
     .steps = {{2500, "flush-redis", NULL, 0},
               {2600, "stop", "d0", 900},
               {3300, "lose-devices", NULL, 1500},
               {4500, "older-redis", NULL, 300},
               {5000, "lose-devices", NULL, 1500}},
     .times = 3,
     .every_ms = 5500},
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
