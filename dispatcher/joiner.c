#include "dispatcher/joiner.h"

#include <inttypes.h>
#include <stdlib.h>

#include "dispatcher/control.h"
#include "dispatcher/joiner_internal.h"
#include "dispatcher/route.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_control.h"
#include "lib/store/db_dynamic.h"

struct joiner {
    struct list all; /* the one whose turn it is first */
    struct join_look *look;
};

struct joiner *joiner_new(struct reign *r)
{
    (void)r;
    struct joiner *j = calloc(1, sizeof *j);
    if (j)
        list_init(&j->all);
    return j;
}

static void growing_free(struct growing *g)
{
    list_remove(&g->link);
    muster__v1__target__free_unpacked(g->target, NULL);
    target_set_free(&g->joined);
    target_set_free(&g->barred);
    target_set_free(&g->taken);
    free(g->waits);
    free(g);
}

static void look_free(struct join_look *look)
{
    resolution_free(&look->res);
    muster__v1__target__free_unpacked(look->target, NULL);
    free(look);
}

/* What is being resolved needs its target still. */
static void let_go(struct joiner *j, struct growing *g)
{
    struct join_look *look = j->look;
    if (!look || look->of != g)
        return;
    look->of = NULL;
    look->target = g->target;
    g->target = NULL;
}

/* What is read, resolved or written is freed by its answer. */
void joiner_free(struct joiner **joiner)
{
    struct joiner *j = *joiner;
    *joiner = NULL;
    if (!j)
        return;
    list_for_each (l, tmp, &j->all) {
        struct growing *g = container_of(l, struct growing, link);
        let_go(j, g);
        list_remove(&g->link);
        if (!g->reading)
            growing_free(g);
    }
    if (j->look && j->look->resolved)
        look_free(j->look);
    free(j);
}

static struct growing *find(const struct reign *r, const struct open_batch *batch)
{
    struct list *head = &r->joiner->all;
    for (struct list *l = head->next; l != head; l = l->next)
        if (container_of(l, struct growing, link)->batch == batch)
            return container_of(l, struct growing, link);
    return NULL;
}

bool growing_goes_on(const struct growing *g)
{
    return g->batch->growing && !g->batch->canceling && !g->batch->ending && g->batch->stage == OPEN_RUNNING;
}

static bool may_join(const struct growing *g)
{
    return growing_goes_on(g) && (!g->end || g->taken.count);
}

bool joiner_submits(const struct reign *r, const struct open_batch *batch)
{
    const struct growing *g = batch->growing ? find(r, batch) : NULL;
    return g && g->submitting;
}

void joiner_hint(struct reign *r, uint32_t tenant)
{
    list_for_each (l, tmp, &r->joiner->all) {
        struct growing *g = container_of(l, struct growing, link);
        g->wanted = g->wanted || !tenant || g->batch->tenant == tenant;
    }
}

/* --- what is read once, or again ---------------------------------------------------------------------------------- */

void growing_read_again(struct growing *g)
{
    let_go(g->reign->joiner, g);
    muster__v1__target__free_unpacked(g->target, NULL);
    g->target = NULL;
    target_set_free(&g->joined);
    target_set_free(&g->barred);
    target_set_free(&g->taken);
    g->earliest_us = 0;
}

void growing_seal(struct growing *g)
{
    if (g->batch->keyed && growing_goes_on(g))
        growing_read_again(g);
    else
        open_batch_seal(g->batch);
}

void joiner_end(struct reign *r, struct open_batch *batch)
{
    struct growing *g = batch->growing ? find(r, batch) : NULL;
    if (!g)
        return;
    g->end = true;
    if (!g->writing)
        growing_seal(g);
}

/* It may be gone after this. */
static void end_without_taken(struct growing *g)
{
    if (!g->end || g->taken.count)
        return;
    open_batch_seal(g->batch);
    reign_check_complete(g->reign, g->batch);
}

static struct target_set *set_of(struct growing *g, int kind)
{
    return kind == DB_PART_JOINED   ? &g->joined
           : kind == DB_PART_BARRED ? &g->barred
           : kind == DB_PART_TAKEN  ? &g->taken
                                    : NULL;
}

static void got_target(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct growing *g = arg;
    struct db_control_part part;
    struct target_set *set;
    (void)error;
    bool lives = reign_back(g->reign);
    g->reading = false;
    if (!lives || g->over) {
        growing_free(g);
        return;
    }
    g->earliest_us = clock_mono_us() + JOIN_PACE_MS * 1000;
    if (err || !pg_rows(results[0]))
        return; /* asked again */
    struct slice bytes = pg_bytes(results[0], 0, 0);
    g->target = muster__v1__target__unpack(NULL, bytes.len, bytes.data);
    if (!g->target)
        log_error("target_unreadable", "batch=%" PRIu64, g->batch->id);
    g->end = g->end || pg_bool(results[0], 0, 1);
    for (size_t n = 1; n < count; n++)
        for (int i = 0; i < pg_rows(results[n]); i++)
            if (db_control_part_read(results[n], i, &part) && (set = set_of(g, part.kind)))
                target_set_add(set, part.block, &part.slots);
    g->wanted = !g->left_out;
    end_without_taken(g);
}

static void read_target(struct growing *g)
{
    struct pg_txn *txn = pg_txn_new(g->reign->pg, PG_ANY_LANE);
    if (txn) {
        db_dynamic_target(txn, g->batch->id);
        db_control_parts(txn, g->batch->id);
        if (g->batch->keyed)
            db_dynamic_taken(txn, g->batch->id);
    }
    g->reading = true;
    reign_hold(g->reign);
    pg_txn_submit(txn, got_target, g);
}

void joiner_add(struct reign *r, struct open_batch *batch)
{
    struct growing *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->reign = r;
    g->batch = batch;
    list_append(&r->joiner->all, &g->link);
    read_target(g);
}

void joiner_gone(struct reign *r, const struct open_batch *batch)
{
    struct growing *g = find(r, batch);
    if (!g)
        return;
    let_go(r->joiner, g);
    g->over = true;
    list_remove(&g->link);
    if (!g->reading)
        growing_free(g);
}

/* --- who joins ---------------------------------------------------------------------------------------------------- */

/* Of one tenant others have their turn now. */
static void look_ended(struct reign *r)
{
    struct join_look *look = r->joiner->look;
    struct growing *g = look->of;
    int64_t now_us = clock_mono_us(), pause_us = (now_us - look->began_us) * JOIN_PACE_TIMES;
    if (pause_us < JOIN_PACE_MS * 1000)
        pause_us = JOIN_PACE_MS * 1000;
    list_for_each (l, tmp, &r->joiner->all) {
        struct growing *other = container_of(l, struct growing, link);
        if (g && other->batch->tenant == g->batch->tenant)
            other->earliest_us = now_us + pause_us;
    }
    if (g)
        g->latest_us = now_us + (g->left_out ? JOIN_AGAIN_MS : JOIN_INTERVAL_MS) * 1000;
    r->joiner->look = NULL;
    look_free(look);
}

/* Less those who have as many open commands as they may; who has lost older ones for this has room. */
static void leave_full(struct growing *g, uint32_t block, struct bitmap *slots)
{
    struct open_counts *counts = &g->reign->set.open;
    const struct open_counts_block *b = open_counts_find(counts, g->batch->tenant, block);
    struct bitmap full;
    if (!b || !b->full || g->taken.count)
        return;
    open_counts_full(counts, b, &full);
    bitmap_and(&full, slots);
    bitmap_and_not(slots, &full);
    g->left_out = g->left_out || bitmap_next(&full, 0) < BLOCK_SLOTS;
}

/* Less those for whom there is a newer batch of its key. */
static void leave_barred(const struct growing *g, uint32_t block, struct bitmap *slots)
{
    const struct target_block *b = target_set_find(&g->barred, block);
    if (b)
        bitmap_and_not(slots, &b->slots);
}

struct bitmap growing_new(struct growing *g, const struct target_block *meant)
{
    const struct open_batch *batch = g->batch;
    struct bitmap slots = meant->slots;
    if (meant->block < batch->block_count) {
        struct bitmap there = open_block_bitmap(&batch->blocks[meant->block]);
        bitmap_and_not(&slots, &there);
    }
    control_may_join(batch->control, meant->block, &slots);
    leave_barred(g, meant->block, &slots);
    leave_full(g, meant->block, &slots);
    return slots;
}

const struct target_set *join_look_meant(const struct join_look *look)
{
    return look->of->taken.count ? &look->of->taken : &look->res.set;
}

static bool anybody_new(const struct join_look *look)
{
    const struct target_set *all = join_look_meant(look);
    for (size_t i = 0; i < all->count; i++) {
        struct bitmap new = growing_new(look->of, &all->blocks[i]);
        if (bitmap_next(&new, 0) < BLOCK_SLOTS)
            return true;
    }
    return false;
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Their zones and platforms may not be known yet. */
static void renew(const struct join_look *look)
{
    const struct target_set *all = join_look_meant(look);
    control_renew(look->of->batch->control, all->blocks[all->count - 1].block + 1);
}

static void resolved(struct resolution *res)
{
    struct join_look *look = res->arg;
    struct reign *r = look->reign;
    if (!reign_back(r)) {
        look_free(look);
        return;
    }
    look->resolved = true;
    struct growing *g = look->of;
    if (res->st.code != STATUS_OK) {
        log_warn("target_unresolved", "batch=%" PRIu64 " why=%s", g ? g->batch->id : 0, res->st.reason);
        if (g && res->store_failed)
            g->wanted = true; /* who has come is not left to the next look by the clock */
        look_ended(r);
    } else if (!g || !may_join(g) || !anybody_new(look)) {
        look_ended(r);
    } else {
        renew(look);
    }
}

/* At whom the key was taken for, which may be long ago. Who does not join now, being canceled or barred, does not
 * later.
 */
static void look_at_taken(struct join_look *look)
{
    struct growing *g = look->of;
    look->resolved = true;
    look->began_ms = g->batch->created_ms;
    g->wanted = true; /* others come after them */
    if (anybody_new(look)) {
        renew(look);
        return;
    }
    look_ended(look->reign);
    target_set_free(&g->taken);
    end_without_taken(g);
}

static void begin(struct reign *r, struct growing *g)
{
    struct join_look *look = calloc(1, sizeof *look);
    if (!look)
        abort();
    list_remove(&g->link);
    list_append(&r->joiner->all, &g->link);
    g->wanted = g->left_out = false;
    *look = (struct join_look){.reign = r, .of = g, .began_us = clock_mono_us(), .began_ms = db_clock_ms(r->clock)};
    r->joiner->look = look;
    if (g->taken.count) {
        look_at_taken(look);
        return;
    }
    look->res = (struct resolution){
        .pg = r->pg, .tenant = (int32_t)g->batch->tenant, .target = g->target, .done = resolved, .arg = look};
    reign_hold(r);
    resolution_run(&look->res);
}

static void route_joined(struct reign *r, struct growing *g)
{
    bool again = false;
    for (uint32_t i = 0; g->batch->handed && i < g->batch->block_count && !again; i++)
        again = g->batch->blocks[i].again;
    if (again)
        router_some(r, g->batch);
    else if (g->batch->handed)
        g->routes = false;
}

/* The first whose time it is. */
static struct growing *whose_turn(struct reign *r, int64_t now_us)
{
    list_for_each (l, tmp, &r->joiner->all) {
        struct growing *g = container_of(l, struct growing, link);
        if (g->target && !g->writing && may_join(g) && now_us >= g->earliest_us &&
            (g->wanted || now_us >= g->latest_us))
            return g;
    }
    return NULL;
}

void joiner_tick(struct reign *r)
{
    struct joiner *j = r->joiner;
    int64_t now_us = clock_mono_us();
    if (!r->loaded)
        return;
    list_for_each (l, tmp, &j->all) {
        struct growing *g = container_of(l, struct growing, link);
        if (g->waits)
            join_write_wait_on(g);
        if (g->routes)
            route_joined(r, g);
        if (!g->target && !g->reading && now_us >= g->earliest_us)
            read_target(g);
    }
    struct join_look *look = j->look;
    if (look && look->resolved && (!look->of || !may_join(look->of) || control_renewed(look->of->batch->control))) {
        if (look->of && may_join(look->of))
            join_write_new(r, look);
        look_ended(r);
    }
    struct growing *g = j->look ? NULL : whose_turn(r, now_us);
    if (g)
        begin(r, g);
}
