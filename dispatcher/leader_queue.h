/* Whose turn it is to be routed: urgent before normal before bulk; within a class tenants take turns, each by as many
 * commands; within a tenant batches go in order of acceptance.
 * Owns: struct route_queue. May call: dispatcher/open_batch, lib/base/list. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_LEADER_QUEUE_H
#define MUSTER_DISPATCHER_LEADER_QUEUE_H

#include "dispatcher/open_batch.h"

#define QUEUE_CLASSES 3
#define QUEUE_TURN    4096 /* commands a tenant may route before the next one's turn: four blocks of all devices */

struct route_queue {
    /* Whether a tenant has to wait; NULL: none has. */
    bool (*waits)(const void *arg, uint32_t tenant);
    const void *waits_arg;
    struct list classes[QUEUE_CLASSES]; /* tenants with batches, the one whose turn it is first */
    size_t batches, specless;           /* specless: of these, without `spec` */
};

/* Who has most in the queue. */
struct queue_heavy {
    uint32_t tenant;
    uint8_t class;
};

void queue_init(struct route_queue *q);
void queue_free(struct route_queue *q);
/* Puts the batch in its tenant's line; nothing when it stands there. Its blocks from route_next on are to be routed. */
void queue_add(struct route_queue *q, struct open_batch *batch);
void queue_remove(struct route_queue *q, struct open_batch *batch);
/* Sets the batch's `spec`, whether it stands in a line or not. */
void queue_set_spec(struct route_queue *q, struct open_batch *batch, bool spec);
/* The next block to route, of a class whose bit is set in `classes` and of a batch whose `spec` is written; NULL when
 * there is none. Advances route_next; a batch whose last block was given leaves the queue. Blocks without open commands
 * are passed over; when none is left, the batch leaves the queue and *finished gets it. */
struct open_block *queue_pick(struct route_queue *q, unsigned classes, struct open_batch **finished);
/* Batches that stand near the front and have no `spec` yet, nor are being filled: at most `max`, a quarter of them of
 * one tenant, and at most `bytes` of commands. */
size_t queue_specless(struct route_queue *q, unsigned classes, struct open_batch **out, size_t max, size_t bytes);

/* Tenants with an equal share of all waiting batches or more, by class: at most `max`. */
size_t queue_heaviest(const struct route_queue *q, struct queue_heavy *out, size_t max);

#endif
