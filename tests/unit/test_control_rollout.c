/* Waves and rate as the leader carries them out, on clocks and a store that the test sets: races, answers that are
 * lost, other leaders, clocks that jump, devices that go. What the store says stands in for PostgreSQL; all else is the
 * real thing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dispatcher/control_rollout.h"
#include "dispatcher/leader_fold.h"
#include "lib/base/clock.h"
#include "lib/store/db_control.h"
#include "lib/store/db_device.h"
#include "muster/v1/steering.pb-c.h"

enum { BLOCKS = 2, PER_BLOCK = 20, ALL = BLOCKS * PER_BLOCK, TXNS = 8 };

/* What a transaction does to the store when it is committed. */
struct pg_txn {
    bool used, submitted;
    bool reads, sets_wave, sets_turns, stops;
    uint32_t acted;
    uint32_t wave;
    struct db_pace pace;
    uint32_t blocks[BLOCKS];
    struct bitmap gone[BLOCKS];
    size_t count;
    pg_done_fn *done;
    void *arg;
};

struct pg_result {
    int rows;
};

static struct world {
    int64_t mono_us, wall_ms, store_ms;
    struct db_rollout row;
    struct bitmap gone[BLOCKS]; /* who had a turn, as the store has it */
    uint8_t steering[256];
    struct pg_txn txns[TXNS];
    struct reign reign;
    struct open_batch *batch;
    struct control_rollout *control;
    bool held;
    enum { ANSWER, LOSE, REFUSE } next; /* what becomes of the next write */
} w;

/* --- the store and the clocks ------------------------------------------------------------------------------------- */

int64_t clock_wall_ms(void)
{
    return w.wall_ms;
}

int64_t clock_mono_us(void)
{
    return w.mono_us;
}

struct pg_txn *pg_txn_new(struct pg *pg, int lane)
{
    (void)pg, (void)lane;
    for (int i = 0; i < TXNS; i++)
        if (!w.txns[i].used) {
            w.txns[i] = (struct pg_txn){.used = true};
            return &w.txns[i];
        }
    abort();
}

void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg)
{
    txn->submitted = true;
    txn->done = done;
    txn->arg = arg;
}

int pg_rows(const struct pg_result *r)
{
    return r->rows;
}

void db_control_rollout(struct pg_txn *txn, uint64_t batch)
{
    (void)batch;
    txn->reads = true;
}

void db_control_rollout_read(const struct pg_result *r, int row, struct db_rollout *out)
{
    (void)r, (void)row;
    *out = w.row;
    out->now_ms = w.store_ms;
}

void db_device_blocks(struct pg_txn *txn, int32_t tenant, int platform)
{
    (void)txn, (void)tenant, (void)platform;
}

bool db_device_block_read(const struct pg_result *r, int row, struct db_device_block *out)
{
    (void)r, (void)row, (void)out;
    return false;
}

void db_control_parts(struct pg_txn *txn, uint64_t batch)
{
    (void)txn, (void)batch;
}

bool db_control_part_read(const struct pg_result *r, int row, struct db_control_part *out)
{
    (void)r;
    *out = (struct db_control_part){.kind = DB_PART_LET_GO, .block = (uint32_t)row, .slots = w.gone[row]};
    return true;
}

void db_control_wave(struct pg_txn *txn, uint64_t batch, uint32_t wave)
{
    (void)batch;
    txn->sets_wave = true;
    txn->wave = wave;
}

void db_control_let_go(struct pg_txn *txn, uint64_t batch, const struct db_pace *pace, const int32_t *blocks,
                       const struct slice *slots, size_t n)
{
    (void)batch;
    txn->sets_turns = true;
    txn->pace = *pace;
    txn->count = n;
    for (size_t i = 0; i < n; i++) {
        txn->blocks[i] = (uint32_t)blocks[i];
        memcpy(txn->gone[i].bytes, slots[i].data, BITMAP_BYTES);
    }
}

void db_control_stop(struct pg_txn *txn, uint64_t batch, const struct db_stop *stop, int64_t now_ms)
{
    (void)batch, (void)now_ms;
    assert_true(stop->pause && !stop->abort && !stop->platforms && !stop->canceled);
    txn->stops = true;
    txn->acted = stop->acted;
}

void db_lease_fence(struct pg_txn *txn, const struct lease_fence *fence)
{
    (void)txn, (void)fence;
}

bool db_lease_fenced(enum err err, const struct pg_error *error)
{
    (void)err, (void)error;
    return false;
}

bool reign_back(struct reign *r)
{
    r->refs--;
    return true;
}

void reign_fail(struct reign *r, const char *why, enum err err)
{
    (void)why, (void)err;
    r->failed = true;
}

void folder_wake(struct reign *r)
{
    (void)r;
}

bool control_time_holds(const struct control_time *t)
{
    (void)t;
    abort(); /* nothing here has a time */
}

void control_time_closed(const struct control_time *t, uint32_t block, struct bitmap *out)
{
    (void)t, (void)block, (void)out;
    abort();
}

static void commit(const struct pg_txn *txn)
{
    if (txn->sets_wave && (w.row.wave < txn->wave || (w.row.wave == txn->wave && !w.row.wave_ms))) {
        w.row.wave = txn->wave;
        w.row.wave_ms = w.store_ms;
    }
    if (txn->stops) {
        w.row.acted |= txn->acted;
        w.row.request++;
    }
    if (txn->sets_turns) {
        w.row.pace = txn->pace;
        w.row.pace.last_ms = w.store_ms;
    }
    for (size_t i = 0; i < txn->count; i++)
        w.gone[txn->blocks[i]] = txn->gone[i];
}

/* What was asked before is answered; a write as w.next says. */
static void answer_all(void)
{
    static const struct pg_result one = {1}, none = {0}, parts = {BLOCKS};
    const struct pg_result *const results[] = {&one, &none, &parts};
    for (int i = 0; i < TXNS; i++) {
        struct pg_txn *txn = &w.txns[i];
        if (!txn->submitted)
            continue;
        bool lost = !txn->reads && w.next != ANSWER;
        if (txn->reads || w.next != REFUSE)
            commit(txn);
        if (lost)
            w.next = ANSWER;
        struct pg_txn copy = *txn;
        txn->used = txn->submitted = false;
        copy.done(copy.arg, lost ? ERR_UNAVAILABLE : ERR_OK, NULL, results, 3);
    }
}

/* --- the leader around it ----------------------------------------------------------------------------------------- */

/* To how many Redis would send now. */
static uint32_t may_be_sent(void)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        struct buf states = {0};
        struct state_string s;
        open_block_string(&w.batch->blocks[i], &states);
        control_rollout_mask(w.control, &w.batch->blocks[i], &states);
        assert_true(state_string_parse(&s, buf_slice(&states)));
        for (unsigned k = 0; k < s.count; k++)
            n += state_of(s.states[k]) == STATE_QUEUED;
        buf_free(&states);
    }
    return n;
}

static uint32_t routed; /* as it was last routed: what has been released since is not sent yet */

/* As dispatcher/control.c: all of it when there is more, else the blocks with new turns; but for those that are over.
 */
static void route(bool all)
{
    struct bitmap only;
    uint32_t fresh = 0;
    if (all)
        control_rollout_released(w.control);
    for (unsigned i = 0; i < BLOCKS; i++)
        if (w.batch->blocks[i].remaining && control_rollout_routes(w.control, &w.batch->blocks[i], &only))
            fresh += bitmap_count(&only);
    if (!all)
        assert_true(fresh > 0);
    routed = may_be_sent();
}

static void tick(void)
{
    bool news = control_rollout_tick(w.control, w.held, NULL);
    if (!w.held && control_rollout_known(w.control, 0) && news && control_rollout_more(w.control))
        route(true);
    if (!w.held && control_rollout_fresh(w.control))
        route(false);
    if (!control_rollout_known(w.control, 0) && !routed)
        return;
}

static void pass(int64_t ms)
{
    for (int64_t i = 0; i < ms / REIGN_TICK_MS; i++) {
        w.mono_us += REIGN_TICK_MS * 1000;
        w.wall_ms += REIGN_TICK_MS;
        w.store_ms += REIGN_TICK_MS;
        answer_all();
        tick();
    }
}

/* Another leader: it knows what the store says, and routes all of it once it does. */
static void lead(void)
{
    if (w.control)
        control_rollout_free(&w.control);
    answer_all(); /* what was under way ends without effect on anybody */
    w.control = control_rollout_new(&w.reign, w.batch);
    answer_all();
    tick();
    route(true);
}

/* --- the cases ---------------------------------------------------------------------------------------------------- */

enum op {
    END,
    PASS,    /* so many milliseconds */
    OUT,     /* so many may be sent to, and have been routed */
    PAUSE,   /* 1: it is held, 0: it goes on */
    WALL,    /* the clock on the wall jumps by so many seconds, */
    STORE,   /* and that of the store */
    LOST,    /* the next write is done, and its answer lost */
    REFUSED, /* the next write is not done */
    LEADER,  /* another leads */
    HAND,    /* somebody releases the next wave */
    GOOD,    /* so many of those who were sent to succeed, */
    BAD,     /* or fail */
    DELETE,  /* the device of this number is deleted */
    AGAIN,   /* one who is sent to says "not now": his turn stays */
    ACTED,   /* so many thresholds have, as the store has it */
    /* Only as the first: */
    HELD,      /* it is held from the beginning */
    THRESHOLD, /* it pauses at so many percent */
};

struct step {
    enum op op;
    int64_t n;
};

#define STEPS 24
/* `first` devices are the first wave, the rest goes out after so many seconds, or by hand (0). */
#define WAVE(first, after_s)       0, first, after_s, 0, 0
#define RATE(devices)              devices, 0, 0, 0, 0
#define WAVE_AT_RATE(first, rate)  rate, first, 0, 0, 0
#define GROWTH(rate, percent, per) rate, 0, 0, percent, per
static const struct test {
    const char *name;
    uint32_t rate, first, after_s, percent, step; /* 0: without; `first` devices are the first wave */
    struct step steps[STEPS];
} tests[] = {
    {"a wave goes out after its time", WAVE(10, 5), {{OUT, 10}, {PASS, 4800}, {OUT, 10}, {PASS, 600}, {OUT, 40}}},
    {"not while it is paused, and then at once",
     WAVE(10, 5),
     {{PASS, 4000}, {PAUSE, 1}, {PASS, 60000}, {OUT, 10}, {PAUSE, 0}, {PASS, 400}, {OUT, 40}}},
    {"what is held from the beginning is not out: the time of the next begins when it goes on",
     WAVE(10, 5),
     {{HELD, 0}, {PASS, 60000}, {OUT, 10}, {PAUSE, 0}, {PASS, 4800}, {OUT, 10}, {PASS, 600}, {OUT, 40}}},
    {"so it does for another leader",
     WAVE(10, 5),
     {{HELD, 0},
      {PASS, 60000},
      {LEADER, 0},
      {PASS, 2000},
      {PAUSE, 0},
      {PASS, 2000},
      {LEADER, 0},
      {PASS, 2800},
      {OUT, 10},
      {PASS, 800},
      {OUT, 40}}},
    {"that it began is not written, and then is",
     WAVE(10, 5),
     {{HELD, 0},
      {PASS, 9000},
      {REFUSED, 0},
      {PAUSE, 0},
      {PASS, 2000},
      {LEADER, 0},
      {PASS, 2800},
      {OUT, 10},
      {PASS, 800},
      {OUT, 40}}},
    {"a threshold whose write is refused acts nevertheless",
     RATE(10),
     {{THRESHOLD, 50}, {PASS, 1250}, {REFUSED, 0}, {BAD, 5}, {PASS, 1000}, {ACTED, 1}}},
    {"and once, when only its answer is lost",
     RATE(10),
     {{THRESHOLD, 50}, {PASS, 1250}, {LOST, 0}, {BAD, 5}, {PASS, 1000}, {ACTED, 1}, {PASS, 1000}, {ACTED, 1}}},
    {"released by hand in a pause, it goes out after it",
     WAVE(10, 0),
     {{PAUSE, 1}, {HAND, 0}, {PASS, 2000}, {OUT, 10}, {PAUSE, 0}, {PASS, 400}, {OUT, 40}}},
    {"a pause between its write and its answer",
     WAVE(10, 0),
     {{HAND, 0}, {PASS, 100}, {PAUSE, 1}, {PASS, 1000}, {OUT, 10}, {PAUSE, 0}, {PASS, 400}, {OUT, 40}}},
    {"the answer to its write is lost", WAVE(10, 5), {{PASS, 4000}, {LOST, 0}, {PASS, 3000}, {OUT, 40}}},
    {"its write is refused", WAVE(10, 5), {{PASS, 4000}, {REFUSED, 0}, {PASS, 3000}, {OUT, 40}}},
    {"the clock jumps an hour ahead: not early",
     WAVE(10, 1800),
     {{PASS, 2000}, {WALL, 3600}, {PASS, 5000}, {OUT, 10}, {PASS, 1792000}, {OUT, 10}, {PASS, 2000}, {OUT, 40}}},
    {"and an hour back: not late",
     WAVE(10, 1800),
     {{PASS, 2000}, {WALL, -3600}, {PASS, 1796000}, {OUT, 10}, {PASS, 3000}, {OUT, 40}}},
    {"another leader whose clock is an hour ahead",
     WAVE(10, 1800),
     {{PASS, 2000},
      {WALL, 3600},
      {LEADER, 0},
      {PASS, 5000},
      {OUT, 10},
      {PASS, 1792000},
      {OUT, 10},
      {PASS, 2000},
      {OUT, 40}}},
    {"another leader after the store's clock went back: late, but not stuck",
     WAVE(10, 60),
     {{PASS, 50000}, {STORE, -3600}, {LEADER, 0}, {PASS, 59000}, {OUT, 10}, {PASS, 2000}, {OUT, 40}}},
    /* The first turn comes at once, the others evenly; each fifth of a second is looked. */
    {"turns by the rate",
     RATE(10),
     {{OUT, 0}, {PASS, 50}, {OUT, 1}, {PASS, 200}, {OUT, 3}, {PASS, 1000}, {OUT, 13}, {PASS, 3000}, {OUT, 40}}},
    {"turns whatever the wall says",
     RATE(10),
     {{PASS, 250}, {WALL, 3600}, {PASS, 1000}, {OUT, 13}, {WALL, -7200}, {PASS, 1000}, {OUT, 23}}},
    {"a pause brings no turns",
     RATE(10),
     {{PASS, 1250}, {OUT, 13}, {PAUSE, 1}, {PASS, 60000}, {OUT, 13}, {PAUSE, 0}, {PASS, 1000}, {OUT, 23}}},
    {"another leader brings one, at most",
     RATE(10),
     {{PASS, 1250},
      {OUT, 13},
      {LEADER, 0},
      {OUT, 13},
      {PASS, 1050},
      {OUT, 23},
      {LEADER, 0},
      {LEADER, 0},
      {PASS, 1050},
      {OUT, 33}}},
    {"also after hours without any, and with a clock that jumps",
     RATE(10),
     {{PASS, 1250},
      {OUT, 13},
      {STORE, 7200},
      {LEADER, 0},
      {PASS, 1050},
      {OUT, 24},
      {STORE, -7200},
      {LEADER, 0},
      {PASS, 1050},
      {OUT, 34}}},
    {"a turn whose answer is lost is not given twice",
     RATE(10),
     {{PASS, 250}, {OUT, 3}, {LOST, 0}, {PASS, 1600}, {OUT, 18}, {PASS, 3000}, {OUT, 40}}},
    {"one that was refused is given again", RATE(10), {{PASS, 250}, {OUT, 3}, {REFUSED, 0}, {PASS, 4500}, {OUT, 40}}},
    {"turns stay within the wave, and do not pile up behind it",
     WAVE_AT_RATE(5, 10),
     {{PASS, 2000}, {OUT, 5}, {PASS, 10000}, {OUT, 5}, {HAND, 0}, {PASS, 450}, {OUT, 9}, {PASS, 1000}, {OUT, 19}}},
    {"who is deleted while he is held takes no turn",
     RATE(10),
     {{PASS, 250}, {OUT, 3}, {DELETE, 4}, {DELETE, 25}, {PASS, 1000}, {OUT, 13}, {PASS, 3000}, {OUT, 38}}},
    {"who is deleted after his turn is not replaced",
     RATE(10),
     {{PASS, 250}, {OUT, 3}, {DELETE, 0}, {PASS, 1000}, {OUT, 12}}},
    {"turns that come in a pause, and their block is over: the others have theirs",
     RATE(10),
     {{DELETE, 19},
      {PASS, 1800},
      {OUT, 17},
      {PAUSE, 1},
      {PASS, 50},
      {GOOD, 17},
      {DELETE, 17},
      {DELETE, 18},
      {PAUSE, 0},
      {OUT, 0},
      {PASS, 3000},
      {OUT, 20}}},
    {"who puts it off keeps his turn", RATE(10), {{PASS, 1250}, {AGAIN, 3}, {LEADER, 0}, {OUT, 13}}},
    {"the rate grows with success",
     GROWTH(10, 200, 5),
     {{PASS, 1250}, {OUT, 13}, {GOOD, 5}, {OUT, 8}, {PASS, 1250}, {OUT, 8 + 2 + 5 * 4}}},
    {"another leader knows that it has grown",
     GROWTH(10, 200, 5),
     {{PASS, 1250}, {GOOD, 5}, {PASS, 450}, {OUT, 8 + 2 + 4}, {LEADER, 0}, {PASS, 1000}, {OUT, 31}}},
    {"it does not with failures",
     GROWTH(10, 200, 5),
     {{PASS, 1250}, {OUT, 13}, {BAD, 5}, {OUT, 8}, {PASS, 1250}, {OUT, 8 + 12}}},
    {"a step that is taken twice is one: its answer was lost",
     GROWTH(10, 200, 5),
     {{PASS, 1250}, {GOOD, 5}, {LOST, 0}, {PASS, 1000}, {OUT, 8 + 2 + 1 + 3 * 4}}},
};

static void put_outcomes(uint32_t n, enum command_state state)
{
    for (unsigned i = 0; i < BLOCKS && n; i++)
        for (unsigned slot = bitmap_next(&w.gone[i], 0); slot < BLOCK_SLOTS && n;
             slot = bitmap_next(&w.gone[i], slot + 1))
            if (open_block_merge(&w.reign.set, &w.batch->blocks[i], slot, state_byte(state, 1), w.wall_ms))
                n--;
    routed = may_be_sent();
}

static void perform(const struct test *t, size_t at)
{
    const struct step *s = &t->steps[at];
    struct open_block *b = &w.batch->blocks[(s->n / PER_BLOCK) % BLOCKS];
    switch (s->op) {
    case PASS:
        pass(s->n);
        return;
    case OUT:
        if (routed != s->n)
            fail_msg("%s, step %zu: %u are out", t->name, at, routed);
        return;
    case PAUSE: /* resuming routes all that may be sent */
        w.held = s->n;
        if (!w.held)
            route(true);
        return;
    case WALL:
        w.wall_ms += s->n * 1000;
        return;
    case STORE:
        w.store_ms += s->n * 1000;
        return;
    case LOST:
        w.next = LOSE;
        return;
    case REFUSED:
        w.next = REFUSE;
        return;
    case LEADER:
        lead();
        return;
    case HAND:
        w.row.by_hand = 1;
        control_rollout_asked(w.control, ++w.row.request);
        return;
    case GOOD:
        put_outcomes((uint32_t)s->n, STATE_SUCCEEDED);
        return;
    case BAD:
        put_outcomes((uint32_t)s->n, STATE_FAILED);
        return;
    case DELETE:
        assert_true(
            open_block_merge(&w.reign.set, b, (unsigned)(s->n % PER_BLOCK), state_byte(STATE_CANCELED, 0), w.wall_ms));
        routed = may_be_sent();
        return;
    case AGAIN:
        assert_true(
            open_block_merge(&w.reign.set, b, (unsigned)(s->n % PER_BLOCK), state_byte(STATE_SENT, 1), w.wall_ms));
        assert_true(
            open_block_merge(&w.reign.set, b, (unsigned)(s->n % PER_BLOCK), state_byte(STATE_QUEUED, 1), w.wall_ms));
        return;
    case ACTED:
        assert_int_equal(w.row.acted, s->n);
        assert_int_equal(w.row.request, s->n);
        return;
    case HELD:
    case THRESHOLD:
    case END:
        return;
    }
}

static void make_steering(const struct test *t)
{
    Muster__V1__Steering in = MUSTER__V1__STEERING__INIT;
    Muster__V1__Rate rate = MUSTER__V1__RATE__INIT;
    Muster__V1__RateGrowth growth = MUSTER__V1__RATE_GROWTH__INIT;
    Muster__V1__Wave first = MUSTER__V1__WAVE__INIT, rest = MUSTER__V1__WAVE__INIT, *waves[] = {&first, &rest};
    Google__Protobuf__Duration after = GOOGLE__PROTOBUF__DURATION__INIT;
    rate.devices = t->rate;
    growth.percent = t->percent;
    growth.devices = t->step;
    growth.success_percent = 100;
    rate.growth = t->percent ? &growth : NULL;
    in.rate = t->rate ? &rate : NULL;
    first.size_case = MUSTER__V1__WAVE__SIZE_DEVICES;
    first.devices = t->first;
    after.seconds = t->after_s;
    rest.release_case = t->after_s ? MUSTER__V1__WAVE__RELEASE_AFTER : MUSTER__V1__WAVE__RELEASE_BY_HAND;
    if (t->after_s)
        rest.after = &after;
    else
        rest.by_hand = true;
    Muster__V1__Threshold threshold = MUSTER__V1__THRESHOLD__INIT, *thresholds[] = {&threshold};
    threshold.percent = (uint32_t)t->steps[0].n;
    threshold.action = MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_PAUSE;
    in.thresholds = thresholds;
    in.n_thresholds = t->steps[0].op == THRESHOLD;
    in.waves = waves;
    in.n_waves = t->first ? 2 : 0;
    assert_true(muster__v1__steering__get_packed_size(&in) <= sizeof w.steering);
    w.row.steering = (struct slice){w.steering, muster__v1__steering__pack(&in, w.steering)};
}

static void edges(void **unused)
{
    (void)unused;
    uint8_t targets[(PER_BLOCK + 7) / 8];
    memset(targets, 0xff, sizeof targets);
    targets[sizeof targets - 1] = (1u << PER_BLOCK % 8) - 1;
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        w = (struct world){.mono_us = 77 * 1000000ll, .wall_ms = 1700000000000, .store_ms = 1700000000123};
        open_set_init(&w.reign.set);
        w.batch = open_set_add(&w.reign.set, 1, BLOCKS, sizeof targets * BLOCKS);
        assert_non_null(w.batch);
        w.batch->created_ms = w.store_ms;
        w.batch->keep_cells = w.batch->handed = true;
        for (uint32_t k = 0; k < BLOCKS; k++)
            assert_true(open_batch_put(&w.reign.set, w.batch, k, 0, (struct slice){targets, sizeof targets},
                                       (struct slice){targets, 0}));
        make_steering(&tests[i]);
        w.held = tests[i].steps[0].op == HELD;
        lead();
        for (size_t k = 0; k < STEPS && tests[i].steps[k].op != END; k++)
            perform(&tests[i], k);
        control_rollout_free(&w.control);
        answer_all();
        assert_false(w.reign.failed);
        assert_int_equal(w.reign.refs, 0);
        open_set_free(&w.reign.set);
    }
}

int main(void)
{
    const struct CMUnitTest all[] = {cmocka_unit_test(edges)};
    return cmocka_run_group_tests(all, NULL, NULL);
}
