#include "dispatcher/batch_values.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/request.h"
#include "lib/store/db_device.h"
#include "lib/store/value_block.h"
#include "proto/fill.h"

bool batch_values_digest(const Muster__V1__Values *values, uint8_t digest[BATCH_VALUES_DIGEST])
{
    size_t n = muster__v1__values__get_packed_size(values);
    uint8_t *bytes = malloc(n + 1);
    if (!bytes)
        return false;
    muster__v1__values__pack(values, bytes);
    crypto_generichash(digest, BATCH_VALUES_DIGEST, bytes, n, NULL, 0);
    sodium_memzero(bytes, n);
    free(bytes);
    return true;
}

void batch_values_target(struct batch_values *v)
{
    muster__v1__target__init(&v->target);
    muster__v1__device_ids__init(&v->ids);
    v->ids.ids = v->in->device_ids;
    v->ids.n_ids = v->in->n_device_ids;
    v->target.kind_case = MUSTER__V1__TARGET__KIND_DEVICES;
    v->target.devices = &v->ids;
}

void batch_values_free(struct batch_values *v)
{
    resolution_free(&v->found);
    buf_free(&v->packed);
    buf_free(&v->described);
    buf_free(&v->defaults);
    free(v->places);
    free(v->blocks);
    v->places = NULL;
    v->blocks = NULL;
    sodium_memzero(v->values.salt, sizeof v->values.salt);
}

static void no_memory(struct batch_values *v)
{
    v->store_failed = true;
    request_store_status(&v->st, ERR_NOMEM, NULL);
}

/* --- matching ----------------------------------------------------------------------------------------------------- */

/* Of the block in the set, from `hint` on: ids that stand together are registered together. SIZE_MAX: not in it. */
static size_t find_block(const struct target_set *set, uint32_t block, size_t hint)
{
    if (hint < set->count && set->blocks[hint].block == block)
        return hint;
    const struct target_block *b = target_set_find(set, block);
    return b ? (size_t)(b - set->blocks) : SIZE_MAX;
}

/* The first entry that names a device again: they are sorted, and repeated ones were left out. */
static bool check_repeated(struct batch_values *v, const struct sorted_ids *list)
{
    size_t n = v->in->n_device_ids;
    if (list->count == n)
        return true;
    bool *kept = calloc(n, sizeof *kept);
    if (!kept) {
        no_memory(v);
        return false;
    }
    for (size_t i = 0; i < list->count; i++)
        kept[list->entries[i].place] = true;
    for (size_t i = 0; i < n; i++) {
        char field[96];
        snprintf(field, sizeof field, "values.device_ids[%zu]", i);
        if (!kept[i])
            status_violation(&v->st, field, "%s stands in it before", v->in->device_ids[i]);
    }
    free(kept);
    return false;
}

static bool is_skipped(const struct batch_values *v, int64_t seq)
{
    const struct target_block *b = v->skipped && seq >= 0 ? target_set_find(v->skipped, block_of((uint32_t)seq)) : NULL;
    return b && bitmap_test(&b->slots, slot_of((uint32_t)seq));
}

/* Notes the entry of every slot; devices listed that are not addressed are named. */
static void place_entries(struct batch_values *v, const struct resolution *found)
{
    const struct target_set *set = v->set;
    size_t at = 0;
    uint32_t outside = 0;
    for (size_t i = 0; i < found->list.count; i++) {
        int64_t seq = found->seqs[i];
        size_t block = seq < 0 ? SIZE_MAX : find_block(set, block_of((uint32_t)seq), at);
        if (block != SIZE_MAX && bitmap_test(&set->blocks[block].slots, slot_of((uint32_t)seq))) {
            v->places[block * BLOCK_SLOTS + slot_of((uint32_t)seq)] = found->list.entries[i].place + 1;
            v->own++;
            at = block;
        } else if (!v->listed && !is_skipped(v, seq)) {
            status_violation(&v->st, "values.device_ids", "%s is not addressed", found->list.ids[i]);
            outside++;
        }
    }
    if (!outside)
        return;
    status_set(&v->st, STATUS_FAILED_PRECONDITION, "VALUES_OUTSIDE_TARGET",
               "%u devices have values and are not addressed", outside);
    status_metadata(&v->st, "device_count", "%u", outside);
}

static void note_lacking(struct batch_values *v)
{
    for (size_t b = 0; b < v->set->count; b++) {
        const struct target_block *block = &v->set->blocks[b];
        for (unsigned slot = bitmap_next(&block->slots, 0); slot < BLOCK_SLOTS;
             slot = bitmap_next(&block->slots, slot + 1)) {
            if (v->places[b * BLOCK_SLOTS + slot])
                continue;
            if (v->lacking_count < BATCH_VALUES_NAMED)
                v->lacking[v->lacking_count] = (int32_t)block_seq(block->block, slot);
            v->lacking_count++;
        }
    }
}

/* --- packing ------------------------------------------------------------------------------------------------------ */

static void put_packed(struct buf *out, const Muster__V1__Values *in, size_t entry)
{
    struct slice values[FILL_VARIABLES_MAX];
    for (size_t i = 0; i < in->n_variables; i++) {
        const Muster__V1__Variable *x = in->variables[i];
        const ProtobufCBinaryData *b = entry < in->n_device_ids ? &x->values[entry] : &x->default_value;
        values[i] = (struct slice){b->data, b->len};
    }
    fill_pack(out, values, in->n_variables);
}

static void pack_block(struct batch_values *v, size_t b)
{
    const uint32_t *places = v->places + b * BLOCK_SLOTS;
    struct bitmap own = {{0}};
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        if (places[slot])
            bitmap_set(&own, slot);
    value_block_begin(&v->packed, (unsigned)v->in->n_variables, &own);
    for (unsigned slot = bitmap_next(&own, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&own, slot + 1))
        put_packed(&v->packed, v->in, places[slot] - 1);
}

/* Told to whoever asks: without the values. */
static void describe(struct batch_values *v)
{
    Muster__V1__BatchValues out = MUSTER__V1__BATCH_VALUES__INIT;
    char *names[FILL_VARIABLES_MAX];
    for (size_t i = 0; i < v->in->n_variables; i++)
        names[i] = v->in->variables[i]->name;
    out.names = names;
    out.n_names = v->in->n_variables;
    out.device_count = v->own;
    out.others_get_defaults = v->in->others_get_defaults;
    uint8_t *bytes = buf_reserve(&v->described, muster__v1__batch_values__get_packed_size(&out));
    if (bytes)
        buf_commit(&v->described, muster__v1__batch_values__pack(&out, bytes));
}

static void pack(struct batch_values *v)
{
    v->packed.secret = v->defaults.secret = true;
    v->blocks = calloc(v->set->count + 1, sizeof *v->blocks);
    for (size_t b = 0; v->blocks && b < v->set->count; b++) {
        size_t before = buf_len(&v->packed);
        pack_block(v, b);
        v->blocks[b].len = buf_len(&v->packed) - before;
    }
    describe(v);
    if (v->in->others_get_defaults)
        put_packed(&v->defaults, v->in, v->in->n_device_ids);
    if (!v->blocks || v->packed.failed || v->described.failed || v->defaults.failed) {
        no_memory(v);
        return;
    }
    const uint8_t *at = buf_head(&v->packed);
    for (size_t b = 0; b < v->set->count; b++) { /* it grows no more */
        v->blocks[b].data = at;
        at += v->blocks[b].len;
    }
    v->values.described = buf_slice(&v->described);
    v->values.defaults = buf_slice(&v->defaults);
    v->values.blocks = v->blocks;
    v->values.bytes = buf_len(&v->packed);
    randombytes_buf(v->values.salt, sizeof v->values.salt);
}

void batch_values_hash(const struct batch_values *v, struct slice command, char out[DB_GUARD_HASH_TEXT])
{
    crypto_hash_sha256_state h;
    uint8_t len[8], hash[crypto_hash_sha256_BYTES];
    const struct slice parts[] = {{v->values.salt, DB_VALUES_SALT}, command, v->values.described, v->values.defaults};
    crypto_hash_sha256_init(&h);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        store_u64le(len, parts[i].len);
        crypto_hash_sha256_update(&h, len, sizeof len);
        crypto_hash_sha256_update(&h, parts[i].data, parts[i].len);
    }
    for (size_t b = 0; b < v->set->count; b++) {
        store_u64le(len, v->set->blocks[b].block);
        crypto_hash_sha256_update(&h, len, sizeof len);
        crypto_hash_sha256_update(&h, v->blocks[b].data, v->blocks[b].len);
    }
    crypto_hash_sha256_final(&h, hash);
    sodium_bin2hex(out, DB_GUARD_HASH_TEXT, hash, sizeof hash);
}

/* --- the steps ---------------------------------------------------------------------------------------------------- */

static void name_lacking(struct batch_values *v, const struct pg_result *r)
{
    const char *ids = pg_text(r, 0, 1);
    while (*ids) {
        int len = (int)strcspn(ids, ",");
        status_violation(&v->st, "values.device_ids", "%.*s has no value", len, ids);
        ids += len + (ids[len] == ',');
    }
    status_set(&v->st, STATUS_FAILED_PRECONDITION, "VALUES_MISSING", "%zu of the devices addressed have no value",
               v->lacking_count);
    status_metadata(&v->st, "device_count", "%zu", v->lacking_count);
}

static void on_lacking(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct batch_values *v = arg;
    (void)count;
    if (err == ERR_OK) {
        name_lacking(v, results[0]);
    } else {
        v->store_failed = true;
        request_store_status(&v->st, err, error);
    }
    v->done(v->arg);
}

static void ask_lacking(struct batch_values *v)
{
    size_t n = v->lacking_count < BATCH_VALUES_NAMED ? v->lacking_count : BATCH_VALUES_NAMED;
    struct pg_txn *txn = pg_txn_new(v->pg, PG_ANY_LANE);
    if (txn)
        db_device_ids(txn, v->tenant, v->lacking, v->lacking, n);
    pg_txn_submit(txn, on_lacking, v);
}

static void match(struct batch_values *v, const struct resolution *found)
{
    v->places = calloc(v->set->count * BLOCK_SLOTS, sizeof *v->places);
    if (!v->places) {
        no_memory(v);
    } else if (check_repeated(v, &found->list)) {
        place_entries(v, found);
        if (v->st.code == STATUS_OK && !v->in->others_get_defaults)
            note_lacking(v);
    }
    if (v->st.code == STATUS_OK && v->lacking_count) {
        ask_lacking(v);
        return;
    }
    if (v->st.code == STATUS_OK)
        pack(v);
    v->done(v->arg);
}

static void on_found(struct resolution *res)
{
    struct batch_values *v = res->arg;
    if (res->st.code == STATUS_OK) {
        match(v, res);
        return;
    }
    v->st = res->st;
    v->store_failed = res->store_failed;
    v->done(v->arg);
}

void batch_values_run(struct batch_values *v)
{
    if (v->listed) {
        match(v, v->listed);
        return;
    }
    batch_values_target(v);
    v->found = (struct resolution){.pg = v->pg, .tenant = v->tenant, .target = &v->target, .done = on_found, .arg = v};
    resolution_run(&v->found);
}
