/* Who of a batch with a rate has had a turn.
 * Owns: struct let_go. May call: lib/store/block. Loop rule: none, pure.
 *
 * Blocks stand in the order of the batch's. Who is let go is written down before he is routed: chosen, gone, fresh, and
 * then only gone. */
#ifndef MUSTER_DISPATCHER_LET_GO_H
#define MUSTER_DISPATCHER_LET_GO_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/block.h"

#define LET_GO_BLOCKS 256 /* that are written down at a time: 35 KB */

struct let_go {
    struct let_go_block {
        struct bitmap gone, fresh; /* had a turn; and is not routed since */
        bool is_fresh;
    } * blocks;
    uint32_t count;
    uint32_t cursor;      /* nobody in the blocks before can take a turn, as things are */
    uint32_t fresh_count; /* blocks */
    struct let_go_choice {
        uint32_t at; /* block */
        struct bitmap slots;
    } chosen[LET_GO_BLOCKS];
    uint32_t chosen_count;
};

/* Returns owned: of so many blocks; NULL without memory. */
struct let_go *let_go_new(uint32_t blocks);
void let_go_free(struct let_go **l);
/* Room for so many blocks; false without memory. */
MUST_CHECK bool let_go_extend(struct let_go *l, uint32_t blocks);
/* These have had their turn, as is written; routed or not. */
void let_go_put(struct let_go *l, uint32_t at, const struct bitmap *slots);
/* Something has changed for those who could take no turn. */
void let_go_again(struct let_go *l);

/* Chooses at most `turns`, the first ones of those that `may` (fills in who may take a turn in the block, whether or
 * not he had one). Returns how many; fewer when there are no more, or blocks enough. */
typedef void let_go_may_fn(void *arg, uint32_t at, struct bitmap *slots);
uint32_t let_go_choose(struct let_go *l, uint32_t turns, let_go_may_fn *may, void *arg);
/* What was chosen is written; they are fresh. */
void let_go_written(struct let_go *l);
/* Moves the fresh ones of the block to `slots`; false: there are none. */
bool let_go_take(struct let_go *l, uint32_t at, struct bitmap *slots);

#endif
