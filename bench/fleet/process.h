/* One process of the fleet: its devices, its epoll loop, its timers.
 * Owns: struct process. May call: the fleet's modules. Loop rule: one epoll loop, never blocks but there. */
#ifndef MUSTER_FLEET_PROCESS_H
#define MUSTER_FLEET_PROCESS_H

#include "bench/fleet/credentials.h"
#include "bench/fleet/device.h"
#include "bench/fleet/mqtt.h"
#include "bench/fleet/options.h"
#include "bench/fleet/stats.h"
#include "bench/fleet/timers.h"
#include "lib/base/clock.h"

/* Where a link's input is read to: a kept part of a packet and one TLS record or more. */
#define SCRATCH_BYTES (MQTT_PACKET_MAX + 64u * 1024)

/* All devices reconnect within this time when they are told to. */
#define RECONNECT_US 1000000

struct peer;

struct process {
    const struct options *options;
    const struct peer *peer; /* what its devices speak */
    struct stats *stats;     /* shared with the supervisor */
    int epoll, signals, notify;
    SSL_CTX *tls;
    struct tls_ciphers *ciphers; /* for lean records, or NULL */
    struct timers *timers;
    struct device *devices;
    uint32_t first, count; /* its part of the fleet */
    uint32_t handshakes;   /* under way */
    struct list waiting;   /* devices that may connect, held back by the bound on handshakes */
    int64_t now_us;        /* CLOCK_MONOTONIC, read once a turn */
    int64_t began_us;      /* the same when the process began, */
    int64_t began_wall_ms; /* and what the wall clock said then */
    uint64_t random;
    int64_t next_churn_us;
    uint32_t source_count;
    int number;
    bool all_ready; /* every device has been READY once; churn begins then */
    bool held;      /* --hold, and not let go yet */
    bool stop;
    struct buf out, body; /* scratch: a turn's output, a payload */
    uint8_t *scratch;
};

struct process_start {
    const struct options *options;
    const struct credentials *credentials;
    struct stats *stats;
    int number, of; /* this process and how many there are */
    int notify;     /* eventfd of the supervisor */
};

/* Runs until SIGTERM; SIGUSR1 writes the record, SIGUSR2 lets held answers go, SIGHUP breaks every connection, to be
 * made anew within RECONNECT_US. Ends the process: the kernel closes the sockets faster than one by
 * one, and the memory goes with it, still in use for who looks for leaks. */
_Noreturn void process_run(const struct process_start *start);

static inline void process_count(struct process *p, enum tally s, uint64_t n)
{
    p->stats->v[s] += n;
}
static inline uint64_t process_random(struct process *p)
{
    return behaviour_mix(p->random++);
}
/* Now, as struct command keeps times. */
static inline uint32_t process_stamp(const struct process *p)
{
    return (uint32_t)((p->now_us - p->began_us) / 1000) + 1;
}
/* How to reach the device's worker, filled with its source address (kept in `source`). */
struct link_peer process_peer(struct process *p, struct device *d, struct sockaddr_in *source);
/* A handshake ended, well or not: the next device may begin. */
void process_handshake_over(struct process *p);
/* Tells the supervisor to look at the counters. */
void process_notify(struct process *p);

#endif
