/* A service that commands a fleet over a broker: one connection, one command to every device, every answer counted.
 * Owns: struct sender: the connection, what is on its way, the latencies. May call: the fleet's link and codecs, proto,
 * lib/base. Loop rule: one epoll loop of its own, which sender_open, sender_exchange and sender_wait_line turn.
 *
 * A command is the muster.v1.Delivery a worker would send, the answer the muster.v1.Acknowledgement it would get, so
 * that the devices have the same to do as with Muster. Pipelined: as many commands a write as a TLS record holds. */
#ifndef MUSTER_SENDER_SENDER_H
#define MUSTER_SENDER_SENDER_H

#include "bench/fleet/credentials.h"
#include "bench/fleet/link.h"
#include "lib/base/metrics.h"

struct sender;

/* What is said to a broker; each of these appends to `out`. */
struct dialect {
    /* Log in and subscribe to the answers. */
    void (*login)(struct buf *out);
    /* One command; `number` counts all commands of this sender from 0. */
    void (*command)(struct buf *out, const char *device, uint64_t number, struct slice payload);
    /* Takes what is whole from the front of `in`; calls sender_ready and sender_answered, says what confirms them. */
    enum err (*data)(struct sender *s, struct buf *out, struct slice *in);
};
extern const struct dialect mqtt_qos1_dialect, mqtt_qos0_dialect, nats_dialect;

/* For the dialects: the broker has taken the subscription. */
void sender_ready(struct sender *s);
/* An answer came. ERR_PROTOCOL when it is no acknowledgement of a command of this round that succeeded. */
MUST_CHECK enum err sender_answered(struct sender *s, struct slice payload);

struct sender_options {
    const struct dialect *dialect;
    struct link_peer peer;                 /* the broker */
    const struct credentials *credentials; /* the devices; borrowed */
    uint32_t window;                       /* commands unanswered at a time; 0: any number */
    int64_t timeout_us;                    /* of logging in, of a round */
};

struct sender_round {
    double seconds;
    struct histogram latency; /* command handed to the connection → answer read, µs */
};

/* Connects and subscribes. Returns owned, or NULL with a line on stderr. */
struct sender *sender_open(const struct sender_options *options);
void sender_free(struct sender **sender);
/* One command to every device; back when all have answered. On an error there is a line on stderr. */
MUST_CHECK enum err sender_exchange(struct sender *s, struct sender_round *round);
/* Waits for a line on standard input, and answers the broker's pings meanwhile. False at the end of input. */
bool sender_wait_line(struct sender *s);

#endif
