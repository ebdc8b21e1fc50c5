/* What a device says on an open link, MQTT, NATS or the floor's raw records: small state machines behind one shape.
 * Owns: nothing. May call: device, process, the fleet's codecs. Loop rule: a turn reads from a slice and appends what
 * is to be sent to the process's `out`; the device sends it in one record. */
#ifndef MUSTER_FLEET_PEER_H
#define MUSTER_FLEET_PEER_H

#include "bench/fleet/device.h"

enum turn {
    TURN_ON,      /* go on */
    TURN_CRASH,   /* the device drops its connection on purpose; nothing may be sent */
    TURN_BAD,     /* the other side broke the protocol */
    TURN_REFUSED, /* the other side does not want this device */
    TURN_GONE,    /* the other side says goodbye */
};

struct peer {
    /* The link is open: says what comes first. */
    enum turn (*open)(struct device *d, struct process *p);
    /* Takes what is whole from the front of `in`. */
    enum turn (*data)(struct device *d, struct process *p, struct slice *in);
    /* Sends answers and pings that are due. NULL: nothing ever is. */
    enum turn (*timer)(struct device *d, struct process *p);
    /* When `timer` is wanted next, INT64_MAX for never. */
    int64_t (*due)(const struct device *d, const struct process *p);
    /* What an orderly end says. NULL: nothing. */
    void (*goodbye)(struct buf *out);
};

extern const struct peer mqtt_peer;
/* Core NATS: a command is a request, the answer goes to its reply subject, at once. What --think, --crash, --duplicate,
 * --silent and --hold ask for is MQTT's alone. */
extern const struct peer nats_peer;
/* A command is 100 bytes in, 60 out, 4 in: lengths as bench/floor sends them. */
extern const struct peer floor_peer;

/* What every peer does with a delivery. */

/* Reads a delivery and remembers its command. NULL when it is none, or the device's memory is full. */
struct command *peer_take(struct device *d, struct process *p, struct slice payload, struct delivery *del);
/* Whether the command has the outcome it stays with. */
bool peer_decided(const struct command *c);
/* Gives the command its outcome, once; executing it is part of that. */
void peer_decide(struct device *d, struct process *p, struct command *c, bool expired);

#endif
