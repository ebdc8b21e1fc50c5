#include "tests/sim/scenario.h"

#include <stddef.h>
#include <string.h>

static const struct scenario scenarios[] = {
    /* Redis is emptied while a worker is stopped and nobody leads; another begins meanwhile. Both had one number. */
    {"number-taken-twice",
     1,
     2,
     {{2000, "stop", "d0", 11000},
      {6000, "flush-redis", NULL, 0},
      {8000, "kill", "w1", 3000},
      {9500, "empty-redis", NULL, 1000}}},
    /* What a worker has sent to Redis comes there after its devices have gone elsewhere. */
    {"astray",
     1,
     2,
     {{900, "stall-redis", "w0", 11000},
      {2500, "lose-devices", NULL, 2000},
      {5500, "lose-devices", NULL, 1500},
      {9000, "lose-devices", NULL, 1000},
      {10500, "stop", "w0", 4000},
      {12500, "lose-devices", NULL, 300}}},
    /* A worker that is stopped loses what it was about to read of a batch; what comes behind it is there. */
    {"lost-on-the-way",
     2,
     1,
     {{4000, "stop", "w0", 2500},
      {5000, "cut-redis", "w0", 0},
      {9000, "stop", "w0", 2500},
      {10500, "cut-redis", "w0", 0},
      {14000, "stop", "w0", 2500},
      {15000, "cut-redis", "w0", 0}}},
    /* The first take of a worker was not answered when its connection broke. */
    {"given-away",
     1,
     2,
     {{5000, "kill", "w1", 200},
      {5600, "cut-redis", NULL, 0},
      {9000, "kill", "w0", 200},
      {9600, "cut-redis", NULL, 0}}},
    /* What others have accepted PostgreSQL does not tell the leader of; what the leader itself accepts it has at once.
     */
    {"others-first",
     3,
     1,
     {{2000, "stall-postgres", "d0", 2500},
      {2000, "stall-postgres", "d1", 2500},
      {6000, "stall-postgres", "d0", 2500},
      {6000, "stall-postgres", "d1", 2500},
      {10000, "stall-postgres", "d0", 2500},
      {10000, "stall-postgres", "d1", 2500}}},
    /* Redis comes back as it was before a batch was canceled, and a worker begins. */
    {"redis-of-the-past",
     1,
     2,
     {{3500, "older-redis", NULL, 3000},
      {4500, "kill", "w1", 1500},
      {4500, "stop", "d0", 3500},
      {10500, "older-redis", NULL, 3000},
      {11500, "kill", "w0", 1500},
      {11500, "stop", "d0", 3500}}},
    /* A worker that has not noticed that Redis was emptied is not known when others are told of a cancel. */
    {"not-known-when-told",
     1,
     2,
     {{3000, "stall-redis", "w1", 8000},
      {4000, "flush-redis", NULL, 0},
      {11500, "stall-redis", "w0", 8000},
      {12500, "flush-redis", NULL, 0}}},
    /* Outcomes wait for PostgreSQL while Redis is emptied and filled again. */
    {"outcomes-wait",
     1,
     2,
     {{3000, "stall-postgres", "w0", 3000},
      {3000, "stall-postgres", "w1", 3000},
      {4000, "empty-redis", NULL, 300},
      {9000, "stall-postgres", "w0", 3000},
      {9000, "stall-postgres", "w1", 3000},
      {10000, "empty-redis", NULL, 300}}},
    /* PostgreSQL gives the lease long after it was asked for. */
    {"lease-too-late", 2, 1, {{9000, "stop", "d0", 13000}, {14500, "stall-postgres", NULL, 7500}}},
    /* Another leads, and Redis is lost, while batches are paused, too early, or in their first wave. */
    {"steered-and-lost",
     2,
     2,
     {{3000, "kill", "d0", 500},
      {3500, "empty-redis", NULL, 500},
      {7000, "kill", "d1", 500},
      {7500, "flush-redis", NULL, 0},
      {11000, "kill", "d0", 500},
      {11500, "older-redis", NULL, 500}}},
    /* Another leads while some commands of a batch are to be ended. */
    {"steered-by-another",
     2,
     2,
     {{2000, "kill", "d0", 300},
      {3500, "kill", "d1", 300},
      {5000, "kill", "d0", 300},
      {6500, "kill", "d1", 300},
      {8000, "kill", "d0", 300},
      {9500, "kill", "d1", 300},
      {11000, "kill", "d0", 300},
      {12500, "kill", "d1", 300}}},
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
