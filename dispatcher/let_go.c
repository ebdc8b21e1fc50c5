#include "dispatcher/let_go.h"

#include <stdlib.h>

struct let_go *let_go_new(uint32_t blocks)
{
    struct let_go *l = calloc(1, sizeof *l);
    if (l && !let_go_extend(l, blocks))
        let_go_free(&l);
    return l;
}

void let_go_free(struct let_go **l)
{
    if (*l)
        free((*l)->blocks);
    free(*l);
    *l = NULL;
}

bool let_go_extend(struct let_go *l, uint32_t blocks)
{
    if (blocks <= l->count && l->blocks)
        return true;
    struct let_go_block *more = realloc(l->blocks, (blocks + 1) * sizeof *more);
    if (!more)
        return false;
    memset(more + l->count, 0, (blocks + 1 - l->count) * sizeof *more);
    l->blocks = more;
    l->count = blocks;
    return true;
}

void let_go_put(struct let_go *l, uint32_t at, const struct bitmap *slots)
{
    bitmap_or(&l->blocks[at].gone, slots);
}

void let_go_again(struct let_go *l)
{
    l->cursor = 0;
}

uint32_t let_go_choose(struct let_go *l, uint32_t turns, let_go_may_fn *may, void *arg)
{
    uint32_t n = 0;
    l->chosen_count = 0;
    while (n < turns && l->cursor < l->count && l->chosen_count < LET_GO_BLOCKS) {
        struct let_go_choice *c = &l->chosen[l->chosen_count];
        c->at = l->cursor;
        may(arg, c->at, &c->slots);
        bitmap_and_not(&c->slots, &l->blocks[c->at].gone);
        uint32_t there = bitmap_count(&c->slots), taken = bitmap_cut(&c->slots, turns - n);
        n += taken;
        l->chosen_count += taken > 0;
        if (taken < there)
            break;
        l->cursor++;
    }
    return n;
}

void let_go_written(struct let_go *l)
{
    for (uint32_t i = 0; i < l->chosen_count; i++) {
        struct let_go_block *b = &l->blocks[l->chosen[i].at];
        bitmap_or(&b->gone, &l->chosen[i].slots);
        bitmap_or(&b->fresh, &l->chosen[i].slots);
        l->fresh_count += !b->is_fresh;
        b->is_fresh = true;
    }
    l->chosen_count = 0;
}

bool let_go_take(struct let_go *l, uint32_t at, struct bitmap *slots)
{
    struct let_go_block *b = &l->blocks[at];
    if (!b->is_fresh)
        return false;
    *slots = b->fresh;
    b->fresh = (struct bitmap){{0}};
    b->is_fresh = false;
    l->fresh_count--;
    return true;
}
