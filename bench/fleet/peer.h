/* What a device says on an open link, MQTT or the floor's raw records: two small state machines behind one shape.
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

/* The link is open: says what comes first. */
enum turn mqtt_peer_open(struct device *d, struct process *p);
/* Takes what is whole from the front of `in`. */
enum turn mqtt_peer_data(struct device *d, struct process *p, struct slice *in);
/* Sends answers and pings that are due. */
enum turn mqtt_peer_timer(struct device *d, struct process *p);
/* When mqtt_peer_timer is wanted next, INT64_MAX for never. */
int64_t mqtt_peer_due(const struct device *d, const struct process *p);

/* A command is 100 bytes in, 60 out, 4 in: lengths as bench/floor sends them. */
enum turn floor_peer_open(struct device *d, struct process *p);
enum turn floor_peer_data(struct device *d, struct process *p, struct slice *in);

#endif
