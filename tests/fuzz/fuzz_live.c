/* What Redis and its scripts answer, as trees of any shape: the first byte chooses the move, the next how many requests
 * of it, the rest are replies in RESP2, read by hiredis as from a connection. Every callback comes exactly once, and
 * all it is given can be read. */
#include <hiredis/hiredis.h>

#include "lib/store/live.h"
#include "lib/store/live_look.h"
#include "lib/store/redis.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/replies.h"

#define ANSWERS_MAX   4096
#define TENANT        7
#define BLOCK         3
#define BATCH         42
#define BLOCKS_LISTED 3

static unsigned asked, told;   /* callbacks owed, and made */
static volatile unsigned sink; /* so that all is read */

/* --- callbacks ---------------------------------------------------------------------------------------------------- */

static void on_done(void *arg, enum err err)
{
    (void)arg, (void)err;
    told++;
}

static void on_int(void *arg, enum err err, int64_t value)
{
    (void)arg, (void)value;
    check(!err || value == 0);
    told++;
}

static void on_bytes(void *arg, enum err err, struct slice value)
{
    (void)arg;
    check(!err || value.len == 0);
    touch(value);
    told++;
}

static void on_route(void *arg, enum err err, const struct live_routed *routed, size_t count)
{
    (void)arg;
    check(!err || count == 0);
    for (size_t i = 0; i < count; i++)
        check(routed[i].worker != 0 && bitmap_count(&routed[i].slots) > 0);
    told++;
}

static void on_record(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count)
{
    (void)arg;
    check(!err || count == 0);
    for (size_t i = 0; i < count; i++)
        check(!state_is_terminal(state_of(before[i])) || after[i] == before[i]);
    told++;
}

static void on_states(void *arg, enum err err, const struct slice *states, size_t count)
{
    (void)arg;
    check(count == (err ? 0 : BLOCKS_LISTED));
    for (size_t i = 0; i < count; i++)
        touch(states[i]);
    told++;
}

static void on_attached(void *arg, enum err err, const struct live_attached *attached, size_t count)
{
    uint64_t sum = 0;
    (void)arg;
    check(!err || count == 0);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < attached[i].count; k++)
            sum += attached[i].pending[k].batch + attached[i].pending[k].state;
    sink = (unsigned)sum;
    told++;
}

static void on_waiting(void *arg, enum err err, uint16_t worker, const struct live_pending *commands, size_t count)
{
    uint64_t sum = worker;
    (void)arg;
    check(!err || (count == 0 && worker == 0));
    for (size_t i = 0; i < count; i++)
        sum += commands[i].batch + commands[i].state;
    sink = (unsigned)sum;
    told++;
}

static void on_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    unsigned alive = 0;
    (void)arg;
    check(!err || count == 0);
    for (size_t i = 0; i < count; i++)
        alive += workers[i].alive;
    sink = alive;
    told++;
}

static void on_scan(void *arg, enum err err, const struct live_kept *kept, size_t count, uint64_t next)
{
    unsigned sum = (unsigned)next;
    (void)arg;
    check(!err || count == 0);
    for (size_t i = 0; i < count; i++)
        sum += kept[i].in_block;
    sink = sum;
    told++;
}

static void on_take(void *arg, enum err err, enum live_class class, const struct slice *entries, size_t count)
{
    (void)arg;
    check((!err || count == 0) && class < LIVE_CLASSES);
    for (size_t i = 0; i < count; i++)
        touch(entries[i]);
    told++;
}

static void on_numbers(void *arg, enum err err, const uint16_t *numbers, size_t count)
{
    unsigned sum = 0;
    (void)arg;
    check(!err || count == 0);
    for (size_t i = 0; i < count; i++)
        sum += numbers[i];
    sink = sum;
    told++;
}

/* --- moves -------------------------------------------------------------------------------------------------------- */

static const struct live_place place = {TENANT, BLOCK, BATCH};

static void route(struct live *live, bool wide)
{
    struct bitmap targets = {{0}};
    struct buf states = {0};
    for (unsigned slot = 5; slot < (wide ? 305 : 25); slot++)
        bitmap_set(&targets, slot);
    state_string_put(&states, &targets, state_byte(STATE_QUEUED, 0));
    live_route(live, place, BATCH, buf_slice(&states), on_route, NULL);
    buf_free(&states);
}

static void record(struct live *live, size_t count)
{
    struct live_event events[40];
    for (size_t i = 0; i < count; i++)
        events[i] = (struct live_event){.slot = (uint16_t)(i * 37 % BLOCK_SLOTS), .event = (uint8_t)(i % EVENT_COUNT)};
    live_record(live, place, events, count, on_record, NULL);
}

static void ask(struct live *live, unsigned move)
{
    static const uint16_t slots[] = {1, 1023, 5, 5};
    static const uint32_t blocks[BLOCKS_LISTED] = {0, 1, 9};
    asked++;
    switch (move) {
    case 0:
        route(live, true);
        break;
    case 1:
        route(live, false);
        break;
    case 2:
        record(live, 24);
        break;
    case 3:
        record(live, 40);
        break;
    case 4:
        live_apply(live, place, EVENT_CANCEL, NULL, on_bytes, NULL);
        break;
    case 5:
        live_states(live, TENANT, BATCH, blocks, BLOCKS_LISTED, on_states, NULL);
        break;
    case 6:
        live_attach(live, TENANT, BLOCK, 9, slots, 4, 16, on_attached, NULL);
        break;
    case 7:
        live_reap(live, TENANT, BLOCK, 9, on_int, NULL);
        break;
    case 8:
        live_presence(live, TENANT, BLOCK, on_bytes, NULL);
        break;
    case 9:
        live_worker_acquire(live, 9, "instance", 1000, on_done, NULL);
        break;
    case 10:
        live_worker_renew(live, 9, "instance", 1000, on_done, NULL);
        break;
    case 11:
        live_workers(live, on_workers, NULL);
        break;
    case 12:
        live_inbox_take(live, 9, 3, 100, 10, on_take, NULL);
        break;
    case 13:
        live_cancel_confirmed(live, BATCH, on_numbers, NULL);
        break;
    case 14:
        live_generation_begin(live);
        live_generation_get(live, on_int, NULL);
        break;
    case 15:
        live_generation_set(live, on_done, NULL);
        break;
    case 16:
        live_get_spec(live, BATCH, on_bytes, NULL);
        break;
    case 17:
        live_learn(live, TENANT, BLOCK, on_done, NULL);
        break;
    case 18:
        live_confirmed(live, BATCH, 3, on_numbers, NULL);
        break;
    case 19:
        live_scan(live, 0, on_scan, NULL);
        break;
    case 20:
        live_waiting(live, TENANT, BLOCK, 5, on_waiting, NULL);
        break;
    case 21:
        live_worker_there(live, 9, on_int, NULL);
        break;
    case 22:
        live_get_values(live, place, on_bytes, NULL);
        break;
    default:
        live_inbox_length(live, 9, LIVE_BULK, on_int, NULL);
        break;
    }
}

/* Eighteen of them have the lower bytes, so that inputs mean the same when there are more. */
static unsigned move_of(uint8_t choice)
{
    return choice < 216 ? choice % 18 : choice < 252 ? 18 + choice % 4 : 22 + choice % 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    void *reply = NULL;
    log_init("fuzz", SILENT);
    struct live *live = live_new(NULL, "redis://x");
    unsigned move = move_of(take_u8(&in)), more = take_u8(&in);
    redisReader *reader = replies_reader();
    live_take_as(live, "instance");
    asked = told = 0;
    ask(live, move);
    if (more & 128)
        ask(live, move_of((uint8_t)more));
    redisReaderFeed(reader, (const char *)in.data, in.len);
    for (unsigned i = 0; i < ANSWERS_MAX && replies_due > 0; i++) {
        if (redisReaderGetReply(reader, &reply) != REDIS_OK || !reply)
            break;
        replies_answer(reply);
        freeReplyObject(reply);
    }
    while (replies_due > 0)
        replies_answer(NULL);
    check(asked == told);
    redisReaderFree(reader);
    live_free(&live);
    return 0;
}
