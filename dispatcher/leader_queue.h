/* Whose turn it is to be routed: urgent before normal before bulk; within a class tenants take turns by deficit round
 * robin; within a tenant batches go in order of acceptance.
 * Owns: struct route_queue. May call: dispatcher/open_batch, lib/base/list, turns. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_LEADER_QUEUE_H
#define MUSTER_DISPATCHER_LEADER_QUEUE_H

#include "dispatcher/open_batch.h"
#include "lib/base/turns.h"

#define QUEUE_CLASSES 3
/* What a tenant may route before the next one's turn, in commands: about four blocks of all devices, */
#define QUEUE_TURN 4096
/* each of which costs as much as so many more, to Redis and to the leader: else small batches would be long turns. */
#define QUEUE_BLOCK_COST 64

struct route_queue {
    /* Whether a tenant has to wait; NULL: none has. */
    bool (*waits)(const void *arg, uint32_t tenant);
    /* Whether there is room for what the block has where it is going; NULL: always. While there is not its tenant
     * waits, and keeps its turn. */
    bool (*fits)(void *arg, struct open_block *b);
    void *arg;
    struct turns classes[QUEUE_CLASSES]; /* tenants with batches */
    size_t batches, specless;            /* specless: of these, without `spec` */
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
/* Whether anything of the class stands there. */
bool queue_has(const struct route_queue *q, unsigned class);
/* The next block to route, of a batch whose `spec` is written; NULL when there is none. Advances route_next; a batch
 * whose last block was given leaves the queue. Blocks without open commands are passed over; when none is left, the
 * batch leaves the queue and *finished gets it. */
struct open_block *queue_pick(struct route_queue *q, struct open_batch **finished);
/* Batches that stand near the front and have no `spec` yet, nor are being filled: at most `max`, a quarter of them of
 * one tenant, and at most `bytes` of commands. */
size_t queue_specless(struct route_queue *q, struct open_batch **out, size_t max, size_t bytes);

/* Tenants with an equal share of all waiting batches or more, by class: at most `max`. */
size_t queue_heaviest(const struct route_queue *q, struct queue_heavy *out, size_t max);

#endif
