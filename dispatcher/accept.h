/* Acceptance: batches made durable, many of them with one commit (DESIGN step 1).
 * Owns: struct acceptor, the queue before PostgreSQL. May call: dispatcher/shares, leader, lib/store. Loop rule:
 * non-blocking.
 *
 * While transactions are under way, what comes in waits and goes together with the next: one commit costs one
 * write to disk, however many batches it makes. Batches to one device go in one statement too, which also finds the
 * device. Tenants take turns. What could not be committed within about a second is turned away at once, of the tenant
 * that has most waiting; what the leader is behind with is not accepted any faster than it goes on. */
#ifndef MUSTER_DISPATCHER_ACCEPT_H
#define MUSTER_DISPATCHER_ACCEPT_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/leader.h"
#include "dispatcher/shares.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_guard.h"

struct acceptor;

/* Embedded in the handler's state; what `batch` and `device` point to lives until done. */
struct accept_job {
    struct share share;
    struct db_accept batch;
    const struct db_guard *guard; /* NULL, or the command is guarded: set `alone` too; also for one with values */
    const char *device; /* NULL, or the id of the one device addressed: then the batch's target is found here */
    /* ERR_OK: `id` is the new batch's; with `created` false there is none, because one has the request id already, or
     * because `device` is not registered, or because the tenant's quota refuses it (db_quota_refused(id)). Others as
     * pg_done_fn; ERR_UNAVAILABLE may have been done: the caller repeats with the same request id. */
    void (*done)(struct accept_job *job, enum err err, const struct pg_error *error);
    bool created, alone; /* alone: a transaction of several was refused, so it is tried by itself */
    int64_t id;
    int32_t seq;        /* of `device`, or -1 */
    int32_t superseded; /* older batches with its key: see dispatcher/control_older.h */
    int16_t state;      /* of the approval it needs, as in db_guard.h; 0: it is not held */
};

/* `committed` comes after every commit, when all its jobs are told. Returns owned, or NULL without memory. */
struct acceptor *acceptor_new(struct ev_loop *loop, struct pg *pg, void (*committed)(void *arg), void *arg);
/* All jobs must be done. */
void acceptor_free(struct acceptor **acceptor);
/* False: turned away, because too much is waiting and the tenant has an equal share of it or more; there is no `done`
 * then. */
MUST_CHECK bool acceptor_submit(struct acceptor *acceptor, struct accept_job *job);
/* The leader is behind, mostly with these: for ACCEPT_HOLD_MS their batches wait. The last call counts; copies. */
void acceptor_hold(struct acceptor *acceptor, const struct queue_heavy *heavy, size_t count);
#define ACCEPT_HOLD_MS 120

struct acceptor_figures {
    uint64_t waiting, turned_away, held; /* batches; held: times one waited for the leader; waiting is a gauge */
};
const struct acceptor_figures *acceptor_figures(const struct acceptor *acceptor);

#endif
