/* A simulated device: its login, its memory, and its connection's life from connect to reconnect.
 * Owns: struct device's insides (link, commands, answers not yet PUBACKed). May call: the fleet's pure modules, link,
 * the process it lives in. Loop rule: non-blocking; every entry point is one bounded turn.
 *
 *   IDLE ─launch→ CONNECTING ─open→ LOGIN ─CONNACK→ SUBSCRIBING ─SUBACK→ READY ─closed→ IDLE (due again after a
 * backoff)
 *
 * A floor peer goes from CONNECTING to READY at once, a NATS one passes over LOGIN. */
#ifndef MUSTER_FLEET_DEVICE_H
#define MUSTER_FLEET_DEVICE_H

#include "bench/fleet/commands.h"
#include "bench/fleet/link.h"
#include "bench/fleet/payload.h"
#include "lib/base/list.h"

struct process;

enum device_state { DEVICE_IDLE, DEVICE_CONNECTING, DEVICE_LOGIN, DEVICE_SUBSCRIBING, DEVICE_READY };

/* An answer that is decided or thought about, kept until its PUBACK. */
struct answer {
    uint8_t id[UUID_BYTES];
    int64_t received_us, due_us; /* CLOCK_MONOTONIC */
    uint16_t packet_id;          /* 0: not sent on this connection */
    uint8_t wants;               /* enum wants */
    bool expired;                /* came too late to be executed */
};

struct device {
    const char *id, *token; /* borrowed */
    uint64_t number;        /* behaviour_device */
    struct link link;
    enum device_state state;
    bool silent, pinged, was_ready, queued;
    uint8_t failures;     /* attempts in a row that did not become ready */
    uint8_t target_shift; /* added to the index to choose the worker */
    uint16_t next_packet_id, in_flight, receive_maximum;
    uint32_t index;      /* in the whole fleet */
    int64_t deadline_us; /* of the login, or of the PINGRESP */
    int64_t last_sent_us;
    struct list waiting; /* in the process's queue of those that may launch, when `queued` */
    SSL_SESSION *session;
    struct commands commands;
    struct answer *answers;
    uint32_t answer_count, answer_size;
};

void device_init(struct device *d, struct process *p, uint32_t index, const char *id, const char *token);
void device_clear(struct device *d);
/* Starts connecting. */
void device_launch(struct device *d, struct process *p);
/* An epoll event on its link. */
void device_event(struct device *d, struct process *p, uint32_t events);
/* Its timer came. */
void device_timer(struct device *d, struct process *p);
/* Closes a READY connection on purpose: `orderly` with DISCONNECT, otherwise with a reset. */
void device_churn(struct device *d, struct process *p, bool orderly);

/* For the peers' own files: closes and plans the reconnect. `stat` (enum tally) is counted, -1 for none. */
void device_drop(struct device *d, struct process *p, int stat, bool abort);
/* The device is READY from now on. */
void device_set_ready(struct device *d, struct process *p);

#endif
