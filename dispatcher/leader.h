/* The leader: the one dispatcher at a time that moves batches on (DESIGN steps 2, 6, 7).
 * Owns: the lease `leader`, and while it leads: the picture of all open batches, routing, folding of acknowledgements,
 * closing, cancel, expiry, dead workers, refilling Redis. May call: lib/store, lib/base, proto. Loop rule:
 * non-blocking.
 *
 * Every dispatcher has one; all contend for the lease, one leads. What the leader knows can be read again from
 * PostgreSQL at any moment, so leading ends by forgetting. Every write is fenced by the lease's epoch: in PostgreSQL by
 * the first statement of its transaction (db_lease_fence), in Redis by the reign's connection (live_lead).
 *
 * How others tell it what to do: by rows, which it looks for at least five times a second; a hint only makes it sooner.
 *   accepted  batch with routed_ms and closed_ms NULL
 *   cancel    batch with cancel_requested_ms set, canceled_ms and closed_ms NULL
 *   steer     batch_control with request > handled: dispatcher/control.h
 *   gates     gate: dispatcher/leader_gates.h
 *   devices   who is registered, in a group, or labelled: dispatcher/joiner.h (looked at every 30 seconds without)
 *   deleted   device_cancel(tenant_id, seq): inserted in the transaction that deletes the device; every open command of
 *             that device ends CANCELED (unless its outcome is there already), then the leader deletes the row
 * What it tells others, as text on muster:events: "closed <batch>", "canceled <batch>", "control <batch>", "resigned",
 * "events 0" when some have got their numbers, and every 50 ms while LEADER_BACKLOG_MAX batches wait to be routed,
 * "backlog <tenant>:<class> …": whose they mostly are. */
#ifndef MUSTER_DISPATCHER_LEADER_H
#define MUSTER_DISPATCHER_LEADER_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/leader_queue.h"
#include "lib/base/buf.h"
#include "lib/base/http_client.h"
#include "lib/store/db_batch.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"

struct leader;

/* About a second of the leader's work when batches are small. Those who submit wait then, instead of PostgreSQL and the
 * leader's memory being filled with what nobody gets to. */
#define LEADER_BACKLOG_MAX 4096
/* Of tenants that are behind it, by class, so many are named. */
#define LEADER_HEAVY_MAX 32

struct leader_options {
    const char *holder;       /* who holds the lease: unique per life of a process; copied */
    int64_t lease_ms;         /* 0: 4,000; renewed four times within it, never more often than each 100 ms */
    int lane;                 /* lane of PostgreSQL its writes go over, in order */
    uint32_t mailbox_max;     /* open commands of a device; 0: any number */
    int64_t events_ms;        /* how long events are kept; 0: 7 days */
    int64_t webhook_retry_ms; /* until what a web hook did not take is sent again first; 0: 5 s */
    int64_t webhook_life_ms;  /* an event that is older is given up when it fails; 0: a day */
    int64_t presence_ms;      /* between looks who has come and gone; 0: 2 s */
    struct http_options web;  /* for web hooks; its file's name is borrowed */
    const char *redis;        /* url: each reign has a connection of its own, which is its fence there; borrowed */
};

/* Figures for the metrics endpoint; counters since the start of the process, gauges 0 while another leads. */
struct leader_figures {
    uint64_t leading, epoch, open_batches, waiting_batches, open_commands, full_devices, log_rows,
        log_entries;                                                                       /* gauges */
    uint64_t routed_blocks, routed_commands, inbox_entries, folded_blocks, folded_entries; /* counters … */
    uint64_t closed_batches, canceled_batches, expired_batches, rebuilds, reaped_workers, reloads;
    uint64_t webhooks_taken, webhooks_failed; /* attempts */
    uint64_t devices_told;                    /* that they came, or went */
};

/* Begins to contend for the lease at once. Borrows loop, pg and live, which must live until after leader_free; what is
 * still under way there then ends without effect. Returns owned, or NULL without memory. */
struct leader *leader_new(struct ev_loop *loop, struct pg *pg, struct live *live, const struct leader_options *options);
/* Stops without releasing the lease (see leader_resign). */
void leader_free(struct leader **leader);

/* RELEASED: a batch that was held is no longer, or was canceled; its number may be lower than those seen. */
enum leader_hint_kind { LEADER_HINT_ACCEPTED, LEADER_HINT_CANCEL, LEADER_HINT_DELETED, LEADER_HINT_RELEASED };
/* Devices of the tenant have changed (0: of some): they may be meant by dynamic batches now. As leader_hint. */
void leader_devices(struct leader *leader, uint32_t tenant);
/* Something was committed. Cheap; ignored while another leads. */
void leader_hint(struct leader *leader, enum leader_hint_kind kind, uint64_t batch);
/* This process has committed the batch. When it leads, its leader takes it from here, without reading it again, and
 * nobody else need be told: true. */
/* The time of day by which what is due is decided, also by one who does not lead: lib/store/db_clock.h. */
int64_t leader_now_ms(struct leader *leader);
bool leader_accepted(struct leader *leader, uint64_t id, const struct db_accept *batch);
/* Every text of muster:events may be passed here: "accepted 17", "cancel 17", "deleted 0", "devices 3", "resigned", and
 * what dispatcher/repair.h says; others are ignored. */
void leader_event(struct leader *leader, struct slice text);

/* `fn` gets what "backlog" says, of this process's leader or another's. */
void leader_on_backlog(struct leader *leader, void (*fn)(void *arg, const struct queue_heavy *heavy, size_t count),
                       void *arg);

/* `fn` gets which devices of a block are full (dispatcher/mailboxes.h), of this process's leader or another's. */
void leader_on_full(struct leader *leader,
                    void (*fn)(void *arg, uint32_t tenant, uint32_t block, const struct bitmap *full), void *arg);

/* Gives the lease up so that another goes on at once, and contends no more. `done` comes once, from the loop, when the
 * lease is released or could not be within 2 seconds. */
void leader_resign(struct leader *leader, void (*done)(void *arg), void *arg);
/* Borrowed for the life of the leader. */
const struct leader_figures *leader_figures(const struct leader *leader);

#endif
