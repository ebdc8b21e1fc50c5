#include "dispatcher/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/filter_find.h"
#include "dispatcher/request.h"
#include "lib/store/db_device.h"

/* A part has at least so many ids: below, another connection gains nothing. */
#define PART_IDS 20000

static void free_list(struct resolution *res)
{
    sorted_ids_free(&res->list);
    free(res->seqs);
    res->seqs = NULL;
}

void resolution_free(struct resolution *res)
{
    target_set_free(&res->set);
    target_set_free(&res->found);
    free_list(res);
}

/* Keeps the first failure. */
static void note_failure(struct resolution *res, enum err err, const struct pg_error *error)
{
    if (res->store_failed)
        return;
    res->store_failed = true;
    request_store_status(&res->st, err, error);
}

static void end(struct resolution *res)
{
    if (res->set.failed)
        note_failure(res, ERR_NOMEM, NULL);
    res->done(res);
}

/* --- counts by platform ------------------------------------------------------------------------------------------- */

static void count_platforms(struct resolution *res, const struct pg_result *r)
{
    struct db_device_block b;
    for (int row = 0; row < pg_rows(r); row++)
        if (db_device_block_read(r, row, &b) && b.platform >= 0 && b.platform < RESOLVE_PLATFORMS)
            res->platforms[b.platform] += target_set_common(&res->set, b.block, &b.slots);
}

static void on_platforms(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                         size_t count)
{
    struct resolution *res = arg;
    (void)count;
    if (err == ERR_OK)
        count_platforms(res, results[0]);
    else
        note_failure(res, err, error);
    end(res);
}

static void finish(struct resolution *res, bool counted)
{
    if (!res->per_platform || counted || res->st.code != STATUS_OK) {
        end(res);
        return;
    }
    struct pg_txn *txn = pg_txn_new(res->pg, PG_ANY_LANE);
    db_device_blocks(txn, res->tenant, 0);
    pg_txn_submit(txn, on_platforms, res);
}

/* --- the two sides ------------------------------------------------------------------------------------------------ */

static void ask_side(struct resolution *res);

/* What a side means is in `found`. */
static void side_done(struct resolution *res)
{
    if (res->found.failed)
        note_failure(res, ERR_NOMEM, NULL);
    if (res->st.code != STATUS_OK) {
        end(res);
        return;
    }
    if (res->side == res->target) {
        res->set = res->found;
        res->found = (struct target_set){0};
    } else {
        target_set_subtract(&res->set, &res->found);
    }
    if (res->side == res->target && res->target->exclude) {
        res->side = res->target->exclude;
        free_list(res);
        ask_side(res);
    } else {
        if (res->leave_out)
            res->leave_out(res);
        finish(res, false);
    }
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

/* Rows tell their platform: where all of the answer is here, they are counted at once. */
static void on_blocks(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct resolution *res = arg;
    (void)count;
    if (err != ERR_OK) {
        note_failure(res, err, error);
        end(res);
        return;
    }
    struct db_device_block b;
    for (int row = 0; row < pg_rows(results[0]); row++)
        if (db_device_block_read(results[0], row, &b))
            target_set_add(&res->found, b.block, &b.slots);
    if (res->target->exclude || res->leave_out || res->found.failed) {
        side_done(res);
        return;
    }
    res->set = res->found;
    res->found = (struct target_set){0};
    if (res->per_platform)
        count_platforms(res, results[0]);
    finish(res, true);
}

static void ask_blocks(struct resolution *res, int platform)
{
    struct pg_txn *txn = pg_txn_new(res->pg, PG_ANY_LANE);
    db_device_blocks(txn, res->tenant, platform);
    pg_txn_submit(txn, on_blocks, res);
}

/* --- filters and groups ------------------------------------------------------------------------------------------- */

static void on_found(void *arg, const struct status *st, bool store, struct target_set *set)
{
    struct resolution *res = arg;
    if (st->code != STATUS_OK) {
        res->st = *st;
        res->store_failed = store;
        end(res);
        return;
    }
    res->found = *set;
    *set = (struct target_set){0};
    side_done(res);
}

static void ask_filter(struct resolution *res)
{
    struct filter_question question = {.tenant = res->tenant, .text = res->side->filter};
    filter_find(res->pg, &question, on_found, res);
}

static void ask_groups(struct resolution *res)
{
    struct filter_question question = {
        .tenant = res->tenant, .groups = res->side->groups->names, .group_count = res->side->groups->n_names};
    filter_find(res->pg, &question, on_found, res);
}

/* --- ids ---------------------------------------------------------------------------------------------------------- */

/* Returns how many of the side's are kept. */
static size_t find_unknown(struct resolution *res, const char *unknown[RESOLVE_UNKNOWN_KEPT], uint32_t *count)
{
    *count = (uint32_t)sorted_ids_missing(&res->list, res->seqs, unknown);
    return *count < RESOLVE_UNKNOWN_KEPT ? *count : RESOLVE_UNKNOWN_KEPT;
}

/* A part less to wait for; with the last all are here. */
static void part_done(struct resolution *res)
{
    if (--res->waiting)
        return;
    if (res->st.code != STATUS_OK) {
        end(res);
        return;
    }
    target_set_fill(&res->found, res->seqs, res->list.count);
    if (res->side == res->target)
        res->unknown_kept = find_unknown(res, res->unknown, &res->unknown_count);
    else
        res->excluded_unknown_kept = find_unknown(res, res->excluded_unknown, &res->excluded_unknown_count);
    side_done(res);
}

static void on_part(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct resolve_part *part = arg;
    struct resolution *res = part->res;
    (void)count;
    if (err != ERR_OK)
        note_failure(res, err, error);
    else
        pg_int_array(results[0], 0, 0, res->seqs + part->from, part->count);
    part_done(res);
}

static void ask_ids(struct resolution *res)
{
    const Muster__V1__DeviceIds *devices = res->side->devices;
    bool filled = sorted_ids_fill(&res->list, (const char *const *)devices->ids, devices->n_ids);
    size_t n = res->list.count, parts = n / PART_IDS;
    res->seqs = malloc((n ? n : 1) * sizeof *res->seqs);
    if (!filled || !res->seqs) {
        note_failure(res, ERR_NOMEM, NULL);
        end(res);
        return;
    }
    parts = parts < 1 ? 1 : parts > RESOLVE_PARTS ? RESOLVE_PARTS : parts;
    /* One more, so that nothing ends before all is asked. */
    res->waiting = parts + 1;
    for (size_t i = 0; i < parts; i++) {
        struct resolve_part *part = &res->parts[i];
        *part = (struct resolve_part){res, n * i / parts, n * (i + 1) / parts - n * i / parts};
        struct pg_txn *txn = pg_txn_new(res->pg, PG_ANY_LANE);
        db_device_seqs(txn, res->tenant, res->list.ids + part->from, part->count);
        pg_txn_submit(txn, on_part, part);
    }
    part_done(res);
}

static void ask_side(struct resolution *res)
{
    switch (res->side->kind_case) {
    case MUSTER__V1__TARGET__KIND_DEVICES:
        ask_ids(res);
        return;
    case MUSTER__V1__TARGET__KIND_GROUPS:
        ask_groups(res);
        return;
    case MUSTER__V1__TARGET__KIND_FILTER:
        ask_filter(res);
        return;
    case MUSTER__V1__TARGET__KIND_PLATFORM:
        ask_blocks(res, (int)res->side->platform);
        return;
    case MUSTER__V1__TARGET__KIND_ALL:
    case MUSTER__V1__TARGET__KIND__NOT_SET:
    default:
        ask_blocks(res, 0);
    }
}

void resolution_run(struct resolution *res)
{
    res->side = res->target;
    ask_side(res);
}

bool resolution_refuse_unknown(const struct resolution *res, struct status *st)
{
    uint32_t count = res->unknown_count + res->excluded_unknown_count;
    if (!count)
        return false;
    for (size_t i = 0; i < res->unknown_kept; i++)
        status_violation(st, res->ids_field ? res->ids_field : "target.devices.ids", "%s is not registered",
                         res->unknown[i]);
    for (size_t i = 0; i < res->excluded_unknown_kept; i++)
        status_violation(st, "target.exclude.devices.ids", "%s is not registered", res->excluded_unknown[i]);
    status_set(st, STATUS_INVALID_ARGUMENT, "UNKNOWN_DEVICES", "%u of the devices listed are not registered", count);
    status_metadata(st, "unknown_count", "%u", count);
    return true;
}
