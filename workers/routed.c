#include "workers/routed.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/base/turns.h"
#include "workers/acks.h"
#include "workers/batch_cache.h"
#include "workers/gates.h"
#include "workers/lately.h"
#include "workers/lease.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/share.h"
#include "workers/values.h"
#include "workers/window.h"
#include "workers/worker.h"

/* Devices that do not answer at once are sent to as the window forgets those before. */
#define LOOK_AGAIN_S  0.01
#define ANSWERED_MANY 256

/* What waits of one tenant. */
struct lane {
    struct turn turn;
    struct list parts; /* in the order in which they came: what came behind one whose batch or values are not known yet
                          waits, too */
};

/* Commands of one batch for devices of one block. */
struct part {
    struct list entry; /* of its lane, or alone */
    struct lane *lane; /* NULL: out of it */
    struct routed *routed;
    struct batch *batch;       /* referenced, once it is known */
    struct value_part *values; /* owned: of a batch that has some, once they are known */
    bool known;                /* all that is needed to give it is */
    uint32_t tenant, block;
    uint64_t hold;   /* number under which it was released; 0: it never was held */
    uint32_t take;   /* a session that was attached after it has got the command by that, or will */
    uint16_t number; /* of the worker, to which they were routed */
    uint16_t count;  /* that are not given yet */
    uint16_t next;   /* slot to go on with */
    uint8_t class;
    bool again; /* sent before: how often, being attached tells */
    bool any_gone;
    struct bitmap slots, gone; /* gone: to be handed back */
};

struct routed {
    struct worker *worker;
    struct turns lanes[LIVE_CLASSES]; /* by tenant */
    uint64_t commands;                /* that wait */
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

static void take_out(struct part *p)
{
    struct lane *lane = p->lane;
    if (!lane)
        return;
    list_remove(&p->entry);
    p->lane = NULL;
    p->routed->commands -= p->count;
    if (!list_empty(&lane->parts))
        return;
    turns_leave(&lane->turn);
    free(lane);
}

static void part_free(struct part *p)
{
    take_out(p);
    value_part_free(&p->values);
    if (p->batch)
        batch_unref(p->routed->worker->batches, p->batch);
    free(p);
}

static void no_memory(void)
{
    log_error("out_of_memory", "where=routed");
    abort();
}

/* Behind everything of its tenant. */
static void put_in(struct part *p)
{
    struct turns *lanes = &p->routed->lanes[p->class];
    struct turn *turn = turns_find(lanes, p->tenant);
    struct lane *lane = turn ? container_of(turn, struct lane, turn) : calloc(1, sizeof *lane);
    if (!lane)
        no_memory();
    if (!turn) {
        list_init(&lane->parts);
        turns_join(lanes, &lane->turn, p->tenant);
    }
    p->lane = lane;
    list_append(&lane->parts, &p->entry);
    p->routed->commands += p->count;
}

/* --- to the sessions ---------------------------------------------------------------------------------------------- */

/* Gives it to a device that was here when it was taken. Since then it may have got the command by being attached, and
 * may be done with it: to offer it would be to send it again. */
static bool offer(const struct part *p, unsigned slot)
{
    struct session *s = session_table_get(p->routed->worker->sessions, p->tenant, block_seq(p->block, slot));
    if (!s || !s->receiving)
        return false;
    if ((int32_t)(s->attach_take - p->take) < 0 && p->again)
        session_again(s);
    else if ((int32_t)(s->attach_take - p->take) < 0)
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
        p->routed->commands--;
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

static struct part *first_part(const struct turn *turn)
{
    return container_of(container_of(turn, struct lane, turn)->parts.next, struct part, entry);
}

static bool can_give(const void *arg, const struct turn *turn)
{
    (void)arg;
    return first_part(turn)->known;
}

static bool can_give_little(const void *arg, const struct turn *turn)
{
    return can_give(arg, turn) && lately_is_little(arg, turn->key);
}

/* Whose turn it is. */
static struct turn *next_turn(struct routed *routed, int64_t now_us)
{
    uint32_t unanswered = window_count(&routed->worker->window, now_us);
    for (unsigned class = 0; class < LIVE_CLASSES; class ++) {
        struct lately *lately = &routed->worker->lately[class != LIVE_URGENT];
        enum share share = share_now(class == LIVE_URGENT, unanswered, routed->given);
        struct turn *turn = NULL;
        lately_turn(lately, now_us);
        if (share == SHARE_ANYBODY)
            turn = turns_next(&routed->lanes[class], can_give, NULL);
        else if (share == SHARE_LITTLE_ONLY)
            turn = turns_next(&routed->lanes[class], can_give_little, lately);
        if (turn)
            return turn;
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
    struct turn *turn;
    while ((turn = next_turn(routed, clock_mono_us())) != NULL) {
        struct part *p = first_part(turn);
        unsigned before = p->count;
        bool all = give(p, share_most(routed->given));
        unsigned given = before - p->count;
        routed->given += given;
        turns_spend(&routed->lanes[p->class], turn, given);
        if (all)
            part_free(p);
    }
    if (routed->commands || routed->given)
        plan_turn(routed, routed->soon || routed->given >= SHARE_PER_TURN);
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

/* What becomes of it now that its batch is known, or over. Of a canceled one a session may have it: see routed_cancel.
 */
static void settle(struct part *p)
{
    struct worker *w = p->routed->worker;
    if (!p->batch || p->number != lease_number(w->lease)) {
        part_free(p);
    } else if (p->batch->canceled || !may_go_on(p)) {
        forget_part(p);
    } else if (w->options.answer_self) {
        answer(p);
        part_free(p);
    }
}

/* The batch, if it is not over, is known, and with it the values of its devices. */
static void part_known(struct part *p)
{
    struct routed *routed = p->routed;
    p->known = true;
    settle(p);
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
    if (!p)
        no_memory();
    *p = (struct part){.routed = routed,
                       .tenant = item->tenant,
                       .block = item->block,
                       .hold = item->number,
                       .take = take,
                       .class = (uint8_t) class,
                       .again = item->kind == INBOX_AGAIN,
                       .number = lease_number(routed->worker->lease)};
    memcpy(p->slots.bytes, item->slots, sizeof p->slots.bytes);
    p->count = (uint16_t)bitmap_count(&p->slots);
    put_in(p);
    batch_cache_get(routed->worker->batches, item->batch, batch_known, p, 0, 0);
}

/* Only handed back: a hint that was given a second time may be of a command that a session here has sent, or has the
 * answer to. What is handed back the leader ends, once all of that is recorded. */
static void go_back(struct part *p)
{
    hand_back(p);
    forget_part(p);
}

/* Calls `each` for what waits and is known; it may free it. The rest sees when it is known how it stands then. */
static void each_known(struct routed *routed, void (*each)(struct part *p, const void *arg), const void *arg)
{
    for (unsigned class = 0; class < LIVE_CLASSES; class ++)
        for (struct turn *t = turns_first(&routed->lanes[class]), *after; t; t = after) {
            struct lane *lane = container_of(t, struct lane, turn);
            after = turns_after(&routed->lanes[class], t);
            for (struct list *l = lane->parts.next, *next, *end = &lane->parts; l != end; l = next) {
                struct part *p = container_of(l, struct part, entry);
                next = l->next; /* the lane goes with its last part */
                if (p->known)
                    each(p, arg);
            }
        }
}

static void cancel_part(struct part *p, const void *batch)
{
    if (p->batch == batch)
        go_back(p);
}

void routed_cancel(struct routed *routed, const struct batch *batch)
{
    each_known(routed, cancel_part, batch);
}

static void hold_part(struct part *p, const void *batch)
{
    if (p->batch == batch && !may_go_on(p))
        go_back(p);
}

void routed_forget(struct routed *routed, const struct batch *batch)
{
    each_known(routed, hold_part, batch);
}

static void close_part(struct part *p, const void *arg)
{
    (void)arg;
    if (gates_closed(p->routed->worker->gates, p->tenant))
        go_back(p);
}

void routed_forget_closed(struct routed *routed)
{
    each_known(routed, close_part, NULL);
}

static void clear_part(struct part *p, const void *arg)
{
    (void)arg;
    part_free(p);
}

/* Those whose batch is still being looked up see then that they are too late. */
void routed_clear(struct routed *routed)
{
    each_known(routed, clear_part, NULL);
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
    for (unsigned class = 0; class < LIVE_CLASSES; class ++)
        turns_init(&routed->lanes[class], SHARE_PER_TURN);
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
