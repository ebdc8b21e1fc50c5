/* What a simulated device does with a command: decided by a hash of the seed, the device and the command, so that a run
 * repeats whatever the timing.
 * Owns: the decisions. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_FLEET_BEHAVIOUR_H
#define MUSTER_FLEET_BEHAVIOUR_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/fleet/payload.h"

struct behaviour {
    uint64_t seed;
    /* Shares of the commands, 0 … 1. */
    double failed, rejected, not_now; /* outcomes; the rest succeeds */
    double crash;                     /* of deliveries: the connection drops before the answer */
    double duplicate;                 /* of answers: sent twice */
    /* Share of the devices that take commands and never answer. */
    double silent;
    int64_t think_min_us, think_max_us;
    uint32_t payload_bytes; /* result payload of a success */
};

/* A device's number, the same in every run: from its id. */
uint64_t behaviour_device(const struct behaviour *b, const char *device);

bool behaviour_is_silent(const struct behaviour *b, uint64_t device);
/* `received` is how often the device has got this id, this time included: NOT_NOW is decided anew each time, all else
 * once. */
enum outcome behaviour_outcome(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES],
                               unsigned received);

enum crash { CRASH_NONE, CRASH_BEFORE_EXECUTING, CRASH_AFTER_EXECUTING };
enum crash behaviour_crash(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES], unsigned received);

bool behaviour_duplicates(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES]);
/* Microseconds between delivery and answer. */
int64_t behaviour_think_us(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES]);

/* SplitMix64's finaliser (Steele, Lea, Flood 2014): a good 64-bit mix. */
static inline uint64_t behaviour_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

#endif
