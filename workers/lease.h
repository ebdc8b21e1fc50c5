/* The worker's number: a lease in Redis, renewed each second or at a third of its time. Without it nothing is sent.
 * Owns: struct lease. May call: lib/store/live, db_lease. Loop rule: non-blocking; looks at the clock first of all in
 * each turn.
 *
 * The lease counts from the moment its last successful renewal was sent. Once that is too long ago no byte of a command
 * leaves any more, whatever the worker was doing (lease_holds_at is asked before a command is given out, and the guard
 * of the streams before what is unsent leaves), until Redis has said whose the number is: still ours, and all goes on;
 * or not, and then the worker is fenced and starts anew under a new number. A worker that was paused meanwhile drops
 * its sessions, since its devices may be elsewhere by now; one that only did not reach Redis keeps the connections, and
 * forgets what it was to send over them. What the kernel has taken before can't be taken back.
 *
 * Redis that has lost the lease in time gives it back. */
#ifndef MUSTER_WORKERS_LEASE_H
#define MUSTER_WORKERS_LEASE_H

#include <stdbool.h>
#include <stdint.h>

struct lease;
struct worker;

struct lease_events {
    void (*on_number)(struct worker *w); /* a new number: serve */
    void (*on_lost)(struct worker *w);   /* Redis had lost the lease and presence with it: announce all again */
    void (*on_late)(struct worker *w);   /* renewed after it had lapsed: go on */
    /* Number `former` is not ours any more; a new one follows. Nothing that was to be sent may be. `paused`: the
     * devices may be elsewhere; else those whose connections stand are still here. */
    void (*on_fenced)(struct worker *w, uint16_t former, bool paused);
};

/* Returns owned, or NULL without memory. Begins to acquire at once. */
struct lease *lease_new(struct worker *worker, const struct lease_events *events);
void lease_free(struct lease **lease);
/* The number, or 0 while there is none. */
uint16_t lease_number(const struct lease *lease);
/* Whether it holds by the clock: now, or at a moment of clock_mono_us. */
bool lease_holds(const struct lease *lease);
bool lease_holds_at(const struct lease *lease, int64_t now_us);
/* Asks Redis now whether it still has the lease: it may have been lost. */
void lease_ask(struct lease *lease);
/* Gives it up, when the worker stops. */
void lease_release(struct lease *lease, void (*done)(void *arg), void *arg);

#endif
