#include "dispatcher/control_retry.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/leader_walk.h"
#include "dispatcher/retry.h"
#include "lib/base/owned.h"
#include "lib/store/db_clock.h"

struct control_retry {
    struct reign *reign;
    struct open_batch *batch;
    struct db_retry policy;
    int64_t look_ms;
    uint32_t fresh;     /* blocks with some that are let go and not routed */
    struct bitmap **go; /* of each block; NULL: none */
    uint32_t room;      /* blocks `go` has room for: a dynamic batch grows */
};

struct control_retry *control_retry_new(struct reign *r, struct open_batch *batch, const struct db_steer *steer)
{
    if (!steer->retry.after)
        return NULL;
    struct control_retry *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    o->reign = r;
    o->batch = batch;
    o->policy = steer->retry;
    batch->retry_after = (uint32_t)steer->retry.after;
    batch->retry_attempts = (uint8_t)steer->retry.attempts;
    return o;
}

void control_retry_free(struct control_retry **retry)
{
    struct control_retry *o = *retry;
    *retry = NULL;
    if (!o)
        return;
    for (uint32_t i = 0; i < o->room; i++)
        free(o->go[i]);
    free(o->go);
    free(o);
}

static void make_room(struct control_retry *o, uint32_t blocks)
{
    if (blocks <= o->room)
        return;
    o->go = realloc(o->go, blocks * sizeof *o->go);
    if (!o->go)
        abort();
    memset(o->go + o->room, 0, (blocks - o->room) * sizeof *o->go);
    o->room = blocks;
}

/* Workers are to be told of them when the block is routed. */
static void tell_of(struct control_retry *o, uint32_t at, const struct bitmap *slots)
{
    make_room(o, o->batch->block_count);
    if (!o->go[at]) {
        struct bitmap *none = calloc(1, sizeof *none);
        if (!none)
            abort();
        o->go[at] = none;
        owned(none);
        o->fresh++;
    }
    bitmap_or(o->go[at], slots);
}

static void let_go(struct control_retry *o, uint32_t at, const struct bitmap *slots)
{
    struct open_block *b = &o->batch->blocks[at];
    int64_t now_ms = db_clock_ms(o->reign->clock);
    for (unsigned slot = bitmap_next(slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(slots, slot + 1))
        open_block_release(&o->reign->set, b, slot, now_ms);
    fold_changed(&o->reign->log, b, false, now_ms);
    b->again = true;
    tell_of(o, at, slots);
}

void control_retry_joined(struct control_retry *o, const struct open_block *b, const struct bitmap *slots)
{
    tell_of(o, (uint32_t)(b - o->batch->blocks), slots);
}

static void look_at_block(struct control_retry *o, uint32_t at, int64_t now_ms)
{
    struct open_block *b = &o->batch->blocks[at];
    struct bitmap due = {{0}}, spent = {{0}};
    bool any_due = false, any_spent = false;
    for (unsigned slot = b->first; slot < (unsigned)b->first + b->span; slot++) {
        uint8_t state = open_block_state(b, slot);
        unsigned attempts = state_attempts(state);
        if (state_of(state) != STATE_HELD)
            continue;
        int64_t wait_ms = retry_wait_ms(&o->policy, attempts, o->batch->id, block_seq(b->block, slot));
        if (attempts >= o->batch->retry_attempts) {
            bitmap_set(&spent, slot);
            any_spent = true;
        } else if (open_block_time(b, slot) + wait_ms <= now_ms) {
            bitmap_set(&due, slot);
            any_due = true;
        }
    }
    if (any_due)
        let_go(o, at, &due);
    /* A device that answers where its command is not known to be may be told to wait once too often. */
    if (any_spent)
        walk_block(o->reign, b, EVENT_GIVE_UP, &spent, NULL);
}

/* Blocks in which all has ended are not routed any more. */
static void forget_ended(struct control_retry *o)
{
    struct bitmap ended;
    for (uint32_t i = 0; o->fresh && i < o->room; i++)
        if (o->go[i] && !o->batch->blocks[i].remaining)
            (void)control_retry_routes(o, &o->batch->blocks[i], &ended);
}

void control_retry_tick(struct control_retry *o, bool held)
{
    int64_t now_ms = db_clock_ms(o->reign->clock);
    forget_ended(o);
    if (now_ms < o->look_ms && o->look_ms - now_ms <= RETRY_LOOK_MS)
        return;
    o->look_ms = now_ms + RETRY_LOOK_MS;
    if (held || !reign_live(o->reign) || o->batch->ending || o->batch->canceling || o->batch->expires_ms <= now_ms)
        return;
    for (uint32_t i = 0; i < o->batch->block_count; i++)
        if (o->batch->blocks[i].put_back)
            look_at_block(o, i, now_ms);
    walker_pump(o->reign);
}

bool control_retry_fresh(const struct control_retry *o)
{
    return o->fresh;
}

bool control_retry_routes(struct control_retry *o, const struct open_block *b, struct bitmap *only)
{
    uint32_t at = (uint32_t)(b - o->batch->blocks);
    struct bitmap **go = at < o->room ? &o->go[at] : NULL;
    if (!go || !*go)
        return false;
    *only = **go;
    free(*go);
    *go = NULL;
    o->fresh--;
    return true;
}

void control_retry_mask(const struct open_block *b, struct buf *states)
{
    struct state_string s;
    if (!b->put_back || !state_string_parse(&s, buf_slice(states)))
        return;
    uint8_t *p = buf_head(states) + STATE_STRING_HEADER;
    for (unsigned i = 0; i < s.count; i++)
        if (state_of(p[i]) == STATE_QUEUED && state_of(open_block_state(b, s.first + i)) == STATE_HELD)
            p[i] = state_byte(STATE_HELD, state_attempts(p[i]));
}

void control_retry_leave(const struct bitmap *only, struct buf *states)
{
    struct state_string s;
    if (!state_string_parse(&s, buf_slice(states)))
        return;
    uint8_t *p = buf_head(states) + STATE_STRING_HEADER;
    for (unsigned i = 0; i < s.count; i++)
        if (!bitmap_test(only, s.first + i) && (state_of(p[i]) == STATE_QUEUED || state_of(p[i]) == STATE_SENT))
            p[i] = STATE_NONE;
}

void control_retry_end(struct control_retry *o)
{
    for (uint32_t i = 0; i < o->batch->block_count; i++) {
        struct open_block *b = &o->batch->blocks[i];
        struct bitmap waiting = {{0}};
        for (unsigned slot = b->first; b->put_back && slot < (unsigned)b->first + b->span; slot++)
            if (state_of(open_block_state(b, slot)) == STATE_HELD)
                bitmap_set(&waiting, slot);
        if (b->put_back)
            walk_block(o->reign, b, EVENT_GIVE_UP, &waiting, NULL);
    }
}
