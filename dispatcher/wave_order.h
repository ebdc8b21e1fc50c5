/* Which wave a device of a batch belongs to: first the canary group, then all others in the order of their
 * registration, and with the last wave those who joined a dynamic batch later. Owns: struct wave_order. May call:
 * dispatcher/rollout, target_set, lib/store/block. Loop rule: none, pure.
 *
 * Made anywhere from what is stored: whom the batch addresses, block by block, and who of them is in which part. */
#ifndef MUSTER_DISPATCHER_WAVE_ORDER_H
#define MUSTER_DISPATCHER_WAVE_ORDER_H

#include "dispatcher/rollout.h"
#include "dispatcher/target_set.h"

/* Zero-initialised is empty and valid. Set canary and joined first, then add the blocks in order. */
struct wave_order {
    struct target_set canary, joined; /* owned */
    uint32_t *before;                 /* of each block: devices in blocks before, without canary and joined */
    uint32_t count, cap;              /* blocks */
    uint32_t devices;                 /* without joined, */
    uint32_t canary_devices;          /* and of these */
    bool failed;                      /* sticky: memory ran out */
};
void wave_order_free(struct wave_order *o);
void wave_order_add(struct wave_order *o, uint32_t block, const struct bitmap *targets);

/* The wave, from 0 on, of an addressed slot of the at-th block; 0 for a batch without waves. */
uint32_t wave_order_of(const struct wave_order *o, const struct rollout *r, uint32_t at, uint32_t block,
                       const struct bitmap *targets, unsigned slot);
/* Which of `targets` of the at-th block are in this wave or one before. */
void wave_order_out(const struct wave_order *o, const struct rollout *r, uint32_t wave, uint32_t at, uint32_t block,
                    const struct bitmap *targets, struct bitmap *out);

#endif
