#include "dispatcher/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "lib/store/db_device.h"

void resolution_free(struct resolution *res)
{
    target_set_free(&res->set);
}

static bool unique_ids(struct resolution *res, struct arena *arena)
{
    const Muster__V1__DeviceIds *devices = res->target->devices;
    const char *const *all = (const char *const *)devices->ids;
    uint32_t *kept = arena_alloc(arena, devices->n_ids * sizeof *kept);
    res->ids = arena_alloc(arena, devices->n_ids * sizeof *res->ids);
    if (!kept || !res->ids)
        return false;
    res->id_count = id_set_unique(all, devices->n_ids, false, kept);
    if (res->id_count == SIZE_MAX)
        return false;
    for (size_t i = 0; i < res->id_count; i++)
        res->ids[i] = all[kept[i]];
    return true;
}

bool resolution_ask(struct resolution *res, struct pg_txn *txn, int32_t tenant, struct arena *arena)
{
    res->results = 1;
    switch (res->target->kind_case) {
    case MUSTER__V1__TARGET__KIND_DEVICES:
        if (!unique_ids(res, arena))
            return false;
        db_device_seqs(txn, tenant, res->ids, res->id_count);
        break;
    case MUSTER__V1__TARGET__KIND_GROUPS: {
        const char *const *names = (const char *const *)res->target->groups->names;
        db_group_find(txn, tenant, names, res->target->groups->n_names);
        db_group_blocks(txn, tenant, names, res->target->groups->n_names);
        res->results = 2;
        break;
    }
    case MUSTER__V1__TARGET__KIND_PLATFORM:
        db_device_blocks(txn, tenant, (int)res->target->platform);
        return true; /* rows tell their platform */
    default:
        db_device_blocks(txn, tenant, 0);
        return true;
    }
    if (res->per_platform) {
        db_device_blocks(txn, tenant, 0);
        res->results++;
    }
    return true;
}

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

static bool read_ids(struct resolution *res, const struct pg_result *r)
{
    int64_t *seqs = calloc(res->id_count, sizeof *seqs);
    if (!seqs)
        return false;
    size_t n = pg_int_array(r, 0, 0, seqs, res->id_count);
    for (size_t i = n; i < res->id_count; i++)
        seqs[i] = -1;
    for (size_t i = 0; i < res->id_count; i++) {
        if (seqs[i] >= 0)
            continue;
        if (res->unknown_kept < RESOLVE_UNKNOWN_KEPT)
            res->unknown[res->unknown_kept++] = res->ids[i];
        res->unknown_count++;
    }
    target_set_fill(&res->set, seqs, res->id_count);
    free(seqs);
    return true;
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

bool resolution_read(struct resolution *res, const struct pg_result *const *results, struct status *st)
{
    switch (res->target->kind_case) {
    case MUSTER__V1__TARGET__KIND_DEVICES:
        if (!read_ids(res, results[0]))
            return false;
        break;
    case MUSTER__V1__TARGET__KIND_GROUPS:
        check_groups(res, results[0], st);
        add_blocks(res, results[1]);
        break;
    default:
        add_blocks(res, results[0]);
    }
    if (res->per_platform)
        count_platforms(res, results[res->results - 1]);
    return !res->set.failed;
}
