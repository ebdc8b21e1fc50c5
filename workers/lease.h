/* The worker's number: a lease in Redis, renewed at a third of its time. Without it nothing is sent.
 * Owns: struct lease. May call: lib/store/live. Loop rule: non-blocking.
 *
 * A worker that was paused past its lease, or finds the number in other hands, is fenced: it drops all its sessions
 * before it sends another byte, and starts anew under a new number. Redis that has lost the lease in time gives it
 * back. */
#ifndef MUSTER_WORKERS_LEASE_H
#define MUSTER_WORKERS_LEASE_H

#include <stdbool.h>
#include <stdint.h>

struct lease;
struct worker;

struct lease_events {
    void (*on_number)(struct worker *w); /* a new number: serve */
    void (*on_lost)(struct worker *w);   /* Redis had lost the lease and presence with it: announce all again */
    void (*on_fenced)(struct worker *w); /* drop everything; a new number follows */
};

/* Returns owned, or NULL without memory. Begins to acquire at once. */
struct lease *lease_new(struct worker *worker, const struct lease_events *events);
void lease_free(struct lease **lease);
/* The number, or 0 while there is none. */
uint16_t lease_number(const struct lease *lease);
/* Whether it holds by the monotonic clock. */
bool lease_holds(const struct lease *lease);
/* Gives it up, when the worker stops. */
void lease_release(struct lease *lease, void (*done)(void *arg), void *arg);

#endif
