/* Simulated devices: MQTT clients that keep the ids of what they have executed, think, fail, lose their network.
 * Owns: struct device. May call: stream, oracle, bench/fleet/mqtt. Loop rule: events of the world. */
#ifndef MUSTER_TESTS_SIM_DEVICE_H
#define MUSTER_TESTS_SIM_DEVICE_H

#include "tests/sim/stream.h"
#include "tests/sim/world.h"

#define DEVICE_TENANTS 2

/* muster.v1.Outcome n is state 4 + n. */
#define OUTCOME_STATE 4

struct device_done {
    uint64_t batch;
    uint8_t outcome, attempt;
};
struct device_task {
    uint64_t batch;
    unsigned connection;      /* that it came on */
    uint8_t attempt, retried; /* the Delivery's: bits of outcomes */
    bool answered;            /* the same command, given twice, was */
};
/* An acknowledgement without PUBACK. */
struct device_ack {
    uint64_t batch;
    uint16_t packet;
    uint8_t outcome;
    bool sent; /* on this connection */
};

/* A command that has broken the connection so often. */
struct device_broken {
    uint64_t batch;
    unsigned times;
};

struct device {
    struct world *world;
    int index;
    uint32_t tenant, seq;
    char id[32], token[96];
    int version;
    bool absent, deleted, wanted; /* wanted: to be connected */
    int64_t meant_us;             /* by dynamic batches of its tenant, since then; 0: it is not */
    bool hasty;                   /* answers at once */
    unsigned not_now;             /* in a thousand */
    struct stream *link;
    struct process *worker;
    bool connected; /* CONNACK has come */
    struct buf in;
    uint16_t packet, subscribe;
    unsigned connections;
    struct device_done *done;
    size_t done_count, done_room;
    struct device_task *tasks;
    size_t task_count, task_room;
    struct device_ack *acks;
    size_t ack_count, ack_room;
    struct device_broken *broken;
    size_t broken_count, broken_room;
    struct event think, retry, ping;
    int64_t heard_us, connected_us; /* connected: since then */
    uint16_t keepalive_s;
};

void devices_init(struct world *w, int count);
void devices_free(struct world *w);
/* The connection ends: properly, by a crash the worker hears of, or silently; it comes back in a while. */
enum device_loss { LOSS_DISCONNECT, LOSS_RESET, LOSS_SILENT };
void device_lose(struct device *d, enum device_loss how, int64_t away_us);
/* How often the batch's command has broken the connection. */
unsigned device_broke(const struct device *d, uint64_t batch);
/* From now on it is there, answers at once and says "not now" no more. */
void device_settle(struct device *d);

#endif
