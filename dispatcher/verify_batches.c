/* Open batches: what PostgreSQL knows of each command, and what stands in Redis. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/verify.h"
#include "dispatcher/view.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_open.h"

#define PAGE_BATCHES 200
#define KIND(name)   MUSTER__V1__DIFFERENCE__DIFFERENCE_##name

struct batches {
    struct db_open rows[PAGE_BATCHES];
    size_t count, next;
    uint64_t last;
    int32_t *blocks; /* of the batch */
    size_t block_count, block_next;
    struct view_block part[VERIFY_MOVES];
    size_t part_count, left;
};

struct looked {
    struct verify *v;
    size_t i; /* of the part */
};

static void next_part(struct verify *v);

static const struct db_open *row_of(const struct batches *b)
{
    return &b->rows[b->next];
}

/* --- one block ---------------------------------------------------------------------------------------------------- */

/* Commands that differ, by how. */
struct differ {
    unsigned kinds[KIND(WORKER_SILENT) + 1];
    uint8_t postgres[KIND(WORKER_SILENT) + 1], redis[KIND(WORKER_SILENT) + 1]; /* of the first one: state bytes */
};

static void differs(struct differ *d, unsigned kind, uint8_t postgres, uint8_t redis)
{
    if (d->kinds[kind]++)
        return;
    d->postgres[kind] = postgres;
    d->redis[kind] = redis;
}

/* Whether the worker that presence names has the device, and nothing for it, neither in its hands nor in its inbox. */
static bool out_of_hands(struct verify *v, const struct db_open *row, uint32_t block, unsigned slot, uint16_t number)
{
    const struct verify_worker *w = number ? verify_worker(v, number) : NULL;
    if (!w || !w->telling || w->waiting || w->inbox)
        return false;
    const struct verify_report *r = verify_report(v, row->tenant, block, number);
    return r && verify_report_idle(v, r, slot);
}

static uint16_t presence_of(const struct live_seen *seen, const struct state_string *s, unsigned slot)
{
    size_t at = (size_t)(slot - s->first) * 2;
    return slot >= s->first && at + 2 <= seen->presence.len ? load_u16le(seen->presence.data + at) : 0;
}

static void compare_command(struct differ *d, uint8_t postgres, uint8_t redis)
{
    enum command_state there = state_of(redis);
    bool ended = state_is_terminal(state_of(postgres));
    if (!redis)
        differs(d, KIND(WRONG_DEVICES), postgres, redis);
    else if (there == STATE_NONE || there >= STATE_COUNT)
        differs(d, KIND(IMPOSSIBLE_STATE), postgres, redis);
    else if (ended && !state_is_terminal(there))
        differs(d, KIND(REDIS_BEHIND), postgres, redis);
    else if (!ended && state_is_terminal(there))
        differs(d, KIND(REDIS_AHEAD), postgres, redis);
    else if (ended && there != state_of(postgres))
        differs(d, KIND(OUTCOMES_DIFFER), postgres, redis);
}

static void compare_states(struct verify *v, const struct view_block *b, const struct live_seen *seen,
                           const struct state_string *s, struct differ *d)
{
    const struct db_open *row = row_of(v->part);
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++) {
        uint8_t redis = state_string_get(s, slot);
        if (!bitmap_test(&b->targets, slot)) {
            if (redis)
                differs(d, KIND(WRONG_DEVICES), 0, redis);
            continue;
        }
        compare_command(d, b->states[slot], redis);
        bool given = state_of(redis) == STATE_ROUTED || state_of(redis) == STATE_SENT;
        if (given && !state_is_terminal(state_of(b->states[slot])) &&
            out_of_hands(v, row, b->block, slot, presence_of(seen, s, slot)))
            differs(d, KIND(NOT_IN_HANDS), b->states[slot], redis);
    }
}

static unsigned open_commands(const struct view_block *b)
{
    unsigned n = 0;
    for (unsigned slot = bitmap_next(&b->targets, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&b->targets, slot + 1))
        n += !state_is_terminal(state_of(b->states[slot]));
    return n;
}

static const char *state_text(uint8_t byte, const char *none)
{
    return byte ? state_name(state_of(byte)) : none;
}

static void compare_block(struct verify *v, const struct view_block *b, const struct live_seen *seen)
{
    const struct db_open *row = row_of(v->part);
    struct state_string s;
    struct differ d = {{0}, {0}, {0}};
    unsigned open = open_commands(b);
    if (!seen->states.len) {
        if (open) { /* a batch whose commands have all ended is being closed */
            struct verify_finding *f = verify_note(v, KIND(STATES_MISSING), row->tenant, b->block, row->id, 0, open);
            snprintf(f->postgres, sizeof f->postgres, "open");
            snprintf(f->redis, sizeof f->redis, "%s", seen->listed ? "listed, no states" : "none");
        }
        return;
    }
    if (!state_string_parse(&s, seen->states)) {
        s = (struct state_string){0, 0, NULL};
        d.kinds[KIND(IMPOSSIBLE_STATE)] = open;
    } else
        compare_states(v, b, seen, &s, &d);
    if (!seen->listed && open)
        d.kinds[KIND(NOT_LISTED)] = open;
    for (unsigned kind = 0; kind <= KIND(WORKER_SILENT); kind++) {
        if (!d.kinds[kind])
            continue;
        struct verify_finding *f =
            verify_note(v, (Muster__V1__Difference)kind, row->tenant, b->block, row->id, 0, d.kinds[kind]);
        snprintf(f->postgres, sizeof f->postgres, "%s", state_text(d.postgres[kind], "not addressed"));
        snprintf(f->redis, sizeof f->redis, "%s", state_text(d.redis[kind], kind == KIND(NOT_LISTED) ? "" : "none"));
    }
}

static void got_look(void *arg, enum err err, const struct live_seen *seen)
{
    struct looked l = *(struct looked *)arg;
    struct verify *v = l.v;
    free(arg);
    if (!verify_back(v, err))
        return;
    struct batches *b = v->part;
    v->summary.block_rows++;
    compare_block(v, &b->part[l.i], seen);
    if (--b->left == 0)
        next_part(v);
}

static void got_values(void *arg, enum err err, int64_t there)
{
    struct looked l = *(struct looked *)arg;
    struct verify *v = l.v;
    free(arg);
    if (!verify_back(v, err))
        return;
    struct batches *b = v->part;
    const struct db_open *row = row_of(b);
    unsigned open = open_commands(&b->part[l.i]);
    if (!there && open) {
        struct verify_finding *f =
            verify_note(v, KIND(SPEC_MISSING), row->tenant, b->part[l.i].block, row->id, 0, open);
        snprintf(f->postgres, sizeof f->postgres, "values");
        snprintf(f->redis, sizeof f->redis, "none");
    }
    if (--b->left == 0)
        next_part(v);
}

/* A move about block `i` of the part begins. NULL without memory: then the run ends. */
static struct looked *look_at(struct verify *v, size_t i)
{
    struct looked *l = malloc(sizeof *l);
    if (!l) {
        verify_failed(v, ERR_NOMEM);
        return NULL;
    }
    *l = (struct looked){v, i};
    verify_go(v);
    return l;
}

/* PostgreSQL was read before: what has ended there has ended in Redis. */
static void got_blocks(void *arg, enum err err, struct view_block *blocks, size_t n)
{
    struct verify *v = arg;
    if (!verify_back(v, err))
        return;
    struct batches *b = v->part;
    const struct db_open *row = row_of(b);
    b->part_count = n;
    b->left = row->valued ? 2 * n : n;
    if (n)
        memcpy(b->part, blocks, n * sizeof *blocks);
    for (size_t i = 0; i < n; i++) {
        struct live_place place = {row->tenant, blocks[i].block, row->id};
        struct looked *look = look_at(v, i), *values = row->valued ? look_at(v, i) : NULL;
        if (look)
            live_look(v->r.d->live, place, got_look, look);
        if (values)
            live_values_there(v->r.d->live, place, got_values, values);
        if (!look || (row->valued && !values))
            break;
    }
    if (verify_on(v) && !n)
        next_part(v);
}

/* --- batch by batch ----------------------------------------------------------------------------------------------- */

static void next_batch(struct verify *v);

static void next_part(struct verify *v)
{
    struct batches *b = v->part;
    size_t n = b->block_count - b->block_next;
    if (!n) {
        b->next++;
        next_batch(v);
        return;
    }
    if (n > VERIFY_MOVES)
        n = VERIFY_MOVES;
    const struct db_open *row = row_of(b);
    struct view_batch view = {.tenant = (int32_t)row->tenant, .id = (int64_t)row->id, .created_ms = row->created_ms};
    const int32_t *blocks = b->blocks + b->block_next;
    b->block_next += n;
    verify_go(v);
    view_load(v->r.d, &view, blocks, n, got_blocks, v);
}

static void got_block_list(void *arg, enum err err, const struct pg_error *error,
                           const struct pg_result *const *results, size_t count)
{
    struct verify *v = arg;
    (void)error, (void)count;
    if (!verify_back(v, err))
        return;
    struct batches *b = v->part;
    size_t n = pg_rows(results[0]) ? pg_int_array(results[0], 0, 0, NULL, 0) : 0;
    int64_t *wide = calloc(n + 1, sizeof *wide);
    free(v->blocks);
    v->blocks = calloc(n + 1, sizeof *v->blocks);
    if (!wide || !v->blocks) {
        free(wide);
        verify_no_memory(v);
        return;
    }
    if (n)
        pg_int_array(results[0], 0, 0, wide, n);
    for (size_t i = 0; i < n; i++)
        v->blocks[i] = (int32_t)wide[i];
    free(wide);
    b->blocks = v->blocks;
    b->block_count = n;
    b->block_next = 0;
    next_part(v);
}

static void got_spec(void *arg, enum err err, int64_t there)
{
    struct verify *v = arg;
    if (!verify_back(v, err))
        return;
    const struct db_open *row = row_of(v->part);
    if (!there) {
        struct verify_finding *f = verify_note(v, KIND(SPEC_MISSING), row->tenant, 0, row->id, 0, 1);
        snprintf(f->postgres, sizeof f->postgres, "open");
        snprintf(f->redis, sizeof f->redis, "none");
    }
    struct pg_txn *txn = pg_txn_new(v->r.d->pg, PG_ANY_LANE);
    if (txn)
        db_batch_blocks(txn, (int64_t)row->id);
    verify_go(v);
    pg_txn_submit(txn, got_block_list, v);
}

static void next_page(struct verify *v);

/* A batch that was never routed is in transit. */
static void next_batch(struct verify *v)
{
    struct batches *b = v->part;
    for (; b->next < b->count; b->next++) {
        const struct db_open *row = row_of(b);
        buf_put_u64le(&v->open, row->id);
        if (!row->routed || !verify_tenant(v, row->tenant))
            continue;
        v->summary.batches++;
        verify_go(v);
        live_spec_there(v->r.d->live, row->id, got_spec, v);
        return;
    }
    if (v->open.failed)
        verify_failed(v, ERR_NOMEM);
    if (!verify_on(v))
        return;
    if (b->count == PAGE_BATCHES)
        next_page(v);
    else
        verify_next(v);
}

static void got_page(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct verify *v = arg;
    (void)error, (void)count;
    if (!verify_back(v, err))
        return;
    struct batches *b = v->part;
    b->count = (size_t)pg_rows(results[0]);
    b->next = 0;
    for (size_t i = 0; i < b->count; i++)
        db_open_read(results[0], (int)i, &b->rows[i]);
    if (b->count)
        b->last = b->rows[b->count - 1].id;
    next_batch(v);
}

static void next_page(struct verify *v)
{
    struct pg_txn *txn = pg_txn_new(v->r.d->pg, PG_ANY_LANE);
    if (txn)
        db_open_page(txn, ((struct batches *)v->part)->last, PAGE_BATCHES);
    verify_go(v);
    pg_txn_submit(txn, got_page, v);
}

void verify_batches(struct verify *v)
{
    v->part = calloc(1, sizeof(struct batches));
    if (v->part)
        next_page(v);
    else
        verify_no_memory(v);
}
