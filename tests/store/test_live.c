/* The moves of lib/store/live on a real Redis against a plain model in C: random operations on one block. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/store/live.h"
#include "tests/store/servers.h"

#define TENANT  7u
#define BLOCK   3u
#define BATCHES 12
#define WORKERS 4

struct fixture {
    struct servers servers;
    struct ev_loop *loop;
    struct live *live;
    unsigned seed;
};

struct model_batch {
    bool open;
    uint64_t id, rank;
    unsigned first, last;
    uint8_t states[BLOCK_SLOTS];
};
struct model {
    uint16_t presence[BLOCK_SLOTS];
    struct model_batch batches[BATCHES];
    uint64_t next_id;
};

/* --- waiting ------------------------------------------------------------------------------------------------------ */

static void on_limit(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    *(bool *)w->data = true;
}

/* Turns the loop until *flag, at most 20 s. */
static void wait_for(struct fixture *f, const bool *flag)
{
    bool late = false;
    ev_timer limit;
    ev_timer_init(&limit, on_limit, 20., 0.);
    limit.data = &late;
    ev_timer_start(f->loop, &limit);
    while (!*flag && !late)
        ev_run(f->loop, EVRUN_ONCE);
    ev_timer_stop(f->loop, &limit);
    assert_true(*flag);
}

/* The answer to one move, kept. */
struct answer {
    bool done;
    enum err err;
    int64_t value;
    size_t count;
    uint8_t bytes[8192];
    size_t len;
    struct live_routed routed[WORKERS + 1];
    struct live_attached attached[BLOCK_SLOTS];
    struct live_pending pending[BLOCK_SLOTS * BATCHES];
};
static struct answer answer; /* too large for the stack */

static struct answer *expect(void)
{
    memset(&answer, 0, offsetof(struct answer, bytes));
    answer.len = 0;
    return &answer;
}

static struct answer *get(struct fixture *f)
{
    wait_for(f, &answer.done);
    return &answer;
}

static void on_done(void *arg, enum err err)
{
    struct answer *a = arg;
    a->done = true;
    a->err = err;
}

static void on_int(void *arg, enum err err, int64_t value)
{
    on_done(arg, err);
    answer.value = value;
}

static void on_bytes(void *arg, enum err err, struct slice value)
{
    on_done(arg, err);
    assert_true(value.len <= sizeof answer.bytes);
    answer.len = value.len;
    if (value.len)
        memcpy(answer.bytes, value.data, value.len);
}

static void on_route(void *arg, enum err err, const struct live_routed *routed, size_t count)
{
    on_done(arg, err);
    assert_true(count <= WORKERS);
    answer.count = count;
    if (count)
        memcpy(answer.routed, routed, count * sizeof *routed);
}

static void on_record(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count)
{
    on_done(arg, err);
    assert_true(2 * count <= sizeof answer.bytes);
    answer.count = count;
    memcpy(answer.bytes, before, count);
    memcpy(answer.bytes + count, after, count);
}

static void on_attach(void *arg, enum err err, const struct live_attached *attached, size_t count)
{
    on_done(arg, err);
    answer.count = count;
    struct live_pending *pending = answer.pending;
    for (size_t i = 0; i < count; i++) {
        answer.attached[i] = attached[i];
        answer.attached[i].pending = pending;
        if (attached[i].count)
            memcpy(pending, attached[i].pending, attached[i].count * sizeof *pending);
        pending += attached[i].count;
    }
}

/* --- model -------------------------------------------------------------------------------------------------------- */

static uint8_t apply(uint8_t old, enum command_event event, unsigned attempts)
{
    enum command_state next = state_next(state_of(old), event);
    unsigned tries = state_attempts(old);
    return next ? state_byte(next, attempts > tries ? attempts : tries) : old;
}

static void model_lose(struct model *m, unsigned slot)
{
    for (int i = 0; i < BATCHES; i++)
        if (m->batches[i].open)
            m->batches[i].states[slot] = apply(m->batches[i].states[slot], EVENT_LOSE, 0);
}

static unsigned below(struct fixture *f, unsigned n)
{
    return (unsigned)rand_r(&f->seed) % n;
}

static struct live_place place_of(const struct model_batch *b)
{
    return (struct live_place){TENANT, BLOCK, b->id};
}

/* All of a batch's state string, asked from Redis, is the model's. */
static void check_batch(struct fixture *f, const struct model_batch *b)
{
    live_apply(f->live, place_of(b), EVENT_RELEASE, &(struct bitmap){{0}}, on_bytes, expect());
    struct answer *a = get(f);
    struct state_string s;
    if (!b->open) {
        assert_int_equal(a->err, ERR_NOT_FOUND);
        return;
    }
    assert_int_equal(a->err, ERR_OK);
    assert_true(state_string_parse(&s, (struct slice){a->bytes, a->len}));
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        assert_int_equal(state_string_get(&s, slot), b->states[slot]);
}

static void check_all(struct fixture *f, const struct model *m)
{
    for (int i = 0; i < BATCHES; i++)
        if (m->batches[i].id)
            check_batch(f, &m->batches[i]);
    live_presence(f->live, TENANT, BLOCK, on_bytes, expect());
    struct answer *a = get(f);
    assert_int_equal(a->err, ERR_OK);
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        assert_int_equal(a->len ? load_u16le(a->bytes + 2 * slot) : 0, m->presence[slot]);
}

/* --- operations --------------------------------------------------------------------------------------------------- */

/* Sends the string and checks that exactly those are routed that are QUEUED or ROUTED already, and online. */
static void route_string(struct fixture *f, struct model *m, struct model_batch *b, struct slice states)
{
    struct bitmap routed[WORKERS + 1] = {{{0}}};
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        if (m->presence[slot]) {
            b->states[slot] = apply(b->states[slot], EVENT_ROUTE, 0);
            if (state_of(b->states[slot]) == STATE_ROUTED)
                bitmap_set(&routed[m->presence[slot]], slot);
        }
    live_route(f->live, place_of(b), b->rank, states, on_route, expect());
    struct answer *a = get(f);
    assert_int_equal(a->err, ERR_OK);
    size_t workers = 0;
    for (unsigned w = 1; w <= WORKERS; w++)
        workers += bitmap_count(&routed[w]) > 0;
    assert_int_equal(a->count, workers);
    for (size_t i = 0; i < a->count; i++)
        assert_memory_equal(&a->routed[i].slots, &routed[a->routed[i].worker], sizeof routed[0]);
}

/* A span of any length with any share of addressed slots, HELD or QUEUED. */
static void open_batch(struct fixture *f, struct model *m, struct model_batch *b)
{
    struct bitmap targets = {{0}};
    struct buf states = {0};
    unsigned length = below(f, 3) ? 1 + below(f, BLOCK_SLOTS) : 1 + below(f, 5),
             from = below(f, BLOCK_SLOTS - length + 1);
    unsigned one_in = 1 + below(f, 4);
    uint8_t initial = state_byte(below(f, 5) ? STATE_QUEUED : STATE_HELD, 0);
    memset(b, 0, sizeof *b);
    bitmap_set(&targets, from);
    for (unsigned slot = from; slot < from + length; slot++)
        if (below(f, one_in) == 0)
            bitmap_set(&targets, slot);
    b->open = true;
    b->id = ++m->next_id;
    b->rank = (1ull + below(f, 3)) << 48 | b->id;
    b->first = bitmap_next(&targets, 0);
    b->last = bitmap_last(&targets);
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        b->states[slot] = bitmap_test(&targets, slot) ? initial : 0;
    state_string_put(&states, &targets, initial);
    route_string(f, m, b, buf_slice(&states));
    buf_free(&states);
}

/* The batch comes again, as another router or a rebuild from the truth sends it: QUEUED, or terminal already; its span
 * may be wider than the first time. */
static void open_again(struct fixture *f, struct model *m, struct model_batch *b)
{
    unsigned wider = below(f, 2) ? below(f, 9) : 0;
    unsigned first = b->first < wider ? 0 : b->first - wider;
    unsigned last = b->last + wider >= BLOCK_SLOTS ? BLOCK_SLOTS - 1 : b->last + wider;
    uint8_t bytes[STATE_STRING_HEADER + BLOCK_SLOTS] = {STATE_STRING_VERSION, 0, (uint8_t)first, (uint8_t)(first >> 8)};
    for (unsigned slot = first; slot <= last; slot++) {
        uint8_t *byte = &bytes[STATE_STRING_HEADER + slot - first];
        if (!b->states[slot])
            continue;
        *byte = below(f, 6) ? state_byte(STATE_QUEUED, 0) : state_byte(STATE_FAILED, 2);
        if (state_is_terminal(state_of(*byte)) && !state_is_terminal(state_of(b->states[slot])))
            b->states[slot] = *byte;
    }
    b->first = first;
    b->last = last;
    route_string(f, m, b, (struct slice){bytes, STATE_STRING_HEADER + last - first + 1});
}

static void record(struct fixture *f, struct model_batch *b)
{
    static struct live_event events[2000];
    static uint8_t before[2000], after[2000];
    unsigned n = 1 + below(f, below(f, 3) ? 20 : 2000);
    enum command_event common = (enum command_event)below(f, EVENT_COUNT);
    bool crowd = below(f, 2);
    for (unsigned i = 0; i < n; i++) {
        unsigned slot = crowd && n < BLOCK_SLOTS ? i : below(f, BLOCK_SLOTS);
        events[i] = (struct live_event){(uint16_t)slot, (uint8_t)(crowd ? common : below(f, EVENT_COUNT)),
                                        (uint8_t)below(f, 4)};
        before[i] = b->open ? b->states[slot] : 0;
        after[i] = apply(before[i], (enum command_event)events[i].event, events[i].attempts);
        if (b->open)
            b->states[slot] = after[i];
    }
    live_record(f->live, place_of(b), events, n, on_record, expect());
    struct answer *a = get(f);
    assert_int_equal(a->err, ERR_OK);
    assert_int_equal(a->count, n);
    assert_memory_equal(a->bytes, before, n);
    assert_memory_equal(a->bytes + n, after, n);
}

static void hand_back(struct fixture *f, struct model *m, struct model_batch *b)
{
    struct bitmap slots = {{0}};
    uint16_t worker = (uint16_t)(1 + below(f, WORKERS));
    for (unsigned i = below(f, 200); i > 0; i--)
        bitmap_set(&slots, below(f, BLOCK_SLOTS));
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        if (bitmap_test(&slots, slot) && (m->presence[slot] == 0 || m->presence[slot] == worker))
            b->states[slot] = apply(b->states[slot], EVENT_LOSE, 0);
    live_hand_back(f->live, place_of(b), worker, &slots, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
}

static void apply_event(struct fixture *f, struct model_batch *b)
{
    static const enum command_event events[] = {EVENT_CANCEL, EVENT_DROP, EVENT_EXPIRE, EVENT_RELEASE};
    enum command_event event = events[below(f, 4)];
    struct bitmap only = {{0}};
    bool all = below(f, 3) == 0;
    for (unsigned i = below(f, 300); i > 0; i--)
        bitmap_set(&only, below(f, BLOCK_SLOTS));
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        if (all || bitmap_test(&only, slot))
            b->states[slot] = apply(b->states[slot], event, 0);
    live_apply(f->live, place_of(b), event, all ? NULL : &only, on_bytes, expect());
    struct answer *a = get(f);
    struct state_string s;
    assert_int_equal(a->err, ERR_OK);
    assert_true(state_string_parse(&s, (struct slice){a->bytes, a->len}));
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        assert_int_equal(state_string_get(&s, slot), b->states[slot]);
}

/* Distinct slots, few or many. */
static unsigned some_slots(struct fixture *f, uint16_t *slots)
{
    struct bitmap seen = {{0}};
    unsigned n = 0;
    for (unsigned i = 1 + below(f, below(f, 2) ? 4 : 400); i > 0; i--) {
        unsigned slot = below(f, BLOCK_SLOTS);
        if (!bitmap_test(&seen, slot))
            slots[n++] = (uint16_t)slot;
        bitmap_set(&seen, slot);
    }
    return n;
}

static int by_rank(const void *a, const void *b)
{
    const struct model_batch *const *x = a, *const *y = b;
    return (*x)->rank < (*y)->rank ? -1 : 1;
}

static void attach(struct fixture *f, struct model *m)
{
    uint16_t slots[BLOCK_SLOTS], worker = (uint16_t)(1 + below(f, WORKERS));
    unsigned n = some_slots(f, slots);
    struct model_batch *order[BATCHES] = {NULL};
    size_t open = 0;
    for (int i = 0; i < BATCHES; i++)
        if (m->batches[i].open)
            order[open++] = &m->batches[i];
    qsort(order, open, sizeof *order, by_rank);
    live_attach(f->live, TENANT, BLOCK, worker, slots, n, on_attach, expect());
    struct answer *a = get(f);
    assert_int_equal(a->err, ERR_OK);
    assert_int_equal(a->count, n);
    for (unsigned i = 0; i < n; i++) {
        size_t k = 0;
        assert_int_equal(a->attached[i].slot, slots[i]);
        assert_int_equal(a->attached[i].previous, m->presence[slots[i]]);
        m->presence[slots[i]] = worker;
        for (size_t o = 0; o < open; o++) {
            uint8_t *byte = &order[o]->states[slots[i]];
            enum command_state s = state_of(*byte);
            if (s != STATE_QUEUED && s != STATE_ROUTED && s != STATE_SENT)
                continue;
            assert_true(k < a->attached[i].count);
            assert_true(a->attached[i].pending[k].batch == order[o]->id);
            assert_int_equal(a->attached[i].pending[k++].state, *byte);
            *byte = apply(*byte, EVENT_ROUTE, 0);
        }
        assert_int_equal(a->attached[i].count, k);
    }
}

static void detach(struct fixture *f, struct model *m)
{
    uint16_t slots[BLOCK_SLOTS], worker = (uint16_t)(1 + below(f, WORKERS));
    unsigned n = some_slots(f, slots);
    for (unsigned i = 0; i < n; i++)
        if (m->presence[slots[i]] == worker) {
            m->presence[slots[i]] = 0;
            model_lose(m, slots[i]);
        }
    live_detach(f->live, TENANT, BLOCK, worker, slots, n, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
}

static void reap(struct fixture *f, struct model *m)
{
    uint16_t worker = (uint16_t)(1 + below(f, WORKERS));
    int64_t n = 0;
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        if (m->presence[slot] == worker) {
            m->presence[slot] = 0;
            model_lose(m, slot);
            n++;
        }
    live_reap(f->live, TENANT, BLOCK, worker, on_int, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(answer.value, n);
}

static void close_batch(struct fixture *f, struct model_batch *b)
{
    live_close(f->live, place_of(b), on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    b->open = false;
}

static void one_move(struct fixture *f, struct model *m)
{
    struct model_batch *b = &m->batches[below(f, BATCHES)];
    unsigned what = below(f, 100);
    if (!b->open) {
        if (b->id && below(f, 4) == 0)
            record(f, b); /* after its end */
        else
            open_batch(f, m, b);
    } else if (what < 10) {
        open_again(f, m, b);
    } else if (what < 45) {
        record(f, b);
    } else if (what < 55) {
        hand_back(f, m, b);
    } else if (what < 62) {
        apply_event(f, b);
    } else if (what < 80) {
        attach(f, m);
    } else if (what < 90) {
        detach(f, m);
    } else if (what < 92) {
        reap(f, m);
    } else if (what < 97) {
        close_batch(f, b);
    } else {
        check_all(f, m);
    }
}

static void flush_all(struct fixture *f);

static void moves_do_what_the_model_does(void **state)
{
    struct fixture *f = *state;
    struct model *m = calloc(1, sizeof *m);
    for (f->seed = 1; f->seed < 6;) {
        unsigned seed = f->seed;
        memset(m, 0, sizeof *m);
        flush_all(f);
        for (int i = 0; i < 600; i++)
            one_move(f, m);
        check_all(f, m);
        f->seed = seed + 1;
    }
    free(m);
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

/* Through redis-cli, as somebody else would. */
static void cli(struct fixture *f, const char *command)
{
    char line[256];
    snprintf(line, sizeof line, "redis-cli -s %s %s > /dev/null", f->servers.redis_url + strlen("unix://"), command);
    assert_int_equal(system(line), 0);
}

static void flush_all(struct fixture *f)
{
    cli(f, "FLUSHALL");
}

static void scripts_are_loaded_again(void **state)
{
    struct fixture *f = *state;
    struct model *m = calloc(1, sizeof *m);
    flush_all(f);
    f->seed = 77;
    for (int i = 0; i < 200; i++) {
        if (i % 10 == 0)
            cli(f, "SCRIPT FLUSH");
        one_move(f, m);
    }
    check_all(f, m);
    free(m);
}

struct in_order {
    int next, total;
    bool done;
};
struct numbered {
    struct in_order *all;
    int n;
};

static void on_numbered(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count)
{
    struct numbered *x = arg;
    (void)before;
    (void)after;
    assert_int_equal(err, ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(x->all->next++, x->n);
    x->all->done = x->all->next == x->all->total;
}

/* Many moves in the pipeline when Redis forgets the scripts: all answered, in order. */
static void a_pipeline_survives_a_script_flush(void **state)
{
    struct fixture *f = *state;
    struct in_order all = {.total = 5000};
    struct numbered *x = calloc(5000, sizeof *x);
    cli(f, "SCRIPT FLUSH");
    for (int i = 0; i < 5000; i++) {
        x[i] = (struct numbered){&all, i};
        live_record(f->live, (struct live_place){1, 1, 1}, &(struct live_event){5, EVENT_SEND, 1}, 1, on_numbered,
                    &x[i]);
    }
    wait_for(f, &all.done);
    free(x);
}

static void worker_numbers_are_leased(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    live_worker_acquire(f->live, "a", 60000, on_int, expect());
    uint16_t a = (uint16_t)get(f)->value;
    live_worker_acquire(f->live, "b", 60000, on_int, expect());
    uint16_t b = (uint16_t)get(f)->value;
    assert_true(a && b && a != b);
    live_worker_renew(f->live, a, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_worker_renew(f->live, a, "b", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_reclaim(f->live, a, "b", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_renew(f->live, (uint16_t)(b + 1), "c", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
    live_worker_reclaim(f->live, (uint16_t)(b + 1), "c", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_worker_acquire(f->live, "d", 60000, on_int, expect());
    assert_int_equal(get(f)->value, b + 2);
}

struct worker_list {
    bool done, alive[16], known[16];
};
static void on_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct worker_list *l = arg;
    assert_int_equal(err, ERR_OK);
    for (size_t i = 0; i < count; i++) {
        l->known[workers[i].number] = true;
        l->alive[workers[i].number] = workers[i].alive;
    }
    l->done = true;
}

static struct worker_list list_workers(struct fixture *f)
{
    struct worker_list l = {0};
    live_workers(f->live, on_workers, &l);
    wait_for(f, &l.done);
    return l;
}

/* Once somebody has been told that a worker is dead, it can't come back under its number: its slots are being reaped.
 */
static void the_dead_stay_dead(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    assert_false(list_workers(f).known[1]);
    live_worker_acquire(f->live, "a", 60000, on_int, expect());
    assert_int_equal(get(f)->value, 1);
    live_worker_acquire(f->live, "b", 60000, on_int, expect());
    assert_int_equal(get(f)->value, 2);
    assert_true(list_workers(f).alive[1]);
    cli(f, "DEL worker:1");
    struct worker_list l = list_workers(f);
    assert_true(l.known[1] && !l.alive[1] && l.alive[2]);
    live_worker_renew(f->live, 1, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_reclaim(f->live, 1, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    assert_false(list_workers(f).alive[1]);
    live_worker_forget(f->live, 1, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    l = list_workers(f);
    assert_true(!l.known[1] && l.alive[2]);
    live_worker_release(f->live, 2, "b", on_done, expect());
    get(f);
    l = list_workers(f);
    assert_true(l.known[2] && !l.alive[2]);
}

static void on_take(void *arg, enum err err, enum live_class class, const struct slice *entries, size_t count)
{
    on_done(arg, err);
    answer.value = (int64_t) class;
    answer.count = count;
    answer.len = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(answer.bytes + answer.len, entries[i].data, entries[i].len);
        answer.len += entries[i].len;
    }
}

static void push(struct fixture *f, enum live_class class, const char *text, int64_t waiting)
{
    live_inbox_push(f->live, 9, class, (struct slice){(const uint8_t *)text, strlen(text)}, on_int, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(answer.value, waiting);
}

static void take(struct fixture *f, int classes, enum live_class class, const char *text)
{
    do {
        live_inbox_take(f->live, 9, classes, 2, 10, on_take, expect());
        get(f);
    } while (answer.err == ERR_UNAVAILABLE); /* its connection is being made */
    assert_int_equal(answer.err, ERR_OK);
    assert_int_equal(answer.len, strlen(text));
    assert_memory_equal(answer.bytes, text, strlen(text));
    if (*text)
        assert_int_equal(answer.value, class);
}

static void inboxes_are_taken_by_class(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    push(f, LIVE_BULK, "z", 1);
    push(f, LIVE_NORMAL, "a", 1);
    push(f, LIVE_NORMAL, "b", 2);
    push(f, LIVE_NORMAL, "c", 3);
    push(f, LIVE_URGENT, "!", 1);
    take(f, 3, LIVE_URGENT, "!");
    take(f, 1, LIVE_URGENT, "");
    take(f, 3, LIVE_NORMAL, "ab");
    take(f, 2, LIVE_NORMAL, "c");
    take(f, 2, LIVE_NORMAL, "");
    take(f, 3, LIVE_BULK, "z");
    take(f, 3, LIVE_BULK, "");
}

static void on_states(void *arg, enum err err, const struct slice *states, size_t count)
{
    on_done(arg, err);
    answer.count = count;
    for (size_t i = 0; i < count; i++) {
        struct state_string s;
        bool there = state_string_parse(&s, states[i]);
        assert_int_equal(there, i % 2 == 0);
        if (there)
            assert_int_equal(s.first, i);
    }
}

static void states_of_many_blocks(void **state)
{
    struct fixture *f = *state;
    uint32_t blocks[300];
    flush_all(f);
    for (unsigned i = 0; i < 300; i++) {
        struct buf b = {0};
        struct bitmap targets = {{0}};
        blocks[i] = i * 3;
        bitmap_set(&targets, i);
        state_string_put(&b, &targets, STATE_QUEUED);
        if (i % 2 == 0) {
            live_route(f->live, (struct live_place){1, blocks[i], 5}, 5, buf_slice(&b), on_route, expect());
            assert_int_equal(get(f)->err, ERR_OK);
        }
        buf_free(&b);
    }
    live_states(f->live, 1, 5, blocks, 300, on_states, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(answer.count, 300);
}

static void specs_come_and_go(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    live_get_spec(f->live, 5, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
    live_put_spec(f->live, 5, (struct slice){(const uint8_t *)"a\0b", 3}, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_get_spec(f->live, 5, on_bytes, expect());
    assert_int_equal(get(f)->len, 3);
    assert_memory_equal(answer.bytes, "a\0b", 3);
    live_cancel_confirm(f->live, 5, 77, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_drop_spec(f->live, 5, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_get_spec(f->live, 5, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
}

static void on_text(void *arg, struct slice text)
{
    if (text.len == 8 && memcmp(text.data, "closed 5", 8) == 0)
        *(bool *)arg = true;
}

static void on_up(void *arg, bool up)
{
    *(bool *)arg = up;
}

/* Publishes until it is heard: the subscription is made in the background. */
static void hear(struct fixture *f, bool *heard)
{
    *heard = false;
    for (int i = 0; i < 500 && !*heard; i++) {
        live_publish(f->live, "closed 5");
        live_presence(f->live, 1, 1, on_bytes, expect());
        get(f);
        ev_run(f->loop, EVRUN_NOWAIT);
        if (!*heard)
            usleep(2000);
    }
    assert_true(*heard);
}

/* Redis goes: answered at once. It comes back empty: a new generation; the subscription is made again. */
static void redis_goes_and_returns(void **state)
{
    struct fixture *f = *state;
    static bool heard; /* outlives this test, as the subscription does */
    bool up = true;
    live_subscribe(f->live, on_text, &heard);
    hear(f, &heard);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 0);
    live_generation_set(f->live, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 1);
    live_on_change(f->live, on_up, &up);
    servers_stop_redis(&f->servers);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
    while (live_up(f->live))
        ev_run(f->loop, EVRUN_ONCE);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_false(answer.done);
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
    servers_start_redis(&f->servers);
    wait_for(f, &up);
    live_on_change(f->live, NULL, NULL);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 0);
    hear(f, &heard);
}

/* A Redis that has stopped without closing anything counts as lost after a while; then it goes on. */
static void a_silent_redis_is_given_up(void **state)
{
    struct fixture *f = *state;
    bool up = true;
    live_on_change(f->live, on_up, &up);
    kill(f->servers.redis, SIGSTOP);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
    assert_false(live_up(f->live));
    kill(f->servers.redis, SIGCONT);
    wait_for(f, &up);
    live_on_change(f->live, NULL, NULL);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_OK);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    bool up = false;
    log_init("test_live", LOG_ERROR);
    servers_init(&f->servers);
    servers_start_redis(&f->servers);
    f->loop = ev_default_loop(0);
    f->live = live_new(f->loop, f->servers.redis_url);
    assert_non_null(f->live);
    live_on_change(f->live, on_up, &up);
    wait_for(f, &up);
    live_on_change(f->live, NULL, NULL);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    live_free(&f->live);
    servers_free(&f->servers);
    free(f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_do_what_the_model_does),
        cmocka_unit_test(scripts_are_loaded_again),
        cmocka_unit_test(a_pipeline_survives_a_script_flush),
        cmocka_unit_test(worker_numbers_are_leased),
        cmocka_unit_test(the_dead_stay_dead),
        cmocka_unit_test(inboxes_are_taken_by_class),
        cmocka_unit_test(states_of_many_blocks),
        cmocka_unit_test(specs_come_and_go),
        cmocka_unit_test(redis_goes_and_returns),
        cmocka_unit_test(a_silent_redis_is_given_up),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
