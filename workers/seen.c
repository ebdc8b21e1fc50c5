#include "workers/seen.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/block.h"
#include "lib/store/db_seen.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define HOUR_MS    (3600 * 1000ll)
#define ROOM_FIRST 64

/* A block of a tenant in this hour. */
struct place {
    uint64_t key;        /* tenant << 32 | block, plus 1; 0: free */
    struct bitmap slots; /* seen */
    bool fresh;          /* not all of it is written */
};

/* Open addressing, at most half full. */
struct seen {
    struct worker *worker;
    struct place *places;
    size_t used, room;
    int64_t hour; /* since 1970, that the bits stand for */
    bool writing;
    struct ev_timer timer;
};

static size_t home(uint64_t key, size_t room)
{
    return (size_t)(key * 0x9e3779b97f4a7c15ull >> 24) & (room - 1);
}

static struct place *find(struct place *places, size_t room, uint64_t key)
{
    size_t i = home(key, room);
    while (places[i].key && places[i].key != key)
        i = (i + 1) & (room - 1);
    return &places[i];
}

static bool grow(struct seen *seen)
{
    size_t room = seen->room ? seen->room * 2 : ROOM_FIRST;
    struct place *places = calloc(room, sizeof *places);
    if (!places)
        return false;
    for (size_t i = 0; i < seen->room; i++)
        if (seen->places[i].key)
            *find(places, room, seen->places[i].key) = seen->places[i];
    free(seen->places);
    seen->places = places;
    seen->room = room;
    return true;
}

void seen_mark(struct seen *seen, uint32_t tenant, uint32_t seq)
{
    uint64_t key = ((uint64_t)tenant << 32 | block_of(seq)) + 1;
    if (2 * (seen->used + 1) > seen->room && !grow(seen))
        return;
    struct place *p = find(seen->places, seen->room, key);
    seen->used += !p->key;
    p->key = key;
    if (bitmap_test(&p->slots, slot_of(seq)))
        return;
    bitmap_set(&p->slots, slot_of(seq));
    p->fresh = true;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void on_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct seen *seen = arg;
    (void)results, (void)count;
    seen->writing = false;
    if (err == ERR_OK || err == ERR_CLOSED)
        return;
    log_warn("seen_write_failed", "error=%s message=%s", err_name(err), log_quote(error ? error->message : ""));
    for (size_t i = 0; i < seen->room; i++)
        seen->places[i].fresh = seen->places[i].key != 0;
}

/* What is fresh, as columns. Returns how many blocks; they are not fresh any more. */
static size_t gather(struct seen *seen, struct db_seen *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < seen->room; i++) {
        struct place *p = &seen->places[i];
        if (!p->fresh)
            continue;
        p->fresh = false;
        blocks[n++] = (struct db_seen){(int32_t)((p->key - 1) >> 32), (uint32_t)(p->key - 1), &p->slots};
    }
    return n;
}

void seen_write(struct seen *seen)
{
    size_t n = 0;
    for (size_t i = 0; i < seen->room; i++)
        n += seen->places[i].fresh;
    struct db_seen *blocks = n && !seen->writing ? malloc(n * sizeof *blocks) : NULL;
    if (!blocks)
        return; /* comes again */
    struct pg_txn *txn = pg_txn_new(seen->worker->pg, PG_ANY_LANE);
    n = gather(seen, blocks);
    db_seen_add(txn, (int32_t)seen->hour, blocks, n);
    seen->writing = true;
    pg_txn_submit(txn, on_written, seen);
    free(blocks);
}

static void mark_session(void *arg, struct session *s)
{
    seen_mark(arg, s->tenant, s->seq);
}

static bool is_fresh(const struct seen *seen)
{
    for (size_t i = 0; i < seen->room; i++)
        if (seen->places[i].fresh)
            return true;
    return false;
}

/* A new hour begins when all of the last is written: who is still connected is seen again. */
static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct seen *seen = timer->data;
    int64_t hour = clock_wall_ms() / HOUR_MS;
    (void)loop, (void)events;
    if (hour != seen->hour && !seen->writing && !is_fresh(seen)) {
        free(seen->places);
        seen->places = NULL;
        seen->used = seen->room = 0;
        seen->hour = hour;
        session_table_each(seen->worker->sessions, mark_session, seen);
    }
    seen_write(seen);
}

struct seen *seen_new(struct worker *worker, int64_t interval_ms)
{
    struct seen *seen = calloc(1, sizeof *seen);
    if (!seen)
        return NULL;
    seen->worker = worker;
    seen->hour = clock_wall_ms() / HOUR_MS;
    ev_timer_init(&seen->timer, on_timer, (double)interval_ms / 1000, (double)interval_ms / 1000);
    seen->timer.data = seen;
    ev_timer_start(worker->loop, &seen->timer);
    return seen;
}

void seen_free(struct seen **seen)
{
    if (!*seen)
        return;
    ev_timer_stop((*seen)->worker->loop, &(*seen)->timer);
    free((*seen)->places);
    free(*seen);
    *seen = NULL;
}
