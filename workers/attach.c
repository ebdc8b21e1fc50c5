#include "workers/attach.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/live.h"
#include "proto/inbox.h"
#include "workers/acks.h"
#include "workers/batch_cache.h"
#include "workers/lease.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/strays.h"
#include "workers/values.h"
#include "workers/worker.h"

#define COLLECT_MS     3 /* devices come in crowds: one script a block for all of them */
#define RETRY_MS       100
#define SLOTS_PER_CALL 256 /* bounds one script's time with many batches open */
/* Scripts under way. A fleet that connects faster than Redis attaches it must not stand in front of everything else
 * there, the renewal of leases first of all; those who wait come together then, more of them in each script. */
#define CALLS_MAX 8
/* Changes noted until it is looked whether they are of fewer devices. */
#define THIN_MIN 65536

/* Changes are only noted here; whether a device is attached or detached is decided by the table when they are carried
 * out, so that the last state wins however often it came and went. */
struct attach {
    struct worker *worker;
    struct buf changed; /* uint64_t tenant << 32 | seq */
    struct buf run;     /* the same in order: those being carried out, from the `next`th on */
    size_t next;
    size_t thin_at; /* entries of `changed` */
    struct ev_timer timer;
    unsigned under_way;
    uint16_t former;     /* of the worker, until what had changed under it is carried out */
    uint16_t run_former; /* the same of the run */
    uint16_t own_former; /* the last one ever had */
    void (*settled)(void *arg);
    void *settled_arg;
};

struct call {
    struct attach *attach;
    uint32_t tenant, block;
    bool adding;
    uint16_t number, former;
    unsigned most;  /* commands for one slot */
    uint32_t holds; /* w->holds, and how many batches had been loaded, when it was sent */
    uint32_t loads;
    size_t count;
    uint16_t slots[SLOTS_PER_CALL];
    uint32_t generations[SLOTS_PER_CALL]; /* of the sessions that are attached */
};

static void carry_out(struct attach *attach);

static void schedule(struct attach *attach, int ms)
{
    if (ev_is_active(&attach->timer))
        return;
    ev_timer_set(&attach->timer, ms / 1000.0, 0);
    ev_timer_start(attach->worker->loop, &attach->timer);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    carry_out(w->data);
}

struct attach *attach_new(struct worker *worker)
{
    struct attach *attach = calloc(1, sizeof *attach);
    if (!attach)
        return NULL;
    attach->worker = worker;
    attach->thin_at = THIN_MIN;
    ev_timer_init(&attach->timer, on_timer, 0, 0);
    attach->timer.data = attach;
    return attach;
}

void attach_free(struct attach **attach)
{
    if (!*attach)
        return;
    ev_timer_stop((*attach)->worker->loop, &(*attach)->timer);
    buf_free(&(*attach)->changed);
    buf_free(&(*attach)->run);
    free(*attach);
    *attach = NULL;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Each device once: who comes and goes while Redis is away is noted again and again. */
static void thin_out(struct attach *attach)
{
    uint64_t *keys = (uint64_t *)(void *)buf_head(&attach->changed);
    size_t n = buf_len(&attach->changed) / sizeof *keys, kept = 1;
    qsort(keys, n, sizeof *keys, compare);
    for (size_t i = 1; i < n; i++)
        if (keys[i] != keys[kept - 1])
            keys[kept++] = keys[i];
    attach->changed.end -= (n - kept) * sizeof *keys;
    attach->thin_at = 2 * kept > THIN_MIN ? 2 * kept : THIN_MIN;
}

static void note(struct attach *attach, uint32_t tenant, uint32_t seq)
{
    uint64_t key = (uint64_t)tenant << 32 | seq;
    buf_put(&attach->changed, &key, sizeof key);
    if (buf_len(&attach->changed) / sizeof key > attach->thin_at)
        thin_out(attach);
    if (attach->changed.failed) {
        log_error("out_of_memory", "where=attach");
        abort();
    }
}

void attach_change(struct attach *attach, uint32_t tenant, uint32_t seq)
{
    note(attach, tenant, seq);
    schedule(attach, COLLECT_MS);
}

static void note_session(void *arg, struct session *s)
{
    s->settling = s->receiving;
    note(arg, s->tenant, s->seq);
}

void attach_all(struct attach *attach)
{
    session_table_each(attach->worker->sessions, note_session, attach);
    schedule(attach, COLLECT_MS);
}

static bool run_over(const struct attach *attach)
{
    return attach->next == buf_len(&attach->run) / sizeof(uint64_t);
}

void attach_fenced(struct attach *attach, uint16_t former)
{
    const uint64_t *keys = (const uint64_t *)(void *)buf_head(&attach->run);
    for (size_t n = buf_len(&attach->run) / sizeof *keys; attach->next < n; attach->next++)
        note(attach, (uint32_t)(keys[attach->next] >> 32), (uint32_t)keys[attach->next]);
    attach->former = attach->own_former = former;
}

static void check_settled(struct attach *attach)
{
    bool waiting = buf_len(&attach->changed) || !run_over(attach);
    if (!attach->settled || attach->under_way ||
        (waiting && live_up(attach->worker->live) && !attach->worker->unvouched))
        return;
    void (*fn)(void *) = attach->settled;
    attach->settled = NULL;
    fn(attach->settled_arg);
}

void attach_settle(struct attach *attach, void (*fn)(void *arg), void *arg)
{
    attach->settled = fn;
    attach->settled_arg = arg;
    carry_out(attach);
    check_settled(attach);
}

/* --- what Redis answers ------------------------------------------------------------------------------------------- */

/* What an answer gives to the sessions, in order: all together once every batch is known, since one that is loaded
 * later than the next would be overtaken by it. */
struct gifts {
    struct worker *worker;
    uint16_t number; /* the worker's, for which they are */
    uint32_t tenant, block;
    uint32_t holds, loads; /* of the call, when they were asked for */
    size_t count, unknown; /* unknown: batches not looked up yet, and one until all are asked for */
    /* The sessions attached, whether or not there is something for them: they are settled then. */
    size_t settled_count;
    struct settled {
        uint32_t seq, generation;
    } * settled;
    struct gift {
        struct batch *batch;       /* referenced, or NULL: over */
        struct value_part *values; /* owned: of a batch that has some */
        uint64_t id;
        uint32_t seq;
        uint8_t state; /* before it was given */
    } v[];
};

/* One that has come since is attached by a call of its own. */
static void settle_all(const struct gifts *g)
{
    for (size_t i = 0; i < g->settled_count; i++) {
        struct session *s =
            session_table_still(g->worker->sessions, g->tenant, g->settled[i].seq, g->settled[i].generation);
        if (s && g->number == lease_number(g->worker->lease))
            session_settled(s);
    }
}

/* It is attached once more, and settled only then. */
static void ask_again(struct gifts *g, struct session *s)
{
    session_again(s);
    for (size_t i = 0; i < g->settled_count; i++)
        if (g->settled[i].seq == s->seq)
            g->settled[i].generation = 0;
}

static void give_all(struct gifts *g)
{
    uint64_t asked = UINT64_MAX; /* the device that is attached once more: what it was given comes together */
    if (--g->unknown > 0)
        return;
    for (size_t i = 0; i < g->count; i++) {
        struct batch *batch = g->v[i].batch;
        struct session *s = session_table_get(g->worker->sessions, g->tenant, g->v[i].seq);
        bool ours = g->number == lease_number(g->worker->lease);
        /* Not over, but not to be read while Redis is away: what is behind it does not overtake it. */
        if (!batch && s && ours && !live_up(g->worker->live) && asked != s->seq) {
            ask_again(g, s);
            asked = s->seq;
        }
        if (!batch)
            continue;
        /* Held after Redis had given it, perhaps before this worker was there to be told, and let go again before the
         * batch was read: how it stands now Redis must say. */
        bool read_since = (int32_t)(batch->loaded - g->loads) > 0;
        bool stale = batch->hold && (g->holds != g->worker->holds || read_since);
        if (s && ours && stale && asked != s->seq) {
            ask_again(g, s);
            asked = s->seq;
        } else if (s && ours && asked != s->seq)
            session_hold(s, batch, g->v[i].state, value_part_get(g->v[i].values, slot_of(g->v[i].seq)));
        value_part_free(&g->v[i].values);
        batch_unref(g->worker->batches, batch);
    }
    settle_all(g);
    free(g->settled);
    free(g);
}

static void found_values(void *arg, const struct value_block *values, uint64_t i)
{
    struct gifts *g = arg;
    struct bitmap slot = {{0}};
    if (values) {
        bitmap_set(&slot, slot_of(g->v[i].seq));
        g->v[i].values = value_part_new(values, &slot);
    } else {
        batch_unref(g->worker->batches, g->v[i].batch);
        g->v[i].batch = NULL;
    }
    give_all(g);
}

static void found(void *arg, struct batch *batch, uint64_t i, uint64_t unused)
{
    struct gifts *g = arg;
    (void)unused;
    g->v[i].batch = batch;
    if (batch && batch->fill)
        value_cache_get(g->worker->values, batch, g->block, found_values, g, i);
    else
        give_all(g);
}

/* What was in another worker's hands counts as sent, as the script has it. */
static uint8_t attempts_before(uint8_t state, uint16_t previous, uint16_t number)
{
    unsigned attempts = state_attempts(state);
    bool forsaken = state_of(state) == STATE_ROUTED && previous && previous != number;
    return (uint8_t)(forsaken && !attempts ? 1 : attempts);
}

static struct gifts *gifts_new(const struct call *call, const struct live_attached *slots, size_t count)
{
    struct worker *w = call->attach->worker;
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += slots[i].count;
    struct gifts *g = calloc(1, sizeof *g + n * sizeof *g->v);
    struct settled *settled = malloc((count + 1) * sizeof *settled);
    if (!g || !settled) {
        log_error("out_of_memory", "where=attach");
        abort();
    }
    *g = (struct gifts){.worker = w,
                        .number = call->number,
                        .tenant = call->tenant,
                        .block = call->block,
                        .holds = call->holds,
                        .loads = call->loads,
                        .unknown = n + 1,
                        .settled_count = count,
                        .settled = settled};
    for (size_t i = 0; i < count; i++)
        settled[i] = (struct settled){block_seq(call->block, slots[i].slot), call->generations[i]};
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < slots[i].count; k++)
            g->v[g->count++] = (struct gift){
                .id = slots[i].pending[k].batch,
                .seq = block_seq(call->block, slots[i].slot),
                .state = state_byte(state_of(slots[i].pending[k].state),
                                    attempts_before(slots[i].pending[k].state, slots[i].previous, call->number))};
    return g;
}

static void give(struct gifts *g)
{
    for (size_t i = 0, n = g->count; i < n; i++)
        batch_cache_get(g->worker->batches, g->v[i].id, found, g, i, 0);
    give_all(g);
}

static void tell_previous(struct worker *w, uint16_t previous, uint32_t tenant, uint32_t seq)
{
    struct buf item = {0};
    inbox_put(&item, &(struct inbox_item){.kind = INBOX_TAKEOVER, .tenant = tenant, .seq = seq});
    if (!item.failed)
        live_inbox_push(w->live, previous, LIVE_URGENT, buf_slice(&item), NULL, NULL);
    buf_free(&item);
}

static void finish(struct call *call, enum err err)
{
    struct attach *attach = call->attach;
    attach->under_way--;
    if (err) {
        if (call->former)
            attach->former = call->former;
        for (size_t i = 0; i < call->count; i++) {
            note(attach, call->tenant, block_seq(call->block, call->slots[i]));
            if (call->adding)
                strays_unsure(attach->worker->strays, call->tenant, block_seq(call->block, call->slots[i]));
        }
        schedule(attach, RETRY_MS);
    }
    free(call);
    if (!err && !run_over(attach))
        carry_out(attach);
    if (run_over(attach) && buf_len(&attach->changed) == 0 && !attach->under_way)
        strays_settled(attach->worker->strays);
    check_settled(attach);
}

static void attached(void *arg, enum err err, const struct live_attached *slots, size_t count)
{
    struct call *call = arg;
    struct worker *w = call->attach->worker;
    for (size_t i = 0; !err && i < count; i++) {
        uint32_t seq = block_seq(call->block, slots[i].slot);
        struct session *s = session_table_get(w->sessions, call->tenant, seq);
        uint16_t previous = slots[i].previous;
        if (previous && previous != call->number && previous != call->attach->own_former)
            tell_previous(w, previous, call->tenant, seq);
        if (s && call->number == lease_number(w->lease))
            session_attached(s, slots[i].count, call->most);
    }
    if (!err && call->number == lease_number(w->lease))
        give(gifts_new(call, slots, count));
    finish(call, err);
}

static void detached(void *arg, enum err err)
{
    finish(arg, err);
}

/* --- carrying out ------------------------------------------------------------------------------------------------- */

static void send_call(struct call *call)
{
    struct worker *w = call->attach->worker;
    uint16_t number = lease_number(w->lease);
    call->number = number;
    call->attach->under_way++;
    call->holds = w->holds;
    call->loads = batch_cache_loads(w->batches);
    if (!call->adding) {
        /* What is recorded of a session goes before its end: that it was sent something, first of all. */
        call->former = call->attach->run_former;
        if (!acks_push(w->acks)) {
            finish(call, ERR_LIMIT);
            return;
        }
        if (call->former)
            live_detach(w->live, call->tenant, call->block, call->former, call->slots, call->count, NULL, NULL);
    }
    if (call->adding)
        live_attach(w->live, call->tenant, call->block, number, call->slots, call->count, call->most, attached, call);
    else
        live_detach(w->live, call->tenant, call->block, number, call->slots, call->count, detached, call);
}

/* Adds a slot to the call it belongs to, with the session that comes or NULL for one that goes; sends a full one, or
 * one of another block. Returns the call now open. */
static struct call *add_to_call(struct attach *attach, struct call *call, uint64_t key, const struct session *coming)
{
    uint32_t tenant = (uint32_t)(key >> 32), seq = (uint32_t)key;
    if (call && (call->tenant != tenant || call->block != block_of(seq) || call->count == SLOTS_PER_CALL)) {
        send_call(call);
        call = NULL;
    }
    if (!call && !(call = calloc(1, sizeof *call))) {
        log_error("out_of_memory", "where=attach");
        abort();
    }
    call->attach = attach;
    call->tenant = tenant;
    call->block = block_of(seq);
    call->adding = coming != NULL;
    if (coming && session_wants(coming) > call->most)
        call->most = session_wants(coming);
    call->generations[call->count] = coming ? coming->generation : 0;
    call->slots[call->count++] = slot_of(seq);
    return call;
}

/* All of the next block in the run. */
static void carry_block(struct attach *attach)
{
    const uint64_t *keys = (const uint64_t *)(void *)buf_head(&attach->run);
    size_t n = buf_len(&attach->run) / sizeof *keys, first = attach->next;
    struct call *adding = NULL, *removing = NULL;
    for (; attach->next < n; attach->next++) {
        uint64_t key = keys[attach->next];
        if (attach->next > first && key == keys[attach->next - 1])
            continue;
        if (key >> 32 != keys[first] >> 32 || block_of((uint32_t)key) != block_of((uint32_t)keys[first]))
            break;
        struct session *s = session_table_get(attach->worker->sessions, (uint32_t)(key >> 32), (uint32_t)key);
        bool there = s && s->receiving;
        if (there) {
            s->attach_take = attach->worker->takes;
            session_asks(s);
        }
        struct call *call = add_to_call(attach, there ? adding : removing, key, there ? s : NULL);
        owned(call);
        *(there ? &adding : &removing) = call;
    }
    if (adding)
        send_call(adding);
    if (removing)
        send_call(removing);
}

static void carry_out(struct attach *attach)
{
    if (run_over(attach) && buf_len(&attach->changed) == 0)
        return;
    if (lease_number(attach->worker->lease) == 0 || !lease_holds(attach->worker->lease) ||
        !live_up(attach->worker->live) || attach->worker->unvouched) {
        schedule(attach, RETRY_MS);
        check_settled(attach);
        return;
    }
    if (run_over(attach)) {
        buf_free(&attach->run);
        attach->run = attach->changed;
        attach->changed = (struct buf){0};
        attach->next = 0;
        attach->run_former = attach->former;
        attach->former = 0;
        qsort(buf_head(&attach->run), buf_len(&attach->run) / sizeof(uint64_t), sizeof(uint64_t), compare);
    }
    strays_mark(attach->worker->strays);
    while (attach->under_way < CALLS_MAX && !run_over(attach))
        carry_block(attach);
    if (run_over(attach) && buf_len(&attach->changed))
        schedule(attach, COLLECT_MS);
}
