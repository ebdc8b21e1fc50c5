#include "dispatcher/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "lib/store/db_device.h"

/* A part has at least so many ids: below, another connection gains nothing. */
#define PART_IDS 20000

void resolution_free(struct resolution *res)
{
    target_set_free(&res->set);
    sorted_ids_free(&res->list);
    free(res->seqs);
    res->seqs = NULL;
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

static void add_blocks(struct resolution *res, const struct pg_result *r)
{
    struct db_device_block b;
    for (int row = 0; row < pg_rows(r); row++)
        if (db_device_block_read(r, row, &b))
            target_set_add(&res->set, b.block, &b.slots);
}

static void count_platforms(struct resolution *res, const struct pg_result *r)
{
    struct db_device_block b;
    for (int row = 0; row < pg_rows(r); row++)
        if (db_device_block_read(r, row, &b) && b.platform >= 0 && b.platform < RESOLVE_PLATFORMS)
            res->platforms[b.platform] += target_set_common(&res->set, b.block, &b.slots);
}

/* Names the first group that there is none of. */
static void check_groups(const struct resolution *res, const struct pg_result *r, struct status *st)
{
    const Muster__V1__GroupNames *groups = res->target->groups;
    for (size_t i = 0; i < groups->n_names; i++) {
        bool found = false;
        for (int row = 0; row < pg_rows(r) && !found; row++) {
            struct db_group g;
            db_group_read(r, row, &g);
            found = strcmp(g.name, groups->names[i]) == 0;
        }
        if (!found) {
            status_set(st, STATUS_NOT_FOUND, "GROUP_NOT_FOUND", "there is no group %s", groups->names[i]);
            status_metadata(st, "group", "%.60s", groups->names[i]);
            return;
        }
    }
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

/* Keeps the first failure. */
static void note_failure(struct resolution *res, enum err err, const struct pg_error *error)
{
    if (res->failed)
        return;
    res->failed = true;
    res->r->d->figures.store_errors++;
    request_store_status(res->refusal, err, error);
}

static void end(struct resolution *res)
{
    struct request *r = res->r;
    if (res->set.failed)
        note_failure(res, ERR_NOMEM, NULL);
    if (!res->failed) {
        res->next(r, NULL);
        return;
    }
    struct status st = *res->refusal; /* all of it stands in the request */
    resolution_free(res);
    request_fail(r, &st);
}

/* Results: the groups and their blocks, or the blocks; with per_platform all blocks of the tenant once more. */
static void on_blocks(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct resolution *res = arg;
    bool groups = res->target->kind_case == MUSTER__V1__TARGET__KIND_GROUPS;
    if (err == ERR_OK) {
        if (groups)
            check_groups(res, results[0], res->refusal);
        add_blocks(res, results[groups]);
        if (res->per_platform)
            count_platforms(res, results[count - 1]);
    } else {
        note_failure(res, err, error);
    }
    end(res);
}

static void ask_blocks(struct resolution *res)
{
    struct pg_txn *txn = request_txn(res->r);
    int32_t tenant = res->r->tenant;
    if (res->target->kind_case == MUSTER__V1__TARGET__KIND_GROUPS) {
        const char *const *names = (const char *const *)res->target->groups->names;
        db_group_find(txn, tenant, names, res->target->groups->n_names);
        db_group_blocks(txn, tenant, names, res->target->groups->n_names);
        if (res->per_platform)
            db_device_blocks(txn, tenant, 0);
    } else {
        /* Rows tell their platform. */
        bool one = res->target->kind_case == MUSTER__V1__TARGET__KIND_PLATFORM;
        db_device_blocks(txn, tenant, one ? (int)res->target->platform : 0);
    }
    pg_txn_submit(txn, on_blocks, res);
}

/* --- ids ---------------------------------------------------------------------------------------------------------- */

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

/* A part less to wait for; with the last all are here. */
static void part_done(struct resolution *res)
{
    if (--res->waiting)
        return;
    if (res->failed) {
        end(res);
        return;
    }
    target_set_fill(&res->set, res->seqs, res->list.count);
    res->unknown_count = (uint32_t)sorted_ids_missing(&res->list, res->seqs, res->unknown);
    res->unknown_kept = res->unknown_count < RESOLVE_UNKNOWN_KEPT ? res->unknown_count : RESOLVE_UNKNOWN_KEPT;
    if (!res->per_platform) {
        end(res);
        return;
    }
    struct pg_txn *txn = request_txn(res->r);
    db_device_blocks(txn, res->r->tenant, 0);
    pg_txn_submit(txn, on_platforms, res);
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
    const Muster__V1__DeviceIds *devices = res->target->devices;
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
        struct pg_txn *txn = request_txn(res->r);
        db_device_seqs(txn, res->r->tenant, res->list.ids + part->from, part->count);
        pg_txn_submit(txn, on_part, part);
    }
    part_done(res);
}

void resolution_run(struct resolution *res, struct request *r, struct status *refusal, request_next_fn *next)
{
    res->r = r;
    res->refusal = refusal;
    res->next = next;
    if (res->target->kind_case == MUSTER__V1__TARGET__KIND_DEVICES)
        ask_ids(res);
    else
        ask_blocks(res);
}
