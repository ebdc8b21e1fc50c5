#include "dispatcher/joiner.h"

#include <inttypes.h>
#include <stdlib.h>

#include "dispatcher/control.h"
#include "dispatcher/leader_write.h"
#include "dispatcher/resolve.h"
#include "dispatcher/route.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/db_control.h"
#include "lib/store/db_dynamic.h"
#include "lib/store/db_quota.h"

/* One dynamic batch that grows. */
struct growing {
    struct list link;
    struct reign *reign;
    struct open_batch *batch;
    Muster__V1__Target *target; /* NULL: not read yet */
    struct target_set joined, barred;
    struct target_set taken;  /* for whom it has its key, who has not joined: they do before others, sealed or not */
    struct join_write *waits; /* owned: for older batches to end for those who are to join */
    bool reading, writing;
    bool submitting;                /* of the writing the last step */
    bool over;                      /* gone while it was read */
    bool end;                       /* nobody joins any more but who is in `taken`, or is being written down */
    bool wanted;                    /* something has hinted at it */
    bool routes;                    /* who has joined is to be routed */
    bool left_out;                  /* somebody could not join, and may be able to soon */
    int64_t earliest_us, latest_us; /* of the next look */
};

/* A look: who is meant now, and of them those who are new. */
struct join_look {
    struct reign *reign;
    struct growing *of;         /* NULL: gone meanwhile, */
    Muster__V1__Target *target; /* and has left its own here */
    struct resolution res;
    int64_t began_us, began_ms;
    bool resolved;
};

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

static bool goes_on(const struct growing *g)
{
    return g->batch->growing && !g->batch->canceling && !g->batch->ending && g->batch->stage == OPEN_RUNNING;
}

static bool may_join(const struct growing *g)
{
    return goes_on(g) && (!g->end || g->taken.count);
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

static void read_again(struct growing *g)
{
    let_go(g->reign->joiner, g);
    muster__v1__target__free_unpacked(g->target, NULL);
    g->target = NULL;
    target_set_free(&g->joined);
    target_set_free(&g->barred);
    target_set_free(&g->taken);
    g->earliest_us = 0;
}

/* With a key, PostgreSQL has to say first that there is nobody whom it was taken for. */
static void seal(struct growing *g)
{
    if (g->batch->keyed && goes_on(g))
        read_again(g);
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
        seal(g);
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
    if (g->end && !g->taken.count) {
        open_batch_seal(g->batch);
        reign_check_complete(g->reign, g->batch);
    }
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

/* A block of those who are meant, less those who are there and those who may not join now. */
static struct bitmap who_is_new(struct growing *g, const struct target_block *meant)
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

/* What was asked of an older batch with the key. */
struct join_older {
    uint64_t batch;
    int32_t request;
};

struct join_write {
    struct reign *reign;
    struct growing *of;
    uint32_t devices;
    int64_t since_ms; /* when it was begun to find them */
    size_t count;
    int32_t blocks[JOIN_BLOCKS];
    struct bitmap new[JOIN_BLOCKS], targets[JOIN_BLOCKS], joined[JOIN_BLOCKS];
    size_t older_count;
    struct join_older older[]; /* that have not ended for them yet */
};

/* They are in the picture; what has come over the batch meanwhile comes over them. */
static void take_in(struct reign *r, struct growing *g, const struct join_write *w)
{
    struct open_batch *batch = g->batch;
    int64_t now_ms = db_clock_ms(r->clock);
    if (!open_batch_extend(batch, (uint32_t)w->blocks[w->count - 1] + 1)) {
        reign_fail(r, "batch_grown", ERR_OK);
        return;
    }
    for (size_t i = 0; i < w->count; i++) {
        struct open_block *b = &batch->blocks[w->blocks[i]];
        open_block_join(&r->set, b, &w->new[i], now_ms);
        target_set_add(&g->joined, b->block, &w->new[i]);
        control_joined(batch->control, b, &w->new[i]);
        if (batch->canceling || batch->ending)
            open_block_apply(&r->set, b, batch->canceling ? EVENT_CANCEL : EVENT_EXPIRE, &w->new[i], now_ms);
        fold_changed(&r->log, b, true, now_ms);
    }
    g->routes = !batch->canceling && !batch->ending;
    log_info("joined", "batch=%" PRIu64 " devices=%u", batch->id, w->devices);
}

/* Nothing is written any more; what waited for it goes on. */
static void join_over(struct growing *g)
{
    struct reign *r = g->reign;
    g->writing = g->submitting = false;
    if (g->end)
        seal(g);
    write_pump(r);
    reign_idle(r, g->batch);
}

static void written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct join_write *w = arg;
    struct reign *r = w->reign;
    if (!reign_back(r)) {
        free(w);
        return;
    }
    struct growing *g = w->of; /* its batch is busy, so it is there */
    if (err)
        reign_fail(r, db_lease_fenced(err, error) ? "fenced" : "join", err);
    else if (pg_bool(results[count - 1], 0, 0))
        take_in(r, g, w);
    else if (g->batch->keyed)
        read_again(g);
    join_over(g);
    free(w);
}

/* In a transaction of the leader's. */
static struct pg_txn *begin_write(struct join_write *w, void (*add)(struct pg_txn *txn, const struct db_join *join))
{
    struct reign *r = w->reign;
    const struct growing *g = w->of;
    struct slice slots[3][JOIN_BLOCKS];
    for (size_t i = 0; i < w->count; i++) {
        slots[0][i] = (struct slice){w->targets[i].bytes, BITMAP_BYTES};
        slots[1][i] = (struct slice){w->joined[i].bytes, BITMAP_BYTES};
        slots[2][i] = (struct slice){w->new[i].bytes, BITMAP_BYTES};
    }
    struct db_join join = {.tenant = (int32_t)g->batch->tenant,
                           .batch = g->batch->id,
                           .devices = w->devices,
                           .blocks = w->blocks,
                           .targets = slots[0],
                           .joined = slots[1],
                           .new = slots[2],
                           .count = w->count,
                           .since_ms = w->since_ms};
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (!txn)
        abort();
    db_lease_fence(txn, &r->fence);
    add(txn, &join);
    reign_hold(r);
    return txn;
}

static void submit(struct join_write *w)
{
    w->of->submitting = true;
    pg_txn_submit(begin_write(w, db_dynamic_join), written, w);
}

/* --- what older batches of its key lose --------------------------------------------------------------------------- */

static bool older_ended(struct join_write *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->older_count; i++) {
        const struct open_batch *batch = open_set_find(&w->reign->set, w->older[i].batch);
        if (batch && batch->stage == OPEN_RUNNING && !control_settled_to(batch, w->older[i].request))
            w->older[kept++] = w->older[i];
    }
    w->older_count = kept;
    return !kept;
}

static void give_up(struct join_write *w)
{
    join_over(w->of);
    free(w);
}

static void key_taken(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct join_write *w = arg;
    struct reign *r = w->reign;
    if (!reign_back(r)) {
        free(w);
        return;
    }
    struct growing *g = w->of;
    const struct pg_result *rows = err ? NULL : results[count - 1];
    size_t n = rows ? (size_t)pg_rows(rows) : 0;
    if (err) {
        reign_fail(r, db_lease_fenced(err, error) ? "fenced" : "join_key", err);
        give_up(w);
        return;
    }
    if (n == 1 && !pg_int(rows, 0, 0)) {
        read_again(g); /* newer ones have come since */
        give_up(w);
        return;
    }
    w = realloc(w, sizeof *w + n * sizeof *w->older);
    if (!w)
        abort();
    for (size_t i = 0; i < n; i++)
        w->older[i] = (struct join_older){(uint64_t)pg_int(rows, (int)i, 0), (int32_t)pg_int(rows, (int)i, 1)};
    w->older_count = n;
    owned(w);
    g->waits = w;
}

/* What it waits for has ended, or the batch is over. When it was sealed meanwhile they join all the same: they have
 * lost what older ones had for them. */
static void wait_on(struct growing *g)
{
    struct join_write *w = g->waits;
    if (goes_on(g) && !older_ended(w))
        return;
    g->waits = NULL;
    if (goes_on(g))
        submit(w);
    else
        give_up(w);
}

static void write_down(struct join_write *w)
{
    if (w->of->batch->keyed)
        pg_txn_submit(begin_write(w, db_dynamic_key), key_taken, w);
    else
        submit(w);
}

/* --- what the tenant's rate lets through -------------------------------------------------------------------------- */

/* The first `most` of them, block by block. */
static void cut(struct join_write *w, uint32_t most)
{
    size_t count = 0;
    w->devices = 0;
    for (size_t i = 0; i < w->count && w->devices < most; i++) {
        struct bitmap beyond = w->new[i];
        w->devices += bitmap_cut(&w->new[i], most - w->devices);
        bitmap_and_not(&beyond, &w->new[i]);
        bitmap_and_not(&w->targets[i], &beyond);
        bitmap_and_not(&w->joined[i], &beyond);
        count = i + 1;
    }
    w->count = count;
}

static void granted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct join_write *w = arg;
    struct reign *r = w->reign;
    if (!reign_back(r)) {
        free(w);
        return;
    }
    struct growing *g = w->of;
    uint32_t most = err ? 0 : (uint32_t)pg_int(results[count - 1], 0, 0);
    if (err && db_lease_fenced(err, error))
        reign_fail(r, "fenced", err);
    if (most < w->devices) {
        g->left_out = true;
        g->latest_us = clock_mono_us() + JOIN_AGAIN_MS * 1000;
        cut(w, most);
    }
    if (w->devices)
        write_down(w);
    else
        give_up(w);
}

/* As many as the tenant's rate has left. */
static void ask_quota(struct join_write *w)
{
    struct reign *r = w->reign;
    struct growing *g = w->of;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn) {
        db_lease_fence(txn, &r->fence);
        db_quota_grant(txn, (int32_t)g->batch->tenant, w->devices);
    }
    g->writing = true;
    reign_busy(g->batch);
    reign_hold(r);
    pg_txn_submit(txn, granted, w);
}

static const struct target_set *who_is_meant(const struct join_look *look)
{
    return look->of->taken.count ? &look->of->taken : &look->res.set;
}

/* Writes down who is new. */
static void write_new(struct reign *r, const struct join_look *look)
{
    struct growing *g = look->of;
    struct join_write *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    *w = (struct join_write){.reign = r, .of = g, .since_ms = look->began_ms};
    const struct target_set *all = who_is_meant(look);
    for (size_t i = 0; i < all->count; i++) {
        const struct target_block *meant = &all->blocks[i], *joined = target_set_find(&g->joined, meant->block);
        struct bitmap new = who_is_new(g, meant);
        unsigned n = bitmap_count(&new);
        if (!n)
            continue;
        if (w->count == JOIN_BLOCKS) {
            g->wanted = true; /* the others with the next look */
            break;
        }
        w->devices += n;
        w->blocks[w->count] = (int32_t)meant->block;
        w->new[w->count] = w->targets[w->count] = w->joined[w->count] = new;
        if (meant->block < g->batch->block_count) {
            struct bitmap there = open_block_bitmap(&g->batch->blocks[meant->block]);
            bitmap_or(&w->targets[w->count], &there);
        }
        if (joined)
            bitmap_or(&w->joined[w->count], &joined->slots);
        w->count++;
    }
    if (w->count)
        ask_quota(w);
    else
        free(w);
}

static bool anybody_new(const struct join_look *look)
{
    const struct target_set *all = who_is_meant(look);
    for (size_t i = 0; i < all->count; i++) {
        struct bitmap new = who_is_new(look->of, &all->blocks[i]);
        if (bitmap_next(&new, 0) < BLOCK_SLOTS)
            return true;
    }
    return false;
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Their zones and platforms may not be known yet. */
static void renew(const struct join_look *look)
{
    const struct target_set *all = who_is_meant(look);
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
        look_ended(r);
    } else if (!g || !may_join(g) || !anybody_new(look)) {
        look_ended(r);
    } else {
        renew(look);
    }
}

/* At whom the key was taken for, which may be long ago. Who does not join now, since waves or thresholds let nobody of
 * his kind, does not later. */
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
    if (g->end) {
        open_batch_seal(g->batch);
        reign_check_complete(g->reign, g->batch);
    }
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
            wait_on(g);
        if (g->routes)
            route_joined(r, g);
        if (!g->target && !g->reading && now_us >= g->earliest_us)
            read_target(g);
    }
    struct join_look *look = j->look;
    if (look && look->resolved && (!look->of || !may_join(look->of) || control_renewed(look->of->batch->control))) {
        if (look->of && may_join(look->of))
            write_new(r, look);
        look_ended(r);
    }
    struct growing *g = j->look ? NULL : whose_turn(r, now_us);
    if (g)
        begin(r, g);
}
