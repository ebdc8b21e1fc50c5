#include "dispatcher/control_ended.h"

#include <stdlib.h>

void control_ended_free(struct control_ended *e)
{
    target_set_free(&e->canceled);
    target_set_free(&e->superseded);
    target_set_free(&e->ending);
}

static void add(struct target_set *set, uint32_t block, const struct bitmap *slots)
{
    target_set_add(set, block, slots);
    if (set->failed)
        abort();
}

void control_ended_add(struct control_ended *e, uint32_t block, const struct bitmap *slots, bool superseded)
{
    add(superseded ? &e->superseded : &e->canceled, block, slots);
}

static void mask(const struct target_set *set, const struct open_block *b, struct state_string *s, uint8_t *p)
{
    const struct target_block *t = target_set_find(set, b->block);
    for (unsigned i = 0; t && i < s->count; i++)
        if (state_of(p[i]) == STATE_QUEUED && bitmap_test(&t->slots, s->first + i))
            p[i] = state_byte(STATE_HELD, state_attempts(p[i]));
}

void control_ended_mask(const struct control_ended *e, const struct open_block *b, struct buf *states)
{
    struct state_string s;
    if ((!e->canceled.count && !e->superseded.count) || !state_string_parse(&s, buf_slice(states)))
        return;
    mask(&e->canceled, b, &s, buf_head(states) + STATE_STRING_HEADER);
    mask(&e->superseded, b, &s, buf_head(states) + STATE_STRING_HEADER);
}

/* Which of the set are unsent in the block. False: none. */
static bool unsent(const struct open_block *b, const struct target_block *t, struct bitmap *out)
{
    bool any = false;
    *out = (struct bitmap){{0}};
    for (unsigned slot = bitmap_next(&t->slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&t->slots, slot + 1)) {
        uint8_t state = open_block_state(b, slot);
        if (state && state_of(state) < STATE_SENT) {
            bitmap_set(out, slot);
            any = true;
        }
    }
    return any;
}

/* False: nobody has come back. */
static bool end_unsent(struct control_ended *e, struct reign *r, struct open_batch *batch, const struct target_set *set,
                       enum command_event event, walk_done_fn *done)
{
    struct bitmap slots;
    bool any = false;
    for (size_t i = 0; i < set->count; i++) {
        struct open_block *b = open_batch_block(batch, set->blocks[i].block);
        if (!b || !b->came_back)
            continue;
        any = true;
        if (!unsent(b, &set->blocks[i], &slots))
            continue;
        add(&e->ending, b->block, &slots);
        e->walks++;
        walk_block(r, b, event, &slots, done);
    }
    return any;
}

static void looked_at(struct open_batch *batch, const struct target_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        struct open_block *b = open_batch_block(batch, set->blocks[i].block);
        if (b)
            b->came_back = false;
    }
}

bool control_ended_tick(struct control_ended *e, struct reign *r, struct open_batch *batch, walk_done_fn *done)
{
    bool left = e->left;
    if (e->walks)
        return false;
    e->left = false;
    bool superseded = end_unsent(e, r, batch, &e->superseded, EVENT_SUPERSEDE, done);
    if (end_unsent(e, r, batch, &e->canceled, EVENT_CANCEL, done) || superseded) {
        looked_at(batch, &e->superseded);
        looked_at(batch, &e->canceled);
        walker_pump(r);
    }
    return left;
}

void control_ended_walked(struct control_ended *e, struct open_batch *batch)
{
    struct bitmap slots;
    if (--e->walks)
        return;
    for (size_t i = 0; i < e->ending.count; i++) {
        const struct open_block *b = open_batch_block(batch, e->ending.blocks[i].block);
        e->left = e->left || (b && unsent(b, &e->ending.blocks[i], &slots));
    }
    target_set_free(&e->ending);
}

bool control_ended_busy(const struct control_ended *e)
{
    return e->walks || e->left;
}
