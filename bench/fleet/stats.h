/* What a process of the fleet counts, in memory it shares with the supervisor.
 * Owns: struct stats, its names. May call: lib/base/metrics histograms. Loop rule: none. One writer, one racing reader:
 * counters are plain aligned 64-bit words, a reader may see them a moment old. */
#ifndef MUSTER_FLEET_STATS_H
#define MUSTER_FLEET_STATS_H

#include "lib/base/metrics.h"

enum tally {
    STAT_CONNECTED,  /* gauge: connections whose handshake is done */
    STAT_READY,      /* gauge: subscribed (floor peers: connected) */
    STAT_CONNECTS,   /* connections that became ready, ever */
    STAT_RECONNECTS, /* of those, not the device's first */
    STAT_FAILURES,   /* attempts that never became ready */
    STAT_REFUSED,    /* of those, refused by CONNACK or SUBACK */
    STAT_LOST,       /* ready connections closed by the other side */
    STAT_RECEIVED,   /* deliveries */
    STAT_REPEATED,   /* of those, with an id the device had seen */
    STAT_EXECUTED,   /* commands that took effect */
    STAT_ANSWERED,   /* acknowledgements sent, repeats included */
    STAT_ACKED,      /* acknowledgements that got their PUBACK, each once */
    STAT_SILENT,     /* deliveries left without an answer on purpose */
    STAT_CRASHES,    /* connections dropped between a delivery and its answer on purpose */
    STAT_CHURNED,    /* connections closed on purpose by --churn */
    STAT_BAD,        /* connections closed because the other side broke the protocol */
    STAT_BYTES_IN,   /* payload of the connections, without TLS */
    STAT_BYTES_OUT,
    STAT_COUNT
};

/* "connected", "ready" … as they stand in reports. */
const char *stat_name(enum tally s);

struct stats {
    uint64_t v[STAT_COUNT];
    uint64_t dumps; /* record dumps done, including failed ones */
    uint64_t dump_failures;
    uint64_t last_acked_us;       /* CLOCK_MONOTONIC of the last PUBACK of an acknowledgement; 0: none yet */
    struct histogram push_puback; /* delivery received → PUBACK of its acknowledgement received, µs */
};

/* An acknowledgement of a delivery received at `received_us` got its PUBACK. */
void stats_acked(struct stats *s, int64_t received_us, int64_t now_us);
/* Adds what `from` counts. */
void stats_add(struct stats *into, const struct stats *from);

#endif
