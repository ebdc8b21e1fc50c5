/* What one simulated device remembers of its commands: the witness of "at least once on the wire, once in effect".
 * Owns: struct commands. May call: the C library. Loop rule: none, pure.
 *
 * It is the device's memory, not the connection's: it outlives reconnects. Open addressing, 36 bytes an entry, because
 * there is one table for each of up to a million devices. */
#ifndef MUSTER_FLEET_COMMANDS_H
#define MUSTER_FLEET_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/fleet/uuid.h"

struct command {
    uint8_t id[UUID_BYTES];
    uint16_t received; /* deliveries of this id; 0: the entry is empty; stays at 65,535 */
    uint16_t executed; /* how often it took effect; more than 1 is a fault of the device */
    uint8_t outcome;   /* muster.v1.Outcome last decided; 0: none yet */
    bool acked;        /* the acknowledgement with `outcome` got its PUBACK */
    bool changed;      /* since the record was last written */
    uint8_t spare;
    /* Milliseconds since the process began, counted from 1; 0: never. */
    uint32_t received_ms; /* the latest delivery */
    uint32_t executed_ms; /* the latest execution */
    uint32_t acked_ms;    /* the first PUBACK of that */
};

/* Zero-initialised is empty and valid. */
struct commands {
    struct command *entries;
    uint32_t count;
    uint32_t size; /* entries allocated, a power of two or 0 */
};

/* Bound of one device's memory; a server that sends more distinct ids is cut off. */
#define COMMANDS_MAX (1u << 20)

/* The entry of `id`, or NULL. Borrowed until the next commands_add. */
struct command *commands_find(const struct commands *commands, const uint8_t id[UUID_BYTES]);
/* The entry of `id`, made with all zeros when it is new. NULL without memory or at COMMANDS_MAX. */
struct command *commands_add(struct commands *commands, const uint8_t id[UUID_BYTES]);
void commands_clear(struct commands *commands);

#endif
