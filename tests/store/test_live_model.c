/* The moves of lib/store/live on a real Redis against a plain model in C: random operations on one block. */
#include <stdlib.h>
#include <string.h>

#include "tests/store/live_fixture.h"

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

/* --- model -------------------------------------------------------------------------------------------------------- */

static uint8_t apply(uint8_t old, enum command_event event, unsigned attempts)
{
    enum command_state next = state_next(state_of(old), event);
    unsigned tries = state_attempts(old);
    if (attempts > tries)
        tries = attempts;
    if (event == EVENT_NOT_NOW && tries > 0)
        tries--;
    bool counted = event == EVENT_RETRY && attempts <= state_attempts(old) &&
                   (state_of(old) == STATE_QUEUED || state_of(old) == STATE_ROUTED);
    bool put_back = state_of(old) == STATE_HELD && state_attempts(old);
    counted =
        counted ||
        (put_back && (event == EVENT_OVERDUE || (event == EVENT_SEND && attempts && attempts <= state_attempts(old))));
    return next && !counted ? state_byte(next, tries) : old;
}

static void model_lose(struct model *m, unsigned slot)
{
    for (int i = 0; i < BATCHES; i++)
        if (m->batches[i].open)
            m->batches[i].states[slot] = apply(m->batches[i].states[slot], EVENT_LOSE, 0);
}

/* Of a worker that may have sent it. */
static uint8_t forsaken(uint8_t old)
{
    return state_of(old) == STATE_ROUTED ? apply(old, EVENT_SEND, 1) : old;
}

static void model_forsake(struct model *m, unsigned slot)
{
    for (int i = 0; i < BATCHES; i++)
        if (m->batches[i].open)
            m->batches[i].states[slot] = forsaken(m->batches[i].states[slot]);
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
            if (state_of(b->states[slot]) == STATE_ROUTED || state_of(b->states[slot]) == STATE_SENT)
                bitmap_set(&routed[m->presence[slot]], slot);
        }
    if (below(f, 4) == 0) {
        live_learn(f->live, TENANT, BLOCK, on_done, expect());
        assert_int_equal(get(f)->err, ERR_OK);
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

/* The batch comes again, as another router or a rebuild from the truth sends it: QUEUED, HELD, or terminal already; its
 * span may be wider than the first time. */
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
        static const enum command_state fresh[] = {STATE_QUEUED, STATE_QUEUED, STATE_HELD, STATE_SENT};
        *byte = below(f, 6) ? state_byte(fresh[below(f, 4)], below(f, 3)) : state_byte(STATE_FAILED, 2);
        bool open = state_of(*byte) == STATE_QUEUED || state_of(*byte) == STATE_SENT;
        if (open && state_of(b->states[slot]) == STATE_HELD && state_waits(b->states[slot], *byte))
            continue; /* to be tried again, since an outcome of which the newcomer has not heard */
        if (state_of(*byte) == STATE_SENT && state_of(b->states[slot]) == STATE_HELD)
            b->states[slot] = state_byte(STATE_SENT, state_attempts(b->states[slot]));
        if (state_of(*byte) == STATE_SENT)
            b->states[slot] = apply(b->states[slot], EVENT_SEND, state_attempts(*byte));
        if (state_is_terminal(state_of(*byte)) && !state_is_terminal(state_of(b->states[slot])))
            b->states[slot] = state_byte(state_of(*byte), state_attempts(b->states[slot]) > state_attempts(*byte)
                                                              ? state_attempts(b->states[slot])
                                                              : state_attempts(*byte));
        /* What is held the newcomer decides, as far as nobody has it. */
        else if (state_of(*byte) == STATE_QUEUED)
            b->states[slot] = apply(b->states[slot], EVENT_RELEASE, 0);
        else if (state_of(*byte) == STATE_HELD && state_of(b->states[slot]) == STATE_QUEUED)
            b->states[slot] = apply(b->states[slot], EVENT_HOLD, 0);
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
    static const enum command_event events[] = {EVENT_CANCEL, EVENT_DROP, EVENT_EXPIRE, EVENT_RELEASE, EVENT_HOLD};
    enum command_event event = events[below(f, 5)];
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
    unsigned n = some_slots(f, slots), most = below(f, 2) ? 1 + below(f, 3) : BATCHES;
    struct model_batch *order[BATCHES] = {NULL};
    size_t open = 0;
    for (int i = 0; i < BATCHES; i++)
        if (m->batches[i].open)
            order[open++] = &m->batches[i];
    qsort(order, open, sizeof *order, by_rank);
    live_attach(f->live, TENANT, BLOCK, worker, slots, n, most, on_attach, expect());
    struct answer *a = get(f);
    assert_int_equal(a->err, ERR_OK);
    assert_int_equal(a->count, n);
    for (unsigned i = 0; i < n; i++) {
        size_t k = 0;
        assert_int_equal(a->attached[i].slot, slots[i]);
        assert_int_equal(a->attached[i].previous, m->presence[slots[i]]);
        m->presence[slots[i]] = worker;
        for (size_t o = 0; o < open && k < most; o++) {
            uint8_t *byte = &order[o]->states[slots[i]];
            enum command_state s = state_of(*byte);
            if (s != STATE_QUEUED && s != STATE_ROUTED && s != STATE_SENT)
                continue;
            assert_true(k < a->attached[i].count);
            assert_true(a->attached[i].pending[k].batch == order[o]->id);
            assert_int_equal(a->attached[i].pending[k++].state, *byte);
            if (a->attached[i].previous && a->attached[i].previous != worker)
                *byte = forsaken(*byte);
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
            model_forsake(m, slot);
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

static void moves_do_what_the_model_does(void **state)
{
    struct fixture *f = *state;
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
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

static void scripts_are_loaded_again(void **state)
{
    struct fixture *f = *state;
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_do_what_the_model_does),
        cmocka_unit_test(scripts_are_loaded_again),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
