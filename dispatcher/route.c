#include "dispatcher/route.h"

#include <stdlib.h>

#include "dispatcher/control.h"
#include "dispatcher/leader_fold.h"
#include "dispatcher/leader_room.h"
#include "dispatcher/leader_spec.h"
#include "dispatcher/leader_values.h"
#include "dispatcher/moves.h"
#include "dispatcher/rebuild.h"
#include "dispatcher/sweep.h"
#include "lib/base/clock.h"
#include "lib/base/owned.h"
#include "proto/inbox.h"

#define SPECS_BATCHES 1000      /* read at a time, */
#define SPECS_BYTES   (4 << 20) /* and bytes of their commands */
#define SPECS_AHEAD   1000      /* batches waiting for their turn whose specs are written as they come */

struct router {
    struct reign *reign;
    struct moves under_way;
    bool specs_under_way;
    bool backoff;         /* a move failed: the rest waits for the next tick */
    struct room room;     /* in the inboxes */
    unsigned looks;       /* at full ones, under way */
    struct list outboxes; /* being collected */
    struct list unpushed; /* whose push failed */
    ev_timer flush, look;
};

/* What is collected for one inbox, then on its way there. */
struct outbox {
    struct list link;
    struct reign *reign;
    uint16_t worker;
    enum live_class class;
    uint32_t commands;
    struct buf items;
    struct buf specs;   /* items too, told once: what is pushed again later may be of batches that stand otherwise */
    struct buf batches; /* struct open_batch *, each busy once */
};

struct route_move {
    struct reign *reign;
    struct open_block *block;
    uint16_t slots;
    bool some; /* workers are told of these only: of the others they have been told */
    struct bitmap only;
};

static void outbox_free(struct outbox *o)
{
    buf_free(&o->items);
    buf_free(&o->specs);
    buf_free(&o->batches);
    free(o);
}

static void flush_timer(struct ev_loop *loop, ev_timer *t, int events);
static void look_timer(struct ev_loop *loop, ev_timer *t, int events);

struct router *router_new(struct reign *r)
{
    struct router *router = calloc(1, sizeof *router);
    if (!router)
        return NULL;
    router->reign = r;
    list_init(&router->outboxes);
    list_init(&router->unpushed);
    ev_timer_init(&router->flush, flush_timer, ROUTE_ENTRY_MS / 1000., 0);
    ev_timer_init(&router->look, look_timer, ROUTE_LOOK_MS / 1000., 0);
    if (!room_init(&router->room))
        router_free(&router);
    return router;
}

void router_free(struct router **router)
{
    struct router *x = *router;
    if (!x)
        return;
    ev_timer_stop(x->reign->loop, &x->flush);
    ev_timer_stop(x->reign->loop, &x->look);
    room_free(&x->room);
    struct list *lists[] = {&x->outboxes, &x->unpushed};
    for (int i = 0; i < 2; i++)
        list_for_each (l, tmp, lists[i]) {
            list_remove(l);
            outbox_free(container_of(l, struct outbox, link));
        }
    free(x);
    *router = NULL;
}

/* --- a batch's way ---------------------------------------------------------------------------------------------- */
void router_add(struct reign *r, struct open_batch *batch)
{
    queue_add(&r->queue, batch);
}

void router_again(struct reign *r, struct open_batch *batch)
{
    batch->route_next = 0;
    batch->partial = false;
    spec_untell(batch);
    queue_set_spec(&r->queue, batch, false);
    batch->fill_again = batch->filling; /* values that are on their way come without the spec */
    batch->handed = false;
    if (!batch->routing)
        batch->route_failed = false;
    queue_add(&r->queue, batch);
}

void router_some(struct reign *r, struct open_batch *batch)
{
    if (batch->stage != OPEN_RUNNING || !batch->handed || !batch->spec || batch->rebuild || batch->routing ||
        !list_empty(&batch->queue))
        return;
    batch->route_next = 0;
    batch->partial = true;
    batch->handed = false;
    queue_add(&r->queue, batch);
    router_pump(r);
}

void router_remove(struct reign *r, struct open_batch *batch)
{
    queue_remove(&r->queue, batch);
    batch->route_next = batch->block_count;
}

static bool may_go_again(const struct open_batch *batch)
{
    return (!batch->canceling && !batch->ending && !batch->held) || batch->rebuild;
}

/* Once more, and at once in its place: while the rest of it is under way what is behind would overtake it. */
static void fail_batch(struct reign *r, struct open_batch *batch)
{
    r->router->backoff = true;
    if (may_go_again(batch))
        router_again(r, batch);
    else
        batch->route_failed = true;
}

/* When nothing of the batch is under way any more: handed over, or once more. */
static void check_handed(struct reign *r, struct open_batch *batch)
{
    if (batch->routing || !list_empty(&batch->queue) || batch->handed)
        return;
    if (batch->route_failed) {
        batch->route_failed = false;
        if (may_go_again(batch))
            router_again(r, batch);
        return;
    }
    if (batch->route_next < batch->block_count)
        return;
    batch->handed = true;
    spec_untell(batch);
    folder_expect(r);
    rebuild_routed(r, batch);
    if (!batch->routed && batch->stage == OPEN_RUNNING && list_empty(&batch->work))
        list_append(&r->handed, &batch->work);
}

static void step_begin(struct open_batch *batch)
{
    batch->routing++;
    reign_busy(batch);
}

static void step_end(struct reign *r, struct open_batch *batch)
{
    batch->routing--;
    check_handed(r, batch);
    reign_idle(r, batch);
}

/* --- inboxes ---------------------------------------------------------------------------------------------------- */
static void push(struct reign *r, struct outbox *o);

static void pushed(void *arg, enum err err, int64_t waiting)
{
    struct outbox *o = arg;
    struct reign *r = o->reign;
    if (!reign_back(r)) {
        outbox_free(o);
        return;
    }
    room_landed(&r->router->room, o->worker, o->class);
    if (err) {
        list_append(&r->router->unpushed, &o->link);
        return;
    }
    r->figures->inbox_entries++;
    room_told(&r->router->room, o->worker, o->class, (uint64_t)waiting, clock_mono_us());
    struct open_batch **batches = (struct open_batch **)(void *)buf_head(&o->batches);
    for (size_t i = 0, n = buf_len(&o->batches) / sizeof *batches; i < n; i++)
        step_end(r, batches[i]);
    outbox_free(o);
    router_pump(r);
}

static void push(struct reign *r, struct outbox *o)
{
    list_remove(&o->link);
    o->reign = reign_hold(r);
    room_pushed(&r->router->room, o->worker, o->class, o->commands, clock_mono_us());
    size_t items = buf_len(&o->items);
    buf_put(&o->items, buf_head(&o->specs), buf_len(&o->specs));
    if (o->items.failed)
        abort();
    live_inbox_push(r->live, o->worker, o->class, buf_slice(&o->items), pushed, o);
    o->items.end = o->items.start + items;
    buf_free(&o->specs);
}

static void push_all(struct reign *r)
{
    ev_timer_stop(r->loop, &r->router->flush);
    list_for_each (l, tmp, &r->router->outboxes)
        push(r, container_of(l, struct outbox, link));
}

/* What is urgent need not wait for more of its kind when there is none. */
static void push_urgent(struct reign *r)
{
    if (queue_has(&r->queue, LIVE_URGENT))
        return;
    list_for_each (l, tmp, &r->router->outboxes)
        if (container_of(l, struct outbox, link)->class == LIVE_URGENT)
            push(r, container_of(l, struct outbox, link));
}

static void flush_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    push_all(container_of(t, struct router, flush)->reign);
}

static struct outbox *get_outbox(struct router *router, uint16_t worker, enum live_class class)
{
    for (struct list *l = router->outboxes.next; l != &router->outboxes; l = l->next) {
        struct outbox *o = container_of(l, struct outbox, link);
        if (o->worker == worker && o->class == class)
            return o;
    }
    struct outbox *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    o->worker = worker;
    o->class = class;
    list_append(&router->outboxes, &o->link);
    owned(o);
    return o;
}

/* Of a batch whose commands are tried again: those that were sent before, taken out of `slots`. False: there are none.
 */
static bool take_sent(const struct open_block *b, struct bitmap *slots, struct bitmap *sent)
{
    bool any = false;
    memset(sent, 0, sizeof *sent);
    if (!b->batch->retry_after || !b->cells)
        return false;
    for (unsigned slot = bitmap_next(slots, b->first); slot < BLOCK_SLOTS; slot = bitmap_next(slots, slot + 1))
        if (state_attempts(open_block_state(b, slot))) {
            bitmap_set(sent, slot);
            any = true;
        }
    bitmap_and_not(slots, sent);
    return any;
}

/* What has ended meanwhile nobody need have: its outcome was on its way when Redis, which has lost it, was filled. */
static void take_ended(const struct open_block *b, struct bitmap *slots)
{
    if (!b->remaining)
        *slots = (struct bitmap){{0}};
    for (unsigned slot = b->cells ? bitmap_next(slots, b->first) : BLOCK_SLOTS; slot < BLOCK_SLOTS;
         slot = bitmap_next(slots, slot + 1))
        if (state_is_terminal(state_of(open_block_state(b, slot))))
            bitmap_clear(slots, slot);
}

static void put_item(struct buf *items, const struct open_block *b, enum inbox_kind kind, const struct bitmap *slots)
{
    struct inbox_item item = {
        .kind = kind, .batch = b->batch->id, .number = b->batch->hold, .tenant = b->batch->tenant, .block = b->block};
    memcpy(item.slots, slots->bytes, sizeof item.slots);
    inbox_put(items, &item);
}

/* Of a batch that is stopped meanwhile workers look up how it stands. */
static void put_told(struct buf *specs, const struct open_batch *batch)
{
    if (!batch->told || batch->canceling || batch->ending || batch->hold || batch->held)
        return;
    inbox_put(specs,
              &(struct inbox_item){.kind = INBOX_SPEC, .batch = batch->id, .spec = {batch->told, batch->told_bytes}});
}

static void collect(struct reign *r, const struct route_move *m, const struct live_routed *to)
{
    const struct open_block *b = m->block;
    struct bitmap slots = to->slots;
    if (m->some)
        bitmap_and(&slots, &m->only);
    take_ended(b, &slots);
    if (bitmap_next(&slots, 0) == BLOCK_SLOTS)
        return;
    struct router *router = r->router;
    struct open_batch *batch = b->batch;
    struct outbox *o = get_outbox(router, to->worker, batch_class(batch));
    sweep_met(r, to->worker);
    struct bitmap sent;
    unsigned commands = bitmap_count(&slots);
    r->figures->routed_commands += commands;
    if (take_sent(b, &slots, &sent))
        put_item(&o->items, b, INBOX_AGAIN, &sent);
    if (bitmap_next(&slots, 0) < BLOCK_SLOTS)
        put_item(&o->items, b, batch->hold ? INBOX_RELEASE : INBOX_ROUTE, &slots);
    struct open_batch *last = NULL;
    if (buf_len(&o->batches))
        memcpy(&last, buf_head(&o->batches) + buf_len(&o->batches) - sizeof last, sizeof last);
    if (last != batch) {
        buf_put(&o->batches, &batch, sizeof batch);
        put_told(&o->specs, batch);
        step_begin(batch);
    }
    if (o->items.failed || o->specs.failed || o->batches.failed)
        abort();
    o->commands += commands;
    if (buf_len(&o->items) + buf_len(&o->specs) >= ROUTE_ENTRY_BYTES || o->commands >= ROUTE_ENTRY_COMMANDS)
        push(r, o);
    else if (!ev_is_active(&router->flush)) {
        ev_timer_set(&router->flush, ROUTE_ENTRY_MS / 1000., 0);
        ev_timer_start(r->loop, &router->flush);
    }
}

/* --- room in the inboxes ---------------------------------------------------------------------------------------- */

struct look {
    struct reign *reign;
    uint16_t worker;
    uint8_t class;
};

static void plan_look(struct reign *r)
{
    struct router *router = r->router;
    if (router->looks || list_empty(&router->room.full) || ev_is_active(&router->look))
        return;
    ev_timer_set(&router->look, ROUTE_LOOK_MS / 1000., 0);
    ev_timer_start(r->loop, &router->look);
}

static void looked(void *arg, enum err err, int64_t entries)
{
    struct look look = *(struct look *)arg;
    struct reign *r = look.reign;
    free(arg);
    if (!reign_back(r))
        return;
    if (!err)
        room_told(&r->router->room, look.worker, look.class, (uint64_t)entries, clock_mono_us());
    if (--r->router->looks)
        return;
    if (room_recheck(&r->router->room, clock_mono_us()))
        router_pump(r);
    plan_look(r);
}

static void look_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    struct router *router = container_of(t, struct router, look);
    (void)loop, (void)events;
    router->looks++; /* none is the last before all are sent */
    list_for_each (l, tmp, &router->room.full) {
        const struct room_inbox *box = container_of(l, struct room_inbox, link);
        struct look *look = malloc(sizeof *look);
        if (!look)
            abort();
        *look = (struct look){reign_hold(router->reign), box->worker, box->class};
        router->looks++;
        live_inbox_length(router->reign->live, box->worker, (enum live_class)box->class, looked, look);
    }
    router->looks--;
    plan_look(router->reign);
}

static void looked_up(void *arg, enum err err)
{
    struct route_move m = *(struct route_move *)arg;
    (void)err;
    free(arg);
    if (!reign_back(m.reign))
        return;
    m.block->look = err ? OPEN_NOT_LOOKED : OPEN_LOOKED;
    reign_idle(m.reign, m.block->batch);
    router_pump(m.reign);
}

/* Asks who has its devices now. */
static void look_up(struct reign *r, struct open_block *b)
{
    struct route_move *m = malloc(sizeof *m);
    if (!m)
        abort();
    *m = (struct route_move){.reign = reign_hold(r), .block = b};
    b->look = OPEN_LOOKING;
    reign_busy(b->batch);
    live_learn(r->live, b->batch->tenant, b->block, looked_up, m);
}

/* While no inbox is full nobody need know. */
bool router_fits(void *reign, struct open_block *b)
{
    struct reign *r = reign;
    struct room *room = &r->router->room;
    int64_t now_us = clock_mono_us();
    if (!room_any_full(room, batch_class(b->batch), now_us))
        return true;
    if (b->look == OPEN_NOT_LOOKED)
        look_up(r, b);
    if (b->look != OPEN_LOOKED)
        return false;
    const uint8_t *seen = live_presence_seen(r->live, b->batch->tenant, b->block);
    uint16_t last = 0;
    for (unsigned slot = b->first; seen && slot < (unsigned)b->first + b->span; slot++) {
        uint16_t worker = load_u16le(seen + 2 * (size_t)slot);
        if (worker == last || !worker)
            continue;
        last = worker;
        if (room_is_full(room, worker, batch_class(b->batch), now_us))
            return false;
    }
    return true;
}

void router_forget_worker(struct reign *r, uint16_t worker)
{
    room_forget(&r->router->room, worker);
}

void router_push_cancel(struct reign *r, uint64_t batch, uint16_t worker, live_int_fn *done, void *arg)
{
    struct buf items = {0};
    inbox_put(&items, &(struct inbox_item){.kind = INBOX_CANCEL, .batch = batch});
    if (items.failed)
        abort();
    live_inbox_push(r->live, worker, LIVE_URGENT, buf_slice(&items), done, arg);
    buf_free(&items);
}

/* --- blocks ----------------------------------------------------------------------------------------------------- */
static void routed(void *arg, enum err err, const struct live_routed *routes, size_t count)
{
    struct route_move m = *(struct route_move *)arg;
    free(arg);
    if (!reign_back(m.reign))
        return;
    struct reign *r = m.reign;
    moves_end(&r->router->under_way, m.slots);
    if (err)
        fail_batch(r, m.block->batch);
    for (size_t i = 0; !err && i < count; i++)
        collect(r, &m, &routes[i]);
    if (batch_class(m.block->batch) == LIVE_URGENT)
        push_urgent(r);
    r->figures->routed_blocks++;
    step_end(r, m.block->batch);
    router_pump(r);
    if (!r->router->under_way.count)
        push_all(r);
}

static void route_block(struct reign *r, struct open_block *b)
{
    struct buf states = {0};
    struct route_move *m = malloc(sizeof *m);
    open_block_string(b, &states);
    if (!m || states.failed)
        abort();
    *m = (struct route_move){.reign = reign_hold(r), .block = b, .slots = b->span};
    enum control_way way = CONTROL_ALL;
    if (b->batch->control)
        way = control_routes(b->batch->control, b, &states, &m->only);
    m->some = way != CONTROL_ALL;
    b->again = false;
    b->batch->touched = true;
    b->look = OPEN_NOT_LOOKED;
    b->batch->routes++;
    b->batch->route_us = clock_mono_us();
    moves_begin(&r->router->under_way, m->slots);
    step_begin(b->batch);
    uint64_t rank = ((uint64_t)b->batch->priority << 48) + b->batch->id;
    (way == CONTROL_ALONE ? live_route_some : live_route)(r->live, block_place(b), rank, buf_slice(&states), routed, m);
    buf_free(&states);
}

/* --- specs ------------------------------------------------------------------------------------------------------- */
/* Without it nothing of the batch is given to workers: they would pass it over, and go on with what is behind. */
static void spec_written(struct reign *r, struct open_batch *batch, enum err err)
{
    if (err) {
        fail_batch(r, batch);
        queue_set_spec(&r->queue, batch, false);
    }
    step_end(r, batch);
}

void router_known(struct reign *r, struct open_batch *batch, struct slice command)
{
    /* Where many wait, Redis is behind: what is not needed soon would only stand in front of what is. */
    if (!reign_live(r) || r->queue.batches >= SPECS_AHEAD)
        return;
    spec_write(r, batch, command, spec_written);
    queue_set_spec(&r->queue, batch, true);
    batch->touched = true;
    step_begin(batch);
}

static void fill(struct reign *r, struct open_batch *batch);

/* The values are there, and with them all that its blocks need. What failed, or what Redis has lost meanwhile, is begun
 * again with the batch's spec. */
static void filled(struct reign *r, struct open_batch *batch, enum err err)
{
    bool again = batch->fill_again;
    batch->filling = batch->fill_again = false;
    if (err) {
        r->router->backoff = true;
    } else if (!again) {
        batch->filled = true;
        queue_set_spec(&r->queue, batch, true);
    }
    step_end(r, batch);
    router_pump(r);
}

static void fill(struct reign *r, struct open_batch *batch)
{
    batch->filling = true;
    step_begin(batch);
    values_put(r, batch, filled);
}

static void specs_sent(struct reign *r, struct open_batch *const *batches, size_t n, enum err err)
{
    r->router->specs_under_way = false;
    if (err) {
        r->router->backoff = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        batches[i]->touched = true;
        step_begin(batches[i]); /* until it is written */
        if (batches[i]->valued && !batches[i]->filled)
            fill(r, batches[i]);
        else
            queue_set_spec(&r->queue, batches[i], true);
    }
    router_pump(r);
}

static void read_specs(struct reign *r)
{
    struct open_batch *batches[SPECS_BATCHES];
    if (r->router->specs_under_way || !r->queue.specless)
        return;
    size_t n = queue_specless(&r->queue, batches, SPECS_BATCHES, SPECS_BYTES);
    if (!n)
        return;
    r->router->specs_under_way = true;
    spec_put(r, batches, n, specs_sent, spec_written);
}

void router_pump(struct reign *r)
{
    struct router *router = r->router;
    if (!r->loaded || !live_up(r->live) || !(r->live_ready || r->rebuilding) || rebuild_waits(r) || router->backoff ||
        !list_empty(&router->unpushed))
        return;
    while (moves_room(&router->under_way)) {
        struct open_batch *finished;
        struct open_block *b = queue_pick(&r->queue, &finished);
        if (b)
            route_block(r, b);
        else if (finished) {
            check_handed(r, finished);
            reign_check_complete(r, finished);
        } else
            break;
    }
    plan_look(r);
    read_specs(r);
}

void router_tick(struct reign *r)
{
    r->router->backoff = false;
    if (live_up(r->live))
        list_for_each (l, tmp, &r->router->unpushed)
            push(r, container_of(l, struct outbox, link));
    router_pump(r);
}
