/* Writes what the leader has decided: one fenced transaction at a time with blocks to store, rows of the log that have
 * become superfluous, batches to mark routed, canceled or closed.
 * Owns: struct writer. May call: lib/store/db_open, db_lease, live (to publish), dispatcher/fold, leader_reign. Loop
 * rule: non-blocking. When the fate of a write is not known, the reign fails and all is read again. */
#ifndef MUSTER_DISPATCHER_LEADER_WRITE_H
#define MUSTER_DISPATCHER_LEADER_WRITE_H

#include "dispatcher/leader_reign.h"

/* Between writes: what comes in between shares one commit. Half as long again with each that follows at once, as where
 * small batches come all the time: a write costs PostgreSQL about the same for one batch as for ten. */
#define WRITE_PACE_MS      20
#define WRITE_PACE_LONG_MS 50
#define WRITE_LARGE        64   /* as much as so many blocks, or a batch of as many to close, does not wait */
#define WRITE_BLOCKS       256  /* blocks in one write: up to 1.3 MB */
#define WRITE_BATCHES      1000 /* batches in one write, of each kind */
#define WRITE_ROUTED_MS                                                                                                \
    250 /* routed_ms may be late by so much: many a batch is closed by then, which saves the write */

struct writer *writer_new(struct reign *r);
void writer_free(struct writer **w);
/* Writes if there is something to write and it is time. */
void write_pump(struct reign *r);
/* Stops in Redis nothing of the batch any more: canceled_ms is to be set, after its blocks are stored. */
void write_canceled(struct reign *r, struct open_batch *batch);
/* What was asked for of the batch up to `request` is carried out; after its blocks are stored. */
void write_handled(struct reign *r, uint64_t batch, int32_t request);
/* All behind the gate is routed: it can be forgotten, unless it has changed since. */
void write_gate_settled(struct reign *r, int32_t tenant, int64_t number);
/* The device has no open commands any more. */
void write_undeleted(struct reign *r, uint32_t tenant, uint32_t seq);
/* Streams of workers that have long gone; now and then. */
void write_forget_streams(struct reign *r);

#endif
