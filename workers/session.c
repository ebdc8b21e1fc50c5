#include "workers/session.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_clock.h"
#include "lib/store/state.h"
#include "workers/acks.h"
#include "workers/answer.h"
#include "workers/attach.h"
#include "workers/batch_cache.h"
#include "workers/broken.h"
#include "workers/gates.h"
#include "workers/lease.h"
#include "workers/routed.h"
#include "workers/seen.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define URGENT     1                     /* muster.v1.Priority */
#define HOUR_US    (60 * 60 * 1000000ll) /* sent_us tells one from the next, but not more */
#define LOOK_S_MAX 30

/* --- what it holds ------------------------------------------------------------------------------------------------ */

static struct held *held_find(struct session *s, uint64_t batch)
{
    for (unsigned i = 0; i < s->held_count; i++)
        if (s->held[i].batch->id == batch)
            return &s->held[i];
    return NULL;
}

/* Packed values of one device, in its command. */
struct held_value {
    uint16_t len;
    uint8_t bytes[];
};

/* False without memory. */
static bool value_copy(struct held_value **out, struct slice values)
{
    *out = values.len ? malloc(sizeof **out + values.len) : NULL;
    if (!*out)
        return values.len == 0;
    (*out)->len = (uint16_t)values.len;
    memcpy((*out)->bytes, values.data, values.len);
    return true;
}

static struct slice value_of(const struct held *h)
{
    return h->value ? (struct slice){h->value->bytes, h->value->len} : (struct slice){0};
}

static void value_free(struct held *h)
{
    if (h->value)
        explicit_bzero(h->value->bytes, h->value->len);
    free(h->value);
}

static void held_free(struct session *s)
{
    struct held *held = s->held;
    size_t size = s->held_room * sizeof *held;
    s->held = NULL;
    s->held_room = 0;
    pool_give(&s->worker->held_pool, held, size);
}

static bool held_grow(struct session *s)
{
    unsigned room = s->held_room == 0 ? 1 : s->held_room == 1 ? 8 : s->held_room * 2u;
    struct held *held = pool_take(&s->worker->held_pool, room * sizeof *held);
    if (!held)
        return false;
    if (s->held)
        memcpy(held, s->held, s->held_count * sizeof *held);
    held_free(s);
    s->held = held;
    s->held_room = (uint16_t)room;
    return true;
}

/* Behind everything of the same or a lower rank; what is in flight stays where it is, in front. */
static bool held_insert(struct session *s, struct batch *batch, unsigned attempts, struct slice values)
{
    struct held held = {.batch = batch, .attempts = (uint8_t)attempts};
    if (!value_copy(&held.value, values))
        return false;
    if (s->held_count == s->held_room && !held_grow(s)) {
        value_free(&held);
        return false;
    }
    unsigned at = s->held_count;
    while (at > 0 && s->held[at - 1].phase == HELD_WAITING && batch_rank(s->held[at - 1].batch) > batch_rank(batch))
        at--;
    memmove(&s->held[at + 1], &s->held[at], (s->held_count - at) * sizeof *s->held);
    s->held[at] = held;
    s->held_count++;
    s->worker->held++;
    return true;
}

/* Neither in flight nor in its hands any more; what is put off was before. */
static void put_down(struct session *s, const struct held *h)
{
    if (held_is_out(h) && !h->passed)
        s->in_flight--;
    if (h->phase != HELD_PUT_OFF)
        s->worker->held--;
}

static void held_remove(struct session *s, struct held *h)
{
    size_t at = (size_t)(h - s->held);
    put_down(s, h);
    batch_unref(s->worker->batches, h->batch);
    value_free(h);
    memmove(h, h + 1, (s->held_count - at - 1u) * sizeof *h);
    s->held_count--;
    if (s->held_count == 0)
        held_free(s);
}

static void record(struct session *s, const struct held *h, enum command_event event)
{
    struct ack ack = {
        .batch = h->batch->id, .tenant = s->tenant, .seq = s->seq, .event = (uint8_t)event, .attempts = h->attempts};
    acks_add(s->worker->acks, &ack);
}

static void record_sent(struct session *s, struct held *h)
{
    if (h->phase != HELD_SENT || h->recorded)
        return;
    h->recorded = true;
    record(s, h, EVENT_SEND);
}

/* --- opening and closing ------------------------------------------------------------------------------------------ */

bool session_open(struct session *s)
{
    struct worker *w = s->worker;
    struct session *old = session_table_get(w->sessions, s->tenant, s->seq);
    if (old) {
        broken_connection(old);
        session_close(old);
        old->transport->close(old, SESSION_TAKEN_OVER);
        w->stats.taken_over++;
    }
    if (!session_table_put(w->sessions, s))
        return false;
    s->generation = ++w->generations ? w->generations : ++w->generations;
    s->open = true;
    if (w->seen)
        seen_mark(w->seen, s->tenant, s->seq);
    return true;
}

static void let_go(struct session *s)
{
    while (s->held_count > 0) {
        struct held *h = &s->held[s->held_count - 1];
        /* So that its attempts count; once more, for Redis may have been lost since. What was passed may be on its way
         * to be tried again. */
        if (h->phase == HELD_SENT && !h->passed)
            record(s, h, EVENT_SEND);
        held_remove(s, h);
    }
}

void session_again(struct session *s)
{
    s->settling = s->receiving;
    attach_change(s->worker->attach, s->tenant, s->seq);
}

void session_receive(struct session *s, bool receiving)
{
    if (!receiving)
        let_go(s);
    s->receiving = receiving;
    s->more = s->asked = s->put_off = s->starved = false;
    session_again(s);
}

void session_close(struct session *s)
{
    if (!s->open)
        return;
    s->open = false;
    let_go(s);
    session_table_remove(s->worker->sessions, s);
    if (s->receiving)
        attach_change(s->worker->attach, s->tenant, s->seq);
}

void session_forget(struct session *s)
{
    for (unsigned i = s->held_count; i-- > 0;) {
        struct held *h = &s->held[i];
        if (held_is_out(h))
            record_sent(s, h);
        else
            held_remove(s, h);
    }
    s->more = s->asked = s->put_off = s->starved = false;
    s->settling = s->receiving;
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

/* The device can't be sent it at all: it ends here, with the reason as its result. */
static void reject(struct session *s, const struct held *h, const char *why)
{
    struct acknowledgement said = {.text = {(const uint8_t *)why, strlen(why)}};
    struct ack ack = {.batch = h->batch->id, .tenant = s->tenant, .seq = s->seq, .event = EVENT_REJECT};
    struct buf result = {0};
    acknowledgement_put_result(&result, &said);
    if (result.failed)
        acks_add(s->worker->acks, &ack);
    else
        acks_add_result(s->worker->acks, &ack, buf_slice(&result), (struct slice){NULL, 0});
    buf_free(&result);
}

/* Since it was accepted; by the clock of another machine. */
static int64_t age_us(const struct batch *batch)
{
    int64_t ms, us;
    bool absurd =
        __builtin_sub_overflow(clock_wall_ms(), batch->created_ms, &ms) || __builtin_mul_overflow(ms, 1000, &us);
    return absurd ? 0 : us;
}

static int64_t sent_ago_us(const struct held *h, int64_t now_us)
{
    return (uint32_t)((uint32_t)now_us - h->sent_us) + h->hours * HOUR_US;
}

/* Within which it must be answered to keep others back; 0: it may take as long as it likes. */
static int64_t limit_us(const struct batch *batch)
{
    int64_t ms = batch->execution_ms ? batch->execution_ms : batch->head_ms;
    return ms > INT64_MAX / 1000 ? 0 : ms * 1000;
}

/* A second late where it ends then, else a tenth of its time. */
static void look_for(struct worker *w, const struct batch *batch)
{
    int64_t limit = limit_us(batch), s = batch->execution_ms ? 1 : limit / 10000000;
    if (!limit)
        return;
    s = s < 1 ? 1 : s > LOOK_S_MAX ? LOOK_S_MAX : s;
    if (!w->look_s || s < w->look_s)
        w->look_s = (uint32_t)s;
}

/* False when the device cannot take it. */
static bool send_held(struct session *s, struct held *h, int64_t now_us)
{
    struct worker *w = s->worker;
    struct command_id id = {h->batch->id, s->tenant, s->seq};
    unsigned attempt = h->attempts < STATE_ATTEMPTS_MAX ? h->attempts + 1u : STATE_ATTEMPTS_MAX;
    const char *wrong = s->transport->deliver(s, h->batch, &id, attempt, value_of(h));
    if (wrong) {
        reject(s, h, wrong);
        return false;
    }
    h->attempts = (uint8_t)attempt;
    if (attempt == 1)
        histogram_add(&w->stats.submit_push_us, age_us(h->batch));
    h->phase = HELD_SENT;
    struct lately *lately = &w->lately[h->batch->priority > URGENT];
    lately_turn(lately, now_us);
    if (lately_is_little(lately, s->tenant))
        s->transport->hurry(s);
    lately_add(lately, s->tenant);
    look_for(w, h->batch);
    h->sent_us = (uint32_t)now_us;
    h->hours = 0;
    if (s->put_off)
        record_sent(s, h); /* a hint may be of what it has put off and forgotten: nobody knows that it has it */
    s->in_flight++;
    w->stats.pushed++;
    window_sent(&w->window, now_us);
    worker_watch_sent(w, s, h->batch->id, (uint32_t)(now_us / 1000));
    return true;
}

static bool holds_unpassed(const struct session *s)
{
    for (unsigned i = 0; i < s->held_count; i++)
        if (!s->held[i].passed)
            return true;
    return false;
}

static bool holds_passed(const struct session *s)
{
    for (unsigned i = 0; i < s->held_count; i++)
        if (s->held[i].passed)
            return true;
    return false;
}

/* When all it holds is done, or keeps nothing back. What it has put off would be given again first: with that it asks
 * when its time has come, and for as much as it can hold, so that what is behind is not forgotten. */
static void ask_for_more(struct session *s)
{
    if (!s->more || s->asked || s->put_off || holds_unpassed(s) || s->held_count >= SESSION_HELD_MAX ||
        gates_closed(s->worker->gates, s->tenant))
        return;
    s->asked = true;
    session_again(s);
}

/* It is attached again after a while, however often this is asked for. */
static void come_back(struct session *s)
{
    if (!s->later)
        worker_retry_later(s->worker, s);
    s->later = true;
}

/* What waits here was not sent, at least not by this worker: it is handed back. What another worker has sent, and may
 * not have told yet a Redis that was lost, only the leader knows to wait for: it ends what is canceled, or was not sent
 * in its time. */
static void end_unsent(struct session *s, const struct held *h)
{
    record(s, h, EVENT_LOSE);
    if (!h->batch->canceled)
        come_back(s);
}

/* Its time has passed. Then it has for good, also when the clock is set back: what was ended for that may still come
 * out of an inbox, or be given by an attach that was ahead of its end. */
static bool is_past(const struct held *h, int64_t wall_ms)
{
    struct batch *batch = h->batch;
    if (wall_ms > batch->looked_ms)
        batch->looked_ms = wall_ms;
    return batch->looked_ms >= batch->expires_ms || (!h->attempts && batch->looked_ms >= batch->deliver_by_ms);
}

/* Its outcome did not come in its time: what is behind it goes on. Where it ends then it is forgotten, else it stays:
 * its outcome may still come, and it is not to be sent again. False when it has time. */
static bool pass(struct session *s, struct held *h, int64_t now_us)
{
    int64_t limit = limit_us(h->batch);
    if (h->phase != HELD_SENT || h->passed || !limit || sent_ago_us(h, now_us) < limit)
        return false;
    record_sent(s, h);
    if (h->batch->execution_ms) {
        held_remove(s, h);
        return true;
    }
    h->passed = true;
    s->in_flight--;
    return true;
}

/* The first of them. */
static bool pass_overtime(struct session *s, int64_t now_us)
{
    for (unsigned i = 0; i < s->held_count; i++)
        if (pass(s, &s->held[i], now_us))
            return true;
    return false;
}

/* Whether as much is in flight as may be. What is urgent need not wait until answers that are here are durable, too. */
static bool is_full(const struct session *s, const struct batch *batch)
{
    unsigned unanswered = 0;
    if (s->in_flight < s->in_flight_max)
        return false;
    for (unsigned i = 0; batch->priority <= URGENT && i < s->held_count; i++)
        unanswered += s->held[i].phase == HELD_SENT && !s->held[i].passed;
    return batch->priority > URGENT || unanswered >= s->in_flight_max;
}

void session_look(struct session *s, int64_t now_us)
{
    for (unsigned i = 0; i < s->held_count; i++) {
        struct held *h = &s->held[i];
        if (h->phase == HELD_SENT && (uint32_t)now_us - h->sent_us >= HOUR_US && h->hours < UINT8_MAX) {
            h->sent_us += (uint32_t)HOUR_US;
            h->hours++;
        }
    }
    if (s->held_count > s->in_flight || s->more)
        session_pump(s);
}

/* The lease holds, and all is known that could forbid it. */
static bool may_send(const struct worker *w, int64_t now_us)
{
    return lease_holds_at(w->lease, now_us) && gates_known(w->gates);
}

void session_pump(struct session *s)
{
    int64_t now_us = 0, wall = 0;
    if (s->settling)
        return;
    for (unsigned i = 0; i < s->held_count && s->open;) {
        struct held *h = &s->held[i];
        if (h->phase != HELD_WAITING) {
            i++;
            continue;
        }
        if (wall == 0) {
            wall = db_clock_ms(s->worker->clock);
            now_us = clock_mono_us();
        }
        if (h->batch->canceled || is_past(h, wall)) {
            end_unsent(s, h);
            held_remove(s, h);
            continue;
        }
        if (is_full(s, h->batch) && pass_overtime(s, now_us)) {
            i = 0; /* places have moved */
            continue;
        }
        if (is_full(s, h->batch)) {
            if (h->batch->priority <= URGENT)
                s->transport->hurry(s); /* what it waits for may itself wait to leave, behind what others get */
            return;
        }
        if (!may_send(s->worker, now_us))
            return;
        if (send_held(s, h, now_us))
            i++;
        else
            held_remove(s, h);
    }
    if (!s->open)
        return;
    /* What is behind in Redis waits for what is unanswered like what is here. */
    if (s->more && s->held_count)
        while (pass_overtime(s, clock_mono_us()))
            ;
    ask_for_more(s);
}

unsigned session_wants(const struct session *s)
{
    return s->put_off || holds_passed(s) ? SESSION_HELD_MAX : SESSION_GIVEN_MAX;
}

void session_asks(struct session *s)
{
    for (unsigned i = 0; i < s->held_count; i++)
        s->held[i].asked = !held_is_out(&s->held[i]);
}

static struct held *find_put_off(struct session *s)
{
    for (unsigned i = 0; i < s->held_count; i++)
        if (s->held[i].phase == HELD_PUT_OFF)
            return &s->held[i];
    return NULL;
}

void session_attached(struct session *s, size_t given, unsigned wanted)
{
    s->more = given >= wanted;
    /* What it had put off, or had waiting, comes with this, or is over: a hint may have come late. What came in the
     * meantime may be behind what is not given yet: it comes again in its turn. */
    for (unsigned i = s->held_count; i-- > 0;) {
        struct held *h = &s->held[i];
        if (!held_is_out(h) && (h->asked || (h->phase == HELD_WAITING && s->more)))
            held_remove(s, h);
    }
    s->put_off = find_put_off(s) != NULL;
    s->asked = s->starved = false;
}

/* The last that waits, if it comes after `batch`: Redis gives it again in its turn. */
static struct held *find_later(struct session *s, const struct batch *batch)
{
    for (unsigned i = s->held_count; i-- > 0 && batch_rank(s->held[i].batch) > batch_rank(batch);)
        if (s->held[i].phase == HELD_WAITING)
            return &s->held[i];
    return NULL;
}

/* Room for one more, if need be in the place of one that it has put off, or that comes after it. */
static bool has_room(struct session *s, const struct batch *batch)
{
    if (s->held_count < SESSION_HELD_MAX)
        return true;
    struct held *h = find_put_off(s);
    if (!h && (h = find_later(s, batch)))
        s->more = true;
    if (h)
        held_remove(s, h);
    return h;
}

void session_settled(struct session *s)
{
    s->settling = false;
    session_pump(s);
}

/* It was sent, and Redis says that this delivery is counted and it is to be sent nevertheless: no outcome came in its
 * time, or it is not known yet that the outcome is durable, and it is tried again. */
static bool is_put_back(const struct held *h, uint8_t state)
{
    return h->batch->retry_after && held_is_out(h) && state_of(state) != STATE_SENT &&
           state_attempts(state) >= h->attempts;
}

void session_hold(struct session *s, struct batch *batch, uint8_t state, struct slice values)
{
    if (!s->receiving)
        return;
    struct held *h = held_find(s, batch->id);
    if (batch_held(batch) || gates_closed(s->worker->gates, s->tenant)) {
        if (h)
            session_take_back(s, batch); /* a hint given twice */
        else
            record(s, &(struct held){.batch = batch}, EVENT_LOSE); /* comes again when it may be sent */
        return;
    }
    if (h && h->phase == HELD_PUT_OFF)
        return; /* a hint, or a gift, of before */
    if (h && is_put_back(h, state)) {
        s->more = s->more || h->phase == HELD_ANSWERED; /* attached again when that is told */
        if (h->phase == HELD_SENT) {
            held_remove(s, h);
            h = NULL;
        }
    }
    if (h) {
        if (state_of(state) != STATE_SENT) { /* Redis, which was lost, has lost this, too; or does not know it yet */
            h->recorded = false;
            record_sent(s, h);
        }
        session_pump(s); /* it may have stopped while the lease did not hold */
        return;
    }
    if (!has_room(s, batch)) {
        s->more = true; /* attached again when these are done */
        return;
    }
    batch_ref(batch);
    if (s->starved || !held_insert(s, batch, state_attempts(state), values)) {
        batch_unref(s->worker->batches, batch);
        s->more = s->starved = true; /* asked for anew when all it holds is done: if it is nothing, now */
    }
    session_pump(s);
}

void session_offer(struct session *s, struct batch *batch, struct slice values)
{
    bool behind = s->held_count == 0 || batch_rank(batch) > batch_rank(s->held[s->held_count - 1].batch);
    /* What has been put off may keep it from fetching for long: what is urgent does not wait for that. */
    if (s->more && behind && !(s->put_off && batch->priority <= URGENT))
        session_pump(s); /* fetched in its turn */
    else
        session_hold(s, batch, state_byte(STATE_ROUTED, 0), values);
}

void session_take_back(struct session *s, const struct batch *batch)
{
    struct held *h = held_find(s, batch->id);
    if (!h)
        return;
    if (held_is_out(h)) {
        record_sent(s, h);
        return;
    }
    record(s, h, EVENT_LOSE);
    held_remove(s, h);
    session_pump(s);
}

void session_forget_unsent(struct session *s)
{
    for (unsigned i = s->held_count; i-- > 0;) {
        struct held *h = &s->held[i];
        if (held_is_out(h)) {
            record_sent(s, h);
            continue;
        }
        record(s, h, EVENT_LOSE);
        held_remove(s, h);
    }
}

void session_record_sent(struct session *s, uint64_t batch)
{
    struct held *h = held_find(s, batch);
    if (h)
        record_sent(s, h);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static bool urgent_waits(const struct session *s)
{
    for (unsigned i = 0; i < s->held_count; i++)
        if (s->held[i].phase == HELD_WAITING)
            return s->held[i].batch->priority <= URGENT;
    return false;
}

enum session_answered session_answer(struct session *s, const struct acknowledgement *answer, uint16_t token)
{
    struct worker *w = s->worker;
    if (answer->id.tenant != s->tenant || answer->id.seq != s->seq)
        return SESSION_NOT_ITS;
    struct held *h = held_find(s, answer->id.batch);
    struct ack ack = {.batch = answer->id.batch,
                      .tenant = s->tenant,
                      .seq = s->seq,
                      .generation = s->generation,
                      .token = token,
                      .attempts = h ? h->attempts : 0};
    if (!answer_take(w, h ? h->batch : NULL, &ack, answer))
        return SESSION_NO_MEMORY;
    if (h && h->phase == HELD_SENT) {
        int64_t now_us = clock_mono_us();
        h->phase = HELD_ANSWERED;
        histogram_add(&w->stats.push_ack_us, sent_ago_us(h, now_us));
        if (!h->hours)
            window_answered(&w->window, now_us, (uint32_t)now_us - h->sent_us);
        routed_continue(w->routed);
    }
    w->stats.answered++;
    if (urgent_waits(s))
        session_pump(s);
    return SESSION_TAKEN;
}

/* It is given again when its time has come, also if it was forgotten since its outcome had not come in time. A hint of
 * before does not bring it back: nobody would know that it is in the device's hands. */
static void put_off(struct session *s, struct held *h)
{
    s->put_off = true;
    come_back(s);
    if (!h)
        return;
    put_down(s, h);
    h->phase = HELD_PUT_OFF;
    h->passed = h->asked = false;
    h->attempts = (uint8_t)(h->attempts - (h->attempts > 0)); /* that delivery was none */
}

void session_durable(struct session *s, uint64_t batch, uint8_t event, uint16_t token)
{
    struct held *h = held_find(s, batch);
    bool over = !h || h->phase != HELD_SENT;
    s->transport->acknowledged(s, token);
    if (!s->open)
        return;
    if (over && event == EVENT_NOT_NOW)
        put_off(s, h);
    else if (h && over)
        held_remove(s, h);
    session_pump(s);
}
