#include "dispatcher/control_time.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/leader_walk.h"
#include "dispatcher/retry.h"
#include "dispatcher/retry_check.h"
#include "dispatcher/schedule.h"
#include "lib/base/clock.h"

struct control_time {
    struct reign *reign;
    struct open_batch *batch;
    struct db_steer steer;
    bool early;      /* before its time */
    bool more, less; /* since it was released */
    bool any;        /* some window is open */
    bool over;       /* freed; a question is still under way */
    bool reading;
    struct schedule schedule;
    char (*zones)[DB_ZONE_MAX]; /* names of the schedule's */
    bool renew;                 /* zones are to be read again */
    uint32_t blocks;            /* of so many blocks, of a dynamic batch */
    /* When to do so again, by the clock that does not step: they are read, and what is late is looked for. */
    int64_t read_us, overdue_us, overtime_us;
};

struct control_time *control_time_new(struct reign *r, struct open_batch *batch, const struct db_steer *steer)
{
    if (!steer->not_before_ms && !steer->deliver_by_ms && !steer->execution_ms && !steer->window)
        return NULL;
    struct control_time *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->reign = r;
    t->batch = batch;
    t->steer = *steer;
    t->early = db_clock_ms(r->clock) < steer->not_before_ms;
    return t;
}

static void destroy(struct control_time *t)
{
    schedule_free(&t->schedule);
    free(t->zones);
    free(t);
}

void control_time_free(struct control_time **time)
{
    struct control_time *t = *time;
    *time = NULL;
    if (t && t->reading)
        t->over = true;
    else if (t)
        destroy(t);
}

bool control_time_holds(const struct control_time *t)
{
    return t->early || (t->steer.window && !t->any);
}

bool control_time_less(const struct control_time *t)
{
    return t->less;
}

bool control_time_more(const struct control_time *t)
{
    return t->more;
}

void control_time_closed(const struct control_time *t, uint32_t block, struct bitmap *out)
{
    *out = (struct bitmap){{0}};
    if (t->steer.window)
        schedule_closed(&t->schedule, block, out);
}

void control_time_released(struct control_time *t)
{
    t->more = t->less = false;
}

void control_time_mask(const struct control_time *t, const struct open_block *b, struct buf *states)
{
    struct state_string s;
    struct bitmap closed;
    if (!t->steer.window || !state_string_parse(&s, buf_slice(states)))
        return;
    schedule_closed(&t->schedule, b->block, &closed);
    uint8_t *p = buf_head(states) + STATE_STRING_HEADER;
    for (unsigned i = 0; i < s.count; i++)
        if (state_of(p[i]) == STATE_QUEUED && bitmap_test(&closed, s.first + i))
            p[i] = state_byte(STATE_HELD, state_attempts(p[i]));
}

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* Where it stands among those behind the default zone; SIZE_MAX: nowhere. */
static size_t find(char (*zones)[DB_ZONE_MAX], size_t n, const char *name)
{
    for (size_t i = 1; i < n; i++)
        if (strcmp(zones[i], name) == 0)
            return i;
    return SIZE_MAX;
}

/* Results: the windows, the devices. The default zone comes first. */
static void take(struct control_time *t, const struct pg_result *windows, const struct pg_result *devices)
{
    size_t n = (size_t)pg_rows(windows) + 1;
    struct schedule fresh;
    char(*zones)[DB_ZONE_MAX] = calloc(n, sizeof *zones);
    size_t *same = calloc(n, sizeof *same);
    if (!zones || !same || !schedule_make(&fresh, n))
        abort();
    snprintf(zones[0], DB_ZONE_MAX, "%s", t->steer.zone);
    for (size_t row = 0; row + 1 < n; row++) {
        const char *name = pg_text(windows, (int)row, 0);
        size_t at = strcmp(name, t->steer.zone) == 0 ? 0 : row + 1;
        snprintf(zones[row + 1], DB_ZONE_MAX, "%s", name);
        fresh.zones[at].opens_ms = fresh.zones[row + 1].opens_ms = pg_int(windows, (int)row, 1);
        fresh.zones[at].closes_ms = fresh.zones[row + 1].closes_ms = pg_int(windows, (int)row, 2);
    }
    for (int row = 0; row < pg_rows(devices); row++) {
        struct db_window_zone z;
        if (!db_window_zone_read(devices, row, &z))
            continue;
        size_t at = find(zones, n, z.zone);
        if (at != SIZE_MAX)
            target_set_add(&fresh.zones[at].devices, z.block, &z.slots);
    }
    for (size_t i = 0; i < n; i++)
        same[i] = i ? find(t->zones, t->zones ? t->schedule.count : 0, zones[i]) : 0;
    schedule_follow(&fresh, &t->schedule, same);
    schedule_free(&t->schedule);
    free(t->zones);
    free(same);
    t->schedule = fresh;
    t->schedule.known = true;
    t->zones = zones;
}

static void got_windows(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct control_time *t = arg;
    struct reign *r = t->reign;
    (void)error, (void)count;
    t->reading = false;
    if (!reign_back(r) || t->over) {
        destroy(t);
        return;
    }
    if (err) {
        t->renew = true;
        return; /* asked again with the next tick */
    }
    take(t, results[0], results[1]);
    t->read_us = clock_mono_us() + TIME_READ_MS * 1000ll;
}

static void read_windows(struct control_time *t, int64_t now_ms)
{
    struct db_window window = db_window_of(&t->steer);
    uint32_t n = t->batch->growing && t->blocks > t->batch->block_count ? t->blocks : t->batch->block_count;
    int32_t *blocks = calloc(n + 1u, sizeof *blocks);
    struct pg_txn *txn = pg_txn_new(t->reign->pg, PG_ANY_LANE);
    if (!blocks || !txn)
        abort();
    for (uint32_t i = 0; i < n; i++) /* those of a growing batch stand at their numbers */
        blocks[i] = (int32_t)(i < t->batch->block_count ? t->batch->blocks[i].block : i);
    db_window_next(txn, (int32_t)t->batch->tenant, &window, now_ms);
    db_window_zones(txn, (int32_t)t->batch->tenant, blocks, n);
    t->reading = true;
    t->renew = false;
    t->read_us = clock_mono_us() + TIME_FAILED_MS * 1000ll; /* should it fail */
    reign_hold(t->reign);
    pg_txn_submit(txn, got_windows, t);
    free(blocks);
}

void control_time_renew(struct control_time *t, uint32_t blocks)
{
    t->renew = t->steer.window != 0;
    t->blocks = blocks;
    t->read_us = t->renew ? 0 : t->read_us;
}

bool control_time_renewed(const struct control_time *t)
{
    return !t->renew && !t->reading;
}

/* --- timeouts ----------------------------------------------------------------------------------------------------- */

/* Of what is tried again some was sent in its time. */
static void end_overdue_of_block(struct control_time *t, struct open_block *b)
{
    struct bitmap unsent = {{0}};
    for (unsigned slot = b->first; b->remaining && slot < (unsigned)b->first + b->span; slot++)
        if (open_block_state(b, slot) && !state_attempts(open_block_state(b, slot)))
            bitmap_set(&unsent, slot);
    if (bitmap_next(&unsent, 0) < BLOCK_SLOTS)
        walk_block(t->reign, b, EVENT_OVERDUE, &unsent, NULL);
}

static void end_overdue(struct control_time *t)
{
    struct reign *r = t->reign;
    for (uint32_t i = 0; t->batch->retry_after && i < t->batch->block_count; i++)
        end_overdue_of_block(t, &t->batch->blocks[i]);
    if (t->batch->retry_after)
        walker_pump(r);
    else if (t->batch->touched || t->batch->busy)
        walk_batch(r, t->batch, EVENT_OVERDUE, NULL);
    else
        walk_unknown(r, t->batch, EVENT_OVERDUE);
}

/* Not when it is canceled, or expires before the least wait is over: then it would end as what was not sent. */
static bool is_tried_again(const struct open_batch *batch, uint8_t state, int64_t now_ms)
{
    return batch->retry_after >> STATE_TIMED_OUT & 1 && !batch->canceling &&
           state_attempts(state) < batch->retry_attempts &&
           batch->expires_ms - now_ms > RETRY_WAIT_MIN_MS * (100 - RETRY_JITTER_PERCENT) / 100;
}

static void end_overtime(struct control_time *t, int64_t now_ms)
{
    bool any = false;
    for (uint32_t i = 0; i < t->batch->block_count; i++) {
        struct open_block *b = &t->batch->blocks[i];
        struct bitmap late = {{0}}, again = {{0}};
        bool some = false, some_again = false;
        for (unsigned slot = b->first; b->cells && b->remaining && slot < (unsigned)b->first + b->span; slot++)
            if (state_of(open_block_state(b, slot)) == STATE_SENT &&
                open_block_time(b, slot) + t->steer.execution_ms <= now_ms) {
                bool tried = is_tried_again(t->batch, open_block_state(b, slot), now_ms);
                bitmap_set(tried ? &again : &late, slot);
                some = some || !tried;
                some_again = some_again || tried;
            }
        if (some)
            walk_block(t->reign, b, EVENT_OVERTIME, &late, NULL);
        if (some_again)
            walk_block(t->reign, b, EVENT_RETRY, &again, NULL);
        any = any || some || some_again;
    }
    if (any)
        walker_pump(t->reign);
}

/* --- the clock ---------------------------------------------------------------------------------------------------- */

bool control_time_tick(struct control_time *t)
{
    int64_t now_ms = db_clock_ms(t->reign->clock), now_us = clock_mono_us();
    bool was_early = t->early;
    t->early =
        t->early && now_ms < t->steer.not_before_ms; /* what has begun goes on, also when the clock is set back */
    bool news = was_early != t->early;
    if (t->steer.window) {
        struct schedule_turn turn = schedule_turn(&t->schedule, now_ms);
        news = news || t->any != turn.any || turn.more || turn.less;
        t->any = turn.any;
        t->more = t->more || turn.more;
        t->less = t->less || turn.less;
        if (!t->reading && (now_us >= t->read_us || (t->schedule.known && turn.next_ms <= now_ms)))
            read_windows(t, now_ms);
    }
    if (t->steer.deliver_by_ms && now_ms >= t->steer.deliver_by_ms && now_us >= t->overdue_us) {
        t->overdue_us = now_us + TIME_OVERDUE_MS * 1000ll;
        end_overdue(t);
    }
    if (t->steer.execution_ms && now_us >= t->overtime_us && reign_live(t->reign)) {
        t->overtime_us = now_us + TIME_OVERTIME_MS * 1000ll;
        end_overtime(t, now_ms);
    }
    return news;
}
