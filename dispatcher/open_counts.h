/* How many open commands each device has, and which have as many as they may: a device's mailbox is full.
 * Owns: struct open_counts. May call: lib/store/block, lib/base/list. Loop rule: none, pure.
 *
 * Two bytes a device in each block in which something is or was open; 65,535 stands for that many or more, and stays.
 */
#ifndef MUSTER_DISPATCHER_OPEN_COUNTS_H
#define MUSTER_DISPATCHER_OPEN_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/list.h"
#include "lib/store/block.h"

struct open_counts_block {
    struct open_counts_block *next; /* of its hash bucket */
    struct list link;               /* of `changed` or `full`, or alone */
    uint32_t tenant, block;
    uint16_t full; /* devices that are */
    int64_t told_us;
    uint16_t open[BLOCK_SLOTS];
};

struct open_counts {
    uint32_t limit; /* commands of one device; 0: nothing is counted */
    struct open_counts_block **buckets;
    size_t bucket_count, count;
    struct list changed; /* blocks where somebody has become full, or is no longer, since it was told */
    struct list full;    /* the others where somebody is, those first that were told longest ago */
    uint64_t devices;    /* that are full */
    bool failed;         /* sticky: memory ran out */
};

void open_counts_init(struct open_counts *c);
void open_counts_free(struct open_counts *c);
/* The counts of a block; NULL when there are none yet. */
const struct open_counts_block *open_counts_find(const struct open_counts *c, uint32_t tenant, uint32_t block);
/* The same, made when there are none; NULL when nothing is counted, or without memory. */
struct open_counts_block *open_counts_of(struct open_counts *c, uint32_t tenant, uint32_t block);
void open_counts_add(struct open_counts *c, struct open_counts_block *b, unsigned slot);
/* The same for a bitmap of so many bytes, from slot `first`, a multiple of 8, on. */
void open_counts_add_all(struct open_counts *c, struct open_counts_block *b, unsigned first, const uint8_t *targets,
                         size_t bytes);
void open_counts_take(struct open_counts *c, struct open_counts_block *b, unsigned slot);
/* The next block to tell of: one that has changed, or was told before `before_us`. NULL: none. It counts as told. */
struct open_counts_block *open_counts_next(struct open_counts *c, int64_t before_us, int64_t now_us);
void open_counts_full(const struct open_counts *c, const struct open_counts_block *b, struct bitmap *out);

#endif
