#include "workers/routed.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "workers/acks.h"
#include "workers/batch_cache.h"
#include "workers/gates.h"
#include "workers/lease.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/values.h"
#include "workers/window.h"
#include "workers/worker.h"

/* Unanswered commands of the last moment with which urgent ones, and others, wait: so many are enough to keep a core
 * busy. The urgent ones have room of their own behind the others. */
#define WINDOW_URGENT 2048
#define WINDOW_OTHERS 1024
/* Devices that do not answer at once are sent to as the window forgets those before. */
#define LOOK_AGAIN_S 0.01
/* Commands given in one turn of the loop, as many as streams send in one: more would wait there, unanswered and
 * forgotten by the window. */
#define GIVEN_PER_TURN 64
#define ANSWERED_MANY  256

/* Commands of one batch for devices of one block. */
struct part {
    struct list entry;
    struct routed *routed;
    struct batch *batch;       /* referenced, once it is known */
    struct value_part *values; /* owned: of a batch that has some, once they are known */
    uint32_t tenant, block;
    uint64_t hold;   /* number under which it was released; 0: it never was held */
    uint64_t order;  /* in which they came */
    uint32_t take;   /* a session that was attached after it has got the command by that, or will */
    uint16_t number; /* of the worker, to which they were routed */
    uint16_t count;  /* that are not given yet */
    uint16_t next;   /* slot to go on with */
    uint8_t class;
    bool any_gone;
    struct bitmap slots, gone; /* gone: to be handed back */
};

struct routed {
    struct worker *worker;
    struct list waiting[LIVE_CLASSES]; /* struct part, the first one first */
    struct list unknown[LIVE_CLASSES]; /* whose batch is being looked up: what came after them waits for that, too */
    uint64_t orders;
    uint64_t commands; /* that wait */
    struct ev_timer turn;
    bool soon;         /* `turn` comes with the loop's next one */
    unsigned given;    /* since the last `turn` */
    unsigned answered; /* by this worker itself, in this turn */
    struct ev_timer push;
};

/* Of all that are not given yet. */
static void record(struct worker *w, const struct part *p, uint64_t batch, enum command_event event, unsigned attempts)
{
    for (unsigned slot = bitmap_next(&p->slots, p->next); slot < BLOCK_SLOTS; slot = bitmap_next(&p->slots, slot + 1))
        acks_add(w->acks, &(struct ack){.batch = batch,
                                        .tenant = p->tenant,
                                        .seq = block_seq(p->block, slot),
                                        .event = (uint8_t)event,
                                        .attempts = (uint8_t)attempts});
}

static void part_free(struct part *p)
{
    value_part_free(&p->values);
    if (p->batch)
        batch_unref(p->routed->worker->batches, p->batch);
    free(p);
}

/* --- to the sessions ---------------------------------------------------------------------------------------------- */

/* Gives it to a device that was here when it was taken. Since then it may have got the command by being attached, and
 * may be done with it: to offer it would be to send it again. */
static bool offer(const struct part *p, unsigned slot)
{
    struct session *s = session_table_get(p->routed->worker->sessions, p->tenant, block_seq(p->block, slot));
    if (!s || !s->receiving)
        return false;
    if ((int32_t)(s->attach_take - p->take) < 0)
        session_offer(s, p->batch, value_part_get(p->values, slot));
    return true;
}

static void hand_back(const struct part *p)
{
    struct worker *w = p->routed->worker;
    if (p->any_gone)
        live_hand_back(w->live, (struct live_place){p->tenant, p->block, p->batch->id}, lease_number(w->lease),
                       &p->gone, NULL, NULL);
}

/* Gives at most `most`; true when that was all of it. */
static bool give(struct part *p, unsigned most)
{
    struct worker *w = p->routed->worker;
    unsigned slot = bitmap_next(&p->slots, p->next);
    for (; slot < BLOCK_SLOTS && most > 0; slot = bitmap_next(&p->slots, slot + 1), most--) {
        p->count--;
        if (offer(p, slot))
            continue;
        bitmap_set(&p->gone, slot);
        p->any_gone = true;
        w->stats.handed_back++;
    }
    p->next = (uint16_t)slot;
    if (slot < BLOCK_SLOTS)
        return false;
    hand_back(p);
    return true;
}

static struct part *next_part(struct routed *routed, uint32_t unanswered)
{
    for (unsigned class = 0; class < LIVE_CLASSES; class ++) {
        if (unanswered >= (class == LIVE_URGENT ? WINDOW_URGENT : WINDOW_OTHERS))
            continue;
        if (list_empty(&routed->waiting[class]))
            continue;
        struct part *p = container_of(routed->waiting[class].next, struct part, entry);
        if (list_empty(&routed->unknown[class]) ||
            p->order < container_of(routed->unknown[class].next, struct part, entry)->order)
            return p;
    }
    return NULL;
}

static void plan_turn(struct routed *routed, bool soon)
{
    routed->soon = soon;
    ev_timer_stop(routed->worker->loop, &routed->turn);
    ev_timer_set(&routed->turn, soon ? 0 : LOOK_AGAIN_S, 0);
    ev_timer_start(routed->worker->loop, &routed->turn);
}

static void give_some(struct routed *routed)
{
    struct worker *w = routed->worker;
    struct part *p;
    while (routed->given < GIVEN_PER_TURN && (p = next_part(routed, window_count(&w->window, clock_mono_us())))) {
        unsigned before = p->count;
        bool all = give(p, GIVEN_PER_TURN - routed->given);
        routed->commands -= before - p->count;
        routed->given += before - p->count;
        if (!all)
            break;
        list_remove(&p->entry);
        part_free(p);
    }
    if (routed->commands || routed->given)
        plan_turn(routed, routed->soon || routed->given >= GIVEN_PER_TURN);
}

static void on_turn(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)revents;
    struct routed *routed = timer->data;
    ev_timer_stop(loop, timer);
    routed->soon = false;
    routed->given = 0;
    give_some(routed);
}

void routed_continue(struct routed *routed)
{
    if (routed->commands && !routed->soon)
        plan_turn(routed, true);
}

/* --- answered by the worker itself -------------------------------------------------------------------------------- */

/* Where many were answered at once, the rest of their kind came with them: nothing is gained by collecting on. */
static void on_push(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct routed *routed = timer->data;
    (void)loop, (void)revents;
    if (routed->answered >= ANSWERED_MANY)
        acks_push(routed->worker->acks);
    routed->answered = 0;
}

static void answer(const struct part *p)
{
    struct routed *routed = p->routed;
    record(routed->worker, p, p->batch->id, EVENT_SUCCEED, 1);
    routed->answered += p->count;
    if (!ev_is_active(&routed->push)) {
        ev_timer_set(&routed->push, 0, 0);
        ev_timer_start(routed->worker->loop, &routed->push);
    }
}

/* --- from the inbox ----------------------------------------------------------------------------------------------- */

/* False when it comes again, or stands otherwise since: see workers/gates.h for the one, dispatcher/control.h for the
 * other. */
static bool may_go_on(const struct part *p)
{
    return p->batch->hold <= p->hold && !gates_closed(p->routed->worker->gates, p->tenant);
}

/* It is handed back, so that nobody takes it for sent should this worker die. */
static void forget_part(struct part *p)
{
    record(p->routed->worker, p, p->batch->id, EVENT_LOSE, 0);
    part_free(p);
}

/* Where it came in. */
static void wait_in_order(struct routed *routed, struct part *p)
{
    struct list *at = &routed->waiting[p->class];
    while (at->prev != &routed->waiting[p->class] && container_of(at->prev, struct part, entry)->order > p->order)
        at = at->prev;
    list_insert(at, &p->entry);
    routed->commands += p->count;
}

/* The batch, if it is not over, is known, and with it the values of its devices. */
static void part_known(struct part *p)
{
    struct routed *routed = p->routed;
    struct batch *batch = p->batch;
    list_remove(&p->entry);
    if (p->number != lease_number(routed->worker->lease)) {
        part_free(p);
        give_some(routed);
        return;
    }
    if (batch && !batch->canceled && !may_go_on(p)) {
        forget_part(p);
        give_some(routed);
        return;
    }
    if (batch && !batch->canceled && !routed->worker->options.answer_self) {
        wait_in_order(routed, p);
        give_some(routed);
        return;
    }
    if (batch && batch->canceled)
        record(routed->worker, p, batch->id, EVENT_LOSE, 0); /* a session may have it: see routed_cancel */
    else if (batch)
        answer(p);
    part_free(p);
    give_some(routed);
}

static void values_known(void *arg, const struct value_block *values, uint64_t unused)
{
    struct part *p = arg;
    (void)unused;
    if (values) {
        p->values = value_part_new(values, &p->slots);
    } else {
        batch_unref(p->routed->worker->batches, p->batch);
        p->batch = NULL;
    }
    part_known(p);
}

static void batch_known(void *arg, struct batch *batch, uint64_t a, uint64_t b)
{
    struct part *p = arg;
    (void)a, (void)b;
    p->batch = batch;
    if (batch && batch->fill && !batch->canceled)
        value_cache_get(p->routed->worker->values, batch, p->block, values_known, p, 0);
    else
        part_known(p);
}

void routed_add(struct routed *routed, const struct inbox_item *item, enum live_class class, uint32_t take)
{
    struct part *p = malloc(sizeof *p);
    if (!p) {
        log_error("out_of_memory", "where=routed");
        abort();
    }
    *p = (struct part){.routed = routed,
                       .tenant = item->tenant,
                       .block = item->block,
                       .hold = item->number,
                       .take = take,
                       .class = (uint8_t) class,
                       .order = ++routed->orders,
                       .number = lease_number(routed->worker->lease)};
    memcpy(p->slots.bytes, item->slots, sizeof p->slots.bytes);
    p->count = (uint16_t)bitmap_count(&p->slots);
    list_append(&routed->unknown[class], &p->entry);
    batch_cache_get(routed->worker->batches, item->batch, batch_known, p, 0, 0);
}

/* Only handed back: a hint that was given a second time may be of a command that a session here has sent, or has the
 * answer to. What is handed back the leader ends, once all of that is recorded. */
void routed_cancel(struct routed *routed, const struct batch *batch)
{
    for (unsigned class = 0; class < LIVE_CLASSES; class ++)
        list_for_each (e, next, &routed->waiting[class]) {
            struct part *p = container_of(e, struct part, entry);
            if (p->batch != batch)
                continue;
            list_remove(&p->entry);
            routed->commands -= p->count;
            record(routed->worker, p, batch->id, EVENT_LOSE, 0);
            hand_back(p);
            part_free(p);
        }
}

static void forget(struct part *p)
{
    list_remove(&p->entry);
    p->routed->commands -= p->count;
    hand_back(p);
    forget_part(p);
}

void routed_forget(struct routed *routed, const struct batch *batch)
{
    for (unsigned class = 0; class < LIVE_CLASSES; class ++)
        list_for_each (e, next, &routed->waiting[class]) {
            struct part *p = container_of(e, struct part, entry);
            if (p->batch == batch && !may_go_on(p))
                forget(p);
        }
}

void routed_forget_closed(struct routed *routed)
{
    for (unsigned class = 0; class < LIVE_CLASSES; class ++)
        list_for_each (e, next, &routed->waiting[class]) {
            struct part *p = container_of(e, struct part, entry);
            if (gates_closed(routed->worker->gates, p->tenant))
                forget(p);
        }
}

void routed_clear(struct routed *routed)
{
    for (unsigned class = 0; class < LIVE_CLASSES; class ++)
        for (struct list *e; (e = list_pop(&routed->waiting[class]));)
            part_free(container_of(e, struct part, entry));
    routed->commands = 0;
    routed->given = 0;
    ev_timer_stop(routed->worker->loop, &routed->turn);
}

uint64_t routed_waiting(const struct routed *routed)
{
    return routed->commands;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct routed *routed_new(struct worker *worker)
{
    struct routed *routed = calloc(1, sizeof *routed);
    if (!routed)
        return NULL;
    routed->worker = worker;
    for (unsigned class = 0; class < LIVE_CLASSES; class ++) {
        list_init(&routed->waiting[class]);
        list_init(&routed->unknown[class]);
    }
    ev_timer_init(&routed->turn, on_turn, 0, 0);
    routed->turn.data = routed;
    ev_timer_init(&routed->push, on_push, 0, 0);
    routed->push.data = routed;
    return routed;
}

void routed_free(struct routed **routed)
{
    struct routed *r = *routed;
    if (!r)
        return;
    routed_clear(r);
    ev_timer_stop(r->worker->loop, &r->push);
    free(r);
    *routed = NULL;
}
