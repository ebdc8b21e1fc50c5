#include "dispatcher/leader_presence.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/db_presence.h"

/* A block of a tenant. */
struct presence_block {
    struct bitmap told;   /* to be online */
    struct bitmap differ; /* who was otherwise at the last look */
};

struct presence_tenant {
    struct db_presence_tenant row;
    struct presence_block *blocks; /* owned; NULL: what was told is not read yet */
    uint32_t room;
};

/* One question for a block of the part. */
struct presence_ask {
    struct reign *reign;
    struct bitmap online;
};

/* One look at a time: the tenants, then part by part their blocks. */
struct presence_teller {
    struct presence_tenant *tenants;
    size_t count;
    bool looking;
    int64_t next_us;  /* when the next look begins */
    int64_t doubt_us; /* until then nobody is believed to have gone */
    size_t at;        /* the tenant and the block where it is */
    uint32_t block;
    unsigned part, waiting; /* blocks of the part; answers that are to come */
    bool failed;
    struct presence_ask asks[PRESENCE_PART];
    struct bitmap tell[PRESENCE_PART]; /* whose change is being written */
};

static void doubt_presence(const struct reign *r, struct presence_teller *p)
{
    p->doubt_us = clock_mono_us() + PRESENCE_DOUBT * r->presence_ms * 1000;
}

struct presence_teller *presence_teller_new(struct reign *r)
{
    struct presence_teller *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    for (size_t i = 0; i < PRESENCE_PART; i++)
        p->asks[i].reign = r;
    doubt_presence(r, p);
    return p;
}

static void forget(struct presence_tenant *tenants, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(tenants[i].blocks);
    free(tenants);
}

void presence_teller_free(struct presence_teller **teller)
{
    if (*teller)
        forget((*teller)->tenants, (*teller)->count);
    free(*teller);
    *teller = NULL;
}

static void walk(struct reign *r);

static void end_look(struct reign *r)
{
    r->presence->looking = false;
}

static void failed(struct reign *r, enum err err, const struct pg_error *error)
{
    if (db_lease_fenced(err, error))
        reign_fail(r, "fenced", err);
    else if (err != ERR_UNAVAILABLE && err != ERR_CLOSED)
        log_warn("presence_failed", "err=%s sqlstate=%s message=%s", err_name(err), error ? error->sqlstate : "",
                 log_quote(error ? error->message : ""));
    end_look(r);
}

/* --- a part ------------------------------------------------------------------------------------------------------- */

static void next_part(struct reign *r)
{
    r->presence->block += r->presence->part;
    walk(r);
}

static void next_tenant(struct reign *r)
{
    r->presence->at++;
    r->presence->block = 0;
    walk(r);
}

static void told(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                 size_t count)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    struct presence_teller *p = r->presence;
    struct presence_tenant *t = &p->tenants[p->at];
    if (err) {
        free(t->blocks); /* whether it is written nobody knows: what was told is read again */
        t->blocks = NULL;
        failed(r, err, error);
        return;
    }
    if (!pg_bool(results[count - 1], 0, 0)) {
        next_tenant(r);
        return;
    }
    for (unsigned i = 0; i < p->part; i++) {
        struct presence_block *b = &t->blocks[p->block + i];
        r->figures->devices_told += bitmap_count(&p->tell[i]);
        bitmap_xor(&b->told, &p->tell[i]);
    }
    next_part(r);
}

/* Arrays of a transaction's rows and devices. */
struct telling {
    struct db_presence what;
    int32_t blocks[PRESENCE_PART];
    struct bitmap online[PRESENCE_PART];
    struct slice slots[PRESENCE_PART];
    int32_t came[PRESENCE_PART * BLOCK_SLOTS], gone[PRESENCE_PART * BLOCK_SLOTS];
};

static void put_block(struct telling *w, uint32_t block, const struct bitmap *was, const struct bitmap *tell)
{
    size_t n = w->what.count++;
    w->blocks[n] = (int32_t)block;
    w->online[n] = *was;
    bitmap_xor(&w->online[n], tell);
    w->slots[n] = (struct slice){w->online[n].bytes, BITMAP_BYTES};
    for (unsigned slot = bitmap_next(tell, 0); slot < BLOCK_SLOTS; slot = bitmap_next(tell, slot + 1)) {
        int32_t seq = (int32_t)block_seq(block, slot);
        if (bitmap_test(was, slot))
            w->gone[w->what.gone_count++] = seq;
        else
            w->came[w->what.came_count++] = seq;
    }
}

static void write_part(struct reign *r, struct telling *w)
{
    const struct presence_teller *p = r->presence;
    const struct presence_tenant *t = &p->tenants[p->at];
    w->what.tenant = t->row.tenant;
    w->what.number = t->row.number;
    w->what.now_ms = db_clock_ms(r->clock);
    w->what.blocks = w->blocks;
    w->what.slots = w->slots;
    w->what.came = w->came;
    w->what.gone = w->gone;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn) {
        db_lease_fence(txn, &r->fence);
        db_presence_tell(txn, &w->what);
    }
    pg_txn_submit(txn, told, reign_hold(r));
}

/* Who differs from what was told, now and at the last look. */
static struct bitmap choose(struct presence_block *b, const struct bitmap *online, bool doubt)
{
    struct bitmap differ = b->told, tell;
    bitmap_xor(&differ, online);
    if (doubt)
        bitmap_and(&differ, online);
    tell = differ;
    bitmap_and(&tell, &b->differ);
    b->differ = differ;
    bitmap_and_not(&b->differ, &tell);
    return tell;
}

static void tell_part(struct reign *r)
{
    struct presence_teller *p = r->presence;
    struct presence_tenant *t = &p->tenants[p->at];
    bool doubt = clock_mono_us() < p->doubt_us;
    struct telling *w = NULL;
    for (unsigned i = 0; i < p->part; i++) {
        struct presence_block *b = &t->blocks[p->block + i];
        p->tell[i] = choose(b, &p->asks[i].online, doubt);
        if (bitmap_next(&p->tell[i], 0) == BLOCK_SLOTS)
            continue;
        if (!w && !(w = calloc(1, sizeof *w)))
            abort();
        put_block(w, p->block + i, &b->told, &p->tell[i]);
    }
    if (w)
        write_part(r, w);
    else
        next_part(r);
    free(w);
}

static void part_answered(struct reign *r)
{
    struct presence_teller *p = r->presence;
    if (--p->waiting)
        return;
    if (p->failed)
        end_look(r);
    else
        tell_part(r);
}

static void got_presence(void *arg, enum err err, struct slice presence)
{
    struct presence_ask *ask = arg;
    struct reign *r = ask->reign;
    if (!reign_back(r))
        return;
    struct presence_teller *p = r->presence;
    ask->online = (struct bitmap){{0}};
    for (unsigned slot = 0; !err && slot < BLOCK_SLOTS; slot++)
        if (live_presence_at(presence, slot))
            bitmap_set(&ask->online, slot);
    p->failed = p->failed || err;
    part_answered(r);
}

static void ask_part(struct reign *r)
{
    struct presence_teller *p = r->presence;
    const struct presence_tenant *t = &p->tenants[p->at];
    uint32_t left = t->row.blocks - p->block;
    p->part = left < PRESENCE_PART ? left : PRESENCE_PART;
    p->waiting = p->part + 1;
    p->failed = false;
    for (unsigned i = 0; i < p->part; i++) {
        reign_hold(r);
        live_presence(r->live, (uint32_t)t->row.tenant, p->block + i, got_presence, &p->asks[i]);
    }
    part_answered(r);
}

/* --- a look ------------------------------------------------------------------------------------------------------- */

/* Room for all blocks of the tenant: it grows. */
static void make_room(struct presence_tenant *t)
{
    uint32_t room = t->row.blocks + 1;
    if (t->blocks && room <= t->room)
        return;
    uint32_t old = t->blocks ? t->room : 0;
    struct presence_block *blocks = realloc(t->blocks, room * sizeof *blocks);
    if (!blocks)
        abort();
    memset(blocks + old, 0, (room - old) * sizeof *blocks);
    owned(blocks);
    t->blocks = blocks;
    t->room = room;
}

static void got_told(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct reign *r = arg;
    (void)count;
    if (!reign_back(r))
        return;
    struct presence_tenant *t = &r->presence->tenants[r->presence->at];
    if (err) {
        failed(r, err, error);
        return;
    }
    make_room(t);
    for (int row = 0; row < pg_rows(results[0]); row++) {
        uint32_t block = (uint32_t)pg_int(results[0], row, 0);
        struct slice slots = pg_bytes(results[0], row, 1);
        if (block < t->row.blocks && slots.len == BITMAP_BYTES)
            memcpy(t->blocks[block].told.bytes, slots.data, BITMAP_BYTES);
    }
    walk(r);
}

/* Goes on to what is asked next. */
static void walk(struct reign *r)
{
    struct presence_teller *p = r->presence;
    while (p->at < p->count && p->block >= p->tenants[p->at].row.blocks) {
        p->at++;
        p->block = 0;
    }
    if (p->at == p->count || !reign_live(r) || r->rebuilding) {
        end_look(r);
        return;
    }
    struct presence_tenant *t = &p->tenants[p->at];
    if (t->blocks) {
        make_room(t);
        ask_part(r);
        return;
    }
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn)
        db_presence_told(txn, t->row.tenant);
    pg_txn_submit(txn, got_told, reign_hold(r));
}

/* What is known of it, moved out of there. */
static void take_over(struct presence_teller *p, struct presence_tenant *t)
{
    for (size_t i = 0; i < p->count; i++) {
        struct presence_tenant *old = &p->tenants[i];
        if (old->row.tenant != t->row.tenant || old->row.number != t->row.number)
            continue;
        t->blocks = old->blocks;
        t->room = old->room;
        old->blocks = NULL;
    }
}

static void got_tenants(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct reign *r = arg;
    (void)count;
    if (!reign_back(r))
        return;
    struct presence_teller *p = r->presence;
    if (err) {
        failed(r, err, error);
        return;
    }
    size_t n = (size_t)pg_rows(results[0]);
    struct presence_tenant *tenants = calloc(n + 1, sizeof *tenants);
    if (!tenants)
        abort();
    for (size_t i = 0; i < n; i++) {
        db_presence_tenant_read(results[0], (int)i, &tenants[i].row);
        take_over(p, &tenants[i]);
    }
    forget(p->tenants, p->count);
    owned(tenants);
    p->tenants = tenants;
    p->count = n;
    p->at = 0;
    p->block = 0;
    walk(r);
}

void presence_teller_tick(struct reign *r)
{
    struct presence_teller *p = r->presence;
    int64_t now_us = clock_mono_us();
    if (!reign_live(r) || r->rebuilding)
        doubt_presence(r, p);
    if (p->looking || r->failed || !reign_live(r) || r->rebuilding || now_us < p->next_us)
        return;
    p->looking = true;
    p->next_us = now_us + r->presence_ms * 1000;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn)
        db_presence_tenants(txn);
    pg_txn_submit(txn, got_tenants, reign_hold(r));
}
