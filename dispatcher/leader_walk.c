#include "dispatcher/leader_walk.h"

#include <stdlib.h>

#include "dispatcher/moves.h"
#include "dispatcher/rebuild.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"

/* After Redis was filled again: outcomes that it had and workers are still storing come by the log before commands are
 * ended that do not look answered there any more. So long, the most a worker takes to notice that Redis was lost, or
 * until one that can't notice would have lost its lease; then the log is read. */
#define AFTER_REBUILD_US 1000000

struct walker {
    struct list waiting;
    struct moves under_way;
    bool backoff; /* a move failed: the rest waits for the next tick */
};

struct walk_move {
    struct list link;
    struct reign *reign;
    struct open_block *block;
    enum command_event event;
    bool some;
    struct bitmap only;
    uint16_t slots;  /* it is told of, with those between them */
    uint32_t routes; /* of its batch, when it was sent, */
    uint32_t folds;  /* and what the log had told of it */
    walk_done_fn *done;
};

struct walker *walker_new(struct reign *r)
{
    (void)r;
    struct walker *w = calloc(1, sizeof *w);
    if (w)
        list_init(&w->waiting);
    return w;
}

void walker_free(struct walker **w)
{
    if (!*w)
        return;
    list_for_each (l, tmp, &(*w)->waiting) {
        list_remove(l);
        free(container_of(l, struct walk_move, link));
    }
    free(*w);
    *w = NULL;
}

static void finish(struct reign *r, struct walk_move *m)
{
    struct open_batch *batch = m->block->batch;
    fold_changed(&r->log, m->block, true, db_clock_ms(r->clock));
    if (m->done)
        m->done(r, batch);
    reign_idle(r, batch);
    free(m);
}

static void again(struct reign *r, struct walk_move *m)
{
    list_append(&r->walker->waiting, &m->link);
    r->walker->backoff = true;
}

/* What Redis does not know nobody has: it happens without it. False when the batch was routed meanwhile: by now Redis
 * may know them. `only`: NULL for all. */
static bool apply_unknown(struct reign *r, const struct walk_move *m, const struct bitmap *only)
{
    if (m->routes != m->block->batch->routes)
        return false;
    if (m->event != EVENT_HOLD)
        open_block_apply(&r->set, m->block, m->event, only, db_clock_ms(r->clock));
    return true;
}

/* The block was not open in Redis. When Redis holds what it should, and the batch was not routed since, then it never
 * was: only PostgreSQL knows it. */
static void got_generation(void *arg, enum err err, int64_t value)
{
    struct walk_move *m = arg;
    struct reign *r = m->reign;
    if (!reign_back(r)) {
        free(m);
        return;
    }
    moves_end(&r->walker->under_way, m->slots);
    if (err || !value || !apply_unknown(r, m, m->some ? &m->only : NULL)) {
        if (!err && !value)
            rebuild_begin(r);
        again(r, m);
        return;
    }
    finish(r, m);
    walker_pump(r);
}

/* Whether there are any whom Redis, which has the block, does not know: they have joined and were not routed since. */
static bool any_unknown(const struct walk_move *m, const struct state_string *states, struct bitmap *unknown)
{
    *unknown = open_block_bitmap(m->block);
    if (m->some)
        bitmap_and(unknown, &m->only);
    for (unsigned slot = bitmap_next(unknown, 0); slot < BLOCK_SLOTS; slot = bitmap_next(unknown, slot + 1))
        if (state_string_get(states, slot))
            bitmap_clear(unknown, slot);
    return bitmap_next(unknown, 0) < BLOCK_SLOTS;
}

static void applied(void *arg, enum err err, struct slice value)
{
    struct walk_move *m = arg;
    struct reign *r = m->reign;
    struct state_string states;
    struct bitmap unknown;
    if (!reign_back(r)) {
        free(m);
        return;
    }
    if (err == ERR_NOT_FOUND) {
        reign_hold(r);
        live_generation_get(r->live, got_generation, m);
        return;
    }
    moves_end(&r->walker->under_way, m->slots);
    if (err || !state_string_parse(&states, value)) {
        if (!err)
            log_error("state_string_unreadable", "batch=%llu block=%u", (unsigned long long)m->block->batch->id,
                      m->block->block);
        again(r, m);
        return;
    }
    bool overtaken = m->folds != m->block->batch->folds;
    open_block_merge_string(&r->set, m->block, &states, overtaken, db_clock_ms(r->clock));
    if (m->event != EVENT_HOLD && any_unknown(m, &states, &unknown) && !apply_unknown(r, m, &unknown)) {
        again(r, m);
        return;
    }
    if (m->event == EVENT_RETRY && m->some)
        open_block_put_back(&r->set, m->block, &states, &m->only, db_clock_ms(r->clock));
    finish(r, m);
    walker_pump(r);
}

static void ignored(void *arg, enum err err, struct slice value)
{
    (void)arg, (void)err, (void)value;
}

/* That it was sent the log may have told when Redis, which has lost that, was being filled: it does not end unsent. */
static void tell_sent(struct reign *r, const struct walk_move *m)
{
    const struct open_block *b = m->block;
    struct bitmap sent = {{0}};
    bool any = false;
    if (!b->batch->rebuilt || !b->cells || !state_is_terminal(state_next(STATE_QUEUED, m->event)))
        return;
    for (unsigned slot = b->first; slot < (unsigned)b->first + b->span; slot++)
        if (state_of(open_block_state(b, slot)) == STATE_SENT) {
            bitmap_set(&sent, slot);
            any = true;
        }
    if (any)
        live_apply(r->live, block_place(b), EVENT_SEND, &sent, ignored, NULL);
}

/* What it was routed to is the Redis that knows all. One that was emptied a moment ago knows of it what the leader knew
 * then, and would end what was sent meanwhile. */
static bool is_where_routed(struct reign *r, const struct walk_move *m)
{
    if (m->block->batch->route_us <= r->sound_us)
        return true;
    rebuild_check(r);
    return false;
}

void walker_pump(struct reign *r)
{
    struct walker *w = r->walker;
    int64_t wait_us = r->silent_us > AFTER_REBUILD_US ? r->silent_us : AFTER_REBUILD_US;
    if (r->rebuilt_us && (r->silence_unknown || r->log_read_us < r->rebuilt_us + wait_us))
        return;
    while (!w->backoff && moves_room(&w->under_way) && reign_live(r) && !list_empty(&w->waiting)) {
        struct walk_move *m = container_of(w->waiting.next, struct walk_move, link);
        if (!is_where_routed(r, m))
            return;
        list_remove(&m->link);
        moves_begin(&w->under_way, m->slots);
        m->reign = reign_hold(r);
        m->routes = m->block->batch->routes;
        m->folds = m->block->batch->folds;
        tell_sent(r, m);
        live_apply(r->live, block_place(m->block), m->event, m->some ? &m->only : NULL, applied, m);
    }
}

void walker_tick(struct reign *r)
{
    r->walker->backoff = false;
    walker_pump(r);
}

void walk_block(struct reign *r, struct open_block *b, enum command_event event, const struct bitmap *only,
                walk_done_fn *done)
{
    struct walk_move *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->block = b;
    m->event = event;
    m->slots = b->span;
    m->some = only != NULL;
    if (only)
        m->only = *only;
    m->done = done;
    reign_busy(b->batch);
    list_append(&r->walker->waiting, &m->link);
    owned(m);
}

unsigned walk_batch(struct reign *r, struct open_batch *batch, enum command_event event, walk_done_fn *done)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < batch->block_count; i++)
        if (batch->blocks[i].remaining) {
            walk_block(r, &batch->blocks[i], event, NULL, done);
            n++;
        }
    walker_pump(r);
    return n;
}

void walk_unknown(struct reign *r, struct open_batch *batch, enum command_event event)
{
    int64_t now = db_clock_ms(r->clock);
    for (uint32_t i = 0; i < batch->block_count; i++)
        if (open_block_apply(&r->set, &batch->blocks[i], event, NULL, now))
            fold_changed(&r->log, &batch->blocks[i], true, now);
}
