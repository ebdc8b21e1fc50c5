/* Statements of batches with a key, and of dynamic ones: see lib/store/db_supersede.c, db_dynamic.c. No tenant has
 * quotas. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/state.h"
#include "tests/sim/pg_model.h"

#define SLOT_BYTES 128
#define BLOCKS_MAX 8 /* of a tenant */

stmt_fn stmt_supersede_hold, stmt_supersede_accept, stmt_supersede_older, stmt_supersede_closed, stmt_dynamic_accept,
    stmt_dynamic_seal, stmt_dynamic_target, stmt_dynamic_taken, stmt_dynamic_key, stmt_dynamic_join, stmt_quota_grant;

/* Whole bitmaps of blocks, as a call has them. */
struct slots {
    struct slice *blocks, *bits;
    size_t count;
};

static struct slots param_slots(const struct stmt_call *c, int blocks, int bits)
{
    struct slots s;
    size_t n;
    s.blocks = param_array(c, blocks, &s.count);
    s.bits = param_array(c, bits, &n);
    for (size_t i = 0; i < n; i++)
        if (n != s.count || s.bits[i].len != SLOT_BYTES)
            abort();
    return s;
}

static void slots_free(struct slots *s)
{
    free(s->blocks);
    free(s->bits);
}

static bool share_any(const uint8_t *a, const uint8_t *b)
{
    uint8_t both = 0;
    for (size_t i = 0; i < SLOT_BYTES; i++)
        both |= a[i] & b[i];
    return both;
}

static void add_slots(uint8_t *to, const uint8_t *more)
{
    for (size_t i = 0; i < SLOT_BYTES; i++)
        to[i] |= more[i];
}

/* --- batches with a key ------------------------------------------------------------------------------------------ */

void stmt_supersede_hold(struct stmt_call *c)
{
    out_columns(c, 1);
    out_bytes(c, 0, "", 0); /* void */
    out_row(c);
}

/* NULL: it has no key there. */
static struct row_key *find_key(const struct pg_model *m, int64_t batch, int64_t block)
{
    for (size_t i = 0; i < m->keys.count; i++)
        if (m->keys.v[i].batch == batch && m->keys.v[i].block == block)
            return &m->keys.v[i];
    return NULL;
}

static struct row_key *add_key(struct pg_model *m, const struct row_batch *b, int32_t block)
{
    struct row_key *k = find_key(m, b->id, block);
    if (k)
        return k;
    k = table_add(&m->keys);
    *k = (struct row_key){.batch = b->id, .tenant = b->tenant, .block = block};
    snprintf(k->key, sizeof k->key, "%s", b->control.key);
    return k;
}

/* Whom the batch has its key for in this block joins no older one. */
static void bar_older(struct pg_model *m, const struct row_batch *b, int32_t block)
{
    const struct row_key *k = add_key(m, b, block);
    for (size_t i = 0; i < m->batches.count; i++) {
        const struct row_batch *o = m->batches.v[i];
        if (o->id < b->id && o->tenant == b->tenant && !o->closed_ms && o->control.target &&
            strcmp(o->control.key, b->control.key) == 0)
            add_slots(pg_model_part(m, o->id, PART_BARRED, block, true)->slots, k->slots);
    }
}

/* Whether the batch has been superseded for all of these that it has its key for. */
static bool is_superseded(const struct pg_model *m, const struct row_key *o, const struct row_key *new)
{
    uint8_t left[SLOT_BYTES], any = 0;
    for (size_t at = 0; at < SLOT_BYTES; at++)
        left[at] = o->slots[at] & new->slots[at];
    for (size_t i = 0; i < m->cancels.count; i++) {
        const struct row_cancel_some *x = &m->cancels.v[i];
        for (size_t at = 0; x->superseded && x->batch == o->batch && x->block == o->block && at < SLOT_BYTES; at++)
            left[at] &= (uint8_t)~x->slots[at];
    }
    for (size_t at = 0; at < SLOT_BYTES; at++)
        any |= left[at];
    return !any;
}

/* Asks that the older batch ends for these devices, as far as it is for them; `again`: whatever was asked before. The
 * request, or an earlier one; 0: it is for none. */
static int32_t supersede(struct pg_model *m, struct row_batch *older, const struct row_batch *newer,
                         const struct row_key *new, size_t count, bool again)
{
    int32_t request = 0, before = 0;
    for (size_t i = 0; i < count; i++) {
        const struct row_key *o = find_key(m, older->id, new[i].block);
        if (!o || o->tenant != newer->tenant || strcmp(o->key, newer->control.key) != 0 ||
            !share_any(o->slots, new[i].slots))
            continue;
        before = older->control.request;
        if (!again && is_superseded(m, o, &new[i]))
            continue;
        request = older->control.request + 1;
        struct row_cancel_some *x = table_add(&m->cancels);
        *x = (struct row_cancel_some){older->id, request, new[i].block, true, {0}};
        memcpy(x->slots, new[i].slots, SLOT_BYTES);
    }
    if (request) {
        older->control.is = true;
        older->control.request = request;
    }
    return request ? request : before;
}

/* One that the transaction has made. */
void stmt_supersede_accept(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    struct row_batch *b = pg_model_made(m, param_int(c, 0), param_bytes(c, 1));
    struct row_key new[BLOCKS_MAX];
    int32_t older = 0;
    out_columns(c, 1);
    if (b) {
        b->control.is = true;
        snprintf(b->control.key, sizeof b->control.key, "%.*s", (int)param_bytes(c, 2).len,
                 (const char *)param_bytes(c, 2).data);
        for (size_t i = 0; i < b->block_count; i++) {
            struct row_key *k = add_key(m, b, b->blocks[i].block);
            memcpy(k->slots + b->blocks[i].first / 8, b->blocks[i].targets, b->blocks[i].target_len);
            new[i] = *k;
            bar_older(m, b, b->blocks[i].block);
        }
        for (size_t i = 0; i < m->batches.count && m->batches.v[i]->id < b->id; i++)
            if (supersede(m, m->batches.v[i], b, new, b->block_count, false))
                b->control.supersedes[older++] = m->batches.v[i]->id;
        b->control.supersedes_count = (size_t)older;
    }
    out_int4(c, 0, older);
    out_row(c);
}

void stmt_supersede_older(struct stmt_call *c)
{
    const struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    struct buf array = {0};
    out_columns(c, 1);
    if (!b || !b->control.is)
        return;
    size_t n = b->control.supersedes_count;
    buf_put_u32be(&array, n ? 1 : 0);
    buf_put_u32be(&array, 0);
    buf_put_u32be(&array, 20);
    if (n) {
        buf_put_u32be(&array, (uint32_t)n);
        buf_put_u32be(&array, 1);
    }
    for (size_t i = 0; i < n; i++) {
        buf_put_u32be(&array, 8);
        buf_put_u32be(&array, (uint32_t)((uint64_t)b->control.supersedes[i] >> 32));
        buf_put_u32be(&array, (uint32_t)b->control.supersedes[i]);
    }
    out_bytes(c, 0, buf_slice(&array).data, buf_len(&array));
    out_row(c);
    buf_free(&array);
}

static void forget_key(struct pg_model *m, int64_t batch)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->keys.count; i++)
        if (m->keys.v[i].batch != batch)
            m->keys.v[kept++] = m->keys.v[i];
    m->keys.count = kept;
    kept = 0;
    for (size_t i = 0; i < m->parts.count; i++)
        if (m->parts.v[i].batch != batch || m->parts.v[i].kind != PART_BARRED)
            m->parts.v[kept++] = m->parts.v[i];
    m->parts.count = kept;
}

void stmt_supersede_closed(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    for (size_t i = 0; i < n; i++)
        forget_key(c->m, int_of_slice(ids[i]));
    free(ids);
}

/* --- dynamic batches ---------------------------------------------------------------------------------------------- */

/* One that the transaction has made. */
/* The default policy, which all tenants have. */
static bool is_guarded(const struct row_batch *b)
{
    return b->command_len && ((1u << 3) | (1u << 8) | (1u << 10)) >> (b->command[0] >> 3) & 1;
}

void stmt_dynamic_accept(struct stmt_call *c)
{
    struct row_batch *b = pg_model_made(c->m, param_int(c, 0), param_bytes(c, 1));
    if (!b)
        return;
    b->control.is = true;
    free(b->control.target);
    b->control.target = pg_model_copy(param_bytes(c, 2));
    b->control.target_len = param_bytes(c, 2).len;
    b->control.sealed = is_guarded(b);
    b->control.request += is_guarded(b);
}

void stmt_dynamic_seal(struct stmt_call *c)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 1));
    out_columns(c, 2);
    if (!b || b->tenant != param_int(c, 0) || b->closed_ms || b->cancel_requested_ms)
        return;
    bool changed = b->control.target && !b->control.sealed;
    out_bool(c, 0, changed);
    out_bool(c, 1, b->control.target != NULL);
    out_row(c);
    b->control.sealed = b->control.sealed || changed;
    b->control.request += changed;
}

void stmt_dynamic_target(struct stmt_call *c)
{
    const struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    out_columns(c, 2);
    if (!b || !b->control.is)
        return;
    if (b->control.target)
        out_bytes(c, 0, b->control.target, b->control.target_len);
    else
        out_null(c, 0);
    out_bool(c, 1, b->control.sealed);
    out_row(c);
}

/* Of those the key is for in a block, who has not joined and is not barred; false: none. */
static bool taken_slots(struct pg_model *m, struct row_batch *b, const struct row_key *k, uint8_t *out)
{
    const struct row_block *there = b ? pg_model_block(b, k->block) : NULL;
    const struct row_part *barred = pg_model_part(m, k->batch, PART_BARRED, k->block, false);
    memcpy(out, k->slots, SLOT_BYTES);
    for (size_t i = 0; there && i < there->target_len; i++)
        out[(size_t)there->first / 8 + i] &= (uint8_t)~there->targets[i];
    for (size_t i = 0; barred && i < SLOT_BYTES; i++)
        out[i] &= (uint8_t)~barred->slots[i];
    return share_any(out, out);
}

void stmt_dynamic_taken(struct stmt_call *c)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    uint8_t slots[SLOT_BYTES];
    out_columns(c, 3);
    for (int32_t block = 0; block < BLOCKS_MAX; block++) {
        const struct row_key *k = find_key(c->m, param_int(c, 0), block);
        if (!k || !taken_slots(c->m, b, k, slots))
            continue;
        out_int4(c, 0, PART_TAKEN);
        out_int4(c, 1, block);
        out_bytes(c, 2, slots, SLOT_BYTES);
        out_row(c);
    }
}

static bool is_barred(struct pg_model *m, int64_t batch, const struct slots *new)
{
    for (size_t i = 0; i < new->count; i++) {
        const struct row_part *p = pg_model_part(m, batch, PART_BARRED, int_of_slice(new->blocks[i]), false);
        if (p && share_any(p->slots, new->bits[i].data))
            return true;
    }
    return false;
}

static void put_older(struct stmt_call *c, int64_t batch, int32_t request)
{
    out_int8(c, 0, batch);
    out_int4(c, 1, request);
    out_row(c);
}

/* The batch has its key for those who are to join. */
static void take_key(struct stmt_call *c, const struct row_batch *b, const struct slots *targets,
                     const struct slots *new)
{
    struct pg_model *m = c->m;
    struct row_key wanted[BLOCKS_MAX];
    for (size_t i = 0; i < new->count; i++) {
        int32_t block = (int32_t)int_of_slice(new->blocks[i]);
        add_slots(add_key(m, b, block)->slots, targets->bits[i].data);
        bar_older(m, b, block);
        wanted[i] = (struct row_key){.block = block};
        memcpy(wanted[i].slots, new->bits[i].data, SLOT_BYTES);
    }
    for (size_t i = 0; i < m->batches.count && m->batches.v[i]->id < b->id; i++) {
        int32_t request = supersede(m, m->batches.v[i], b, wanted, new->count, true);
        if (request)
            put_older(c, m->batches.v[i]->id, request);
    }
}

static bool has_key(const struct pg_model *m, const struct row_batch *b, const struct slots *new)
{
    for (size_t i = 0; i < new->count; i++) {
        const struct row_key *k = find_key(m, b->id, int_of_slice(new->blocks[i]));
        for (size_t at = 0; at < SLOT_BYTES; at++)
            if (!k || new->bits[i].data[at] & ~k->slots[at])
                return false;
    }
    return true;
}

void stmt_dynamic_key(struct stmt_call *c)
{
    const struct row_batch *b = pg_model_batch(c->m, param_int(c, 1));
    struct slots targets = param_slots(c, 2, 3), new = param_slots(c, 2, 4);
    out_columns(c, 2);
    if (is_barred(c->m, param_int(c, 1), &new))
        put_older(c, 0, 0);
    else if (b && !b->closed_ms && !b->cancel_requested_ms && b->control.target &&
             (!b->control.sealed || has_key(c->m, b, &new)))
        take_key(c, b, &targets, &new);
    slots_free(&targets);
    slots_free(&new);
}

/* Who joins is QUEUED. */
static void queue_new(struct row_block *k, const uint8_t *new)
{
    for (size_t slot = 0; slot < 8 * SLOT_BYTES && k->states; slot++)
        if (new[slot / 8] >> slot % 8 & 1) {
            if (slot >= k->state_len)
                abort(); /* a dynamic batch has them whole */
            k->states[slot] = STATE_QUEUED;
        }
}

static void join_block(struct pg_model *m, struct row_batch *b, int64_t block, struct slice targets,
                       struct slice joined, struct slice new)
{
    struct row_block *k = pg_model_block(b, (int32_t)block);
    if (!k)
        k = pg_model_add_block(b, block, 0, targets);
    queue_new(k, new.data);
    free(k->targets);
    k->targets = pg_model_copy(targets);
    k->target_len = targets.len;
    k->version++;
    memcpy(pg_model_part(m, b->id, PART_JOINED, block, true)->slots, joined.data, SLOT_BYTES);
}

static bool may_join(struct pg_model *m, const struct row_batch *b, const struct slots *new)
{
    return b && !b->closed_ms && !b->cancel_requested_ms && b->control.target &&
           (!b->control.sealed || (*b->control.key && has_key(m, b, new))) &&
           !(*b->control.key && is_barred(m, b->id, new));
}

void stmt_dynamic_join(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    int64_t tenant = param_int(c, 0);
    struct row_batch *b = pg_model_batch(m, param_int(c, 1));
    struct slots targets = param_slots(c, 3, 4), joined = param_slots(c, 3, 5), new = param_slots(c, 3, 6);
    bool joins = may_join(m, b, &new);
    out_columns(c, 1);
    out_bool(c, 0, joins);
    out_row(c);
    for (size_t i = 0; joins && i < new.count; i++)
        join_block(m, b, int_of_slice(new.blocks[i]), targets.bits[i], joined.bits[i], new.bits[i]);
    if (joins) {
        b->device_count += (int32_t)param_int(c, 2);
        b->control.joined += (int32_t)param_int(c, 2);
        for (size_t i = 0; i < m->devices.count; i++)
            if (m->devices.v[i].tenant == tenant && m->devices.v[i].deleted_ms > param_int(c, 7) - 10000)
                pg_model_cancel_device(m, m->devices.v[i].tenant, m->devices.v[i].seq);
    }
    slots_free(&targets);
    slots_free(&joined);
    slots_free(&new);
}

void stmt_quota_grant(struct stmt_call *c)
{
    out_columns(c, 1);
    out_int4(c, 0, param_int(c, 1));
    out_row(c);
}
