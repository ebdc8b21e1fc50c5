#include "dispatcher/device_labels.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/label_set.h"
#include "dispatcher/present.h"
#include "lib/base/clock.h"
#include "lib/store/db_label.h"

#define HOUR_MS (3600 * 1000ll)

/* The blocks of a page, and which of its devices is in which slot. */
struct page {
    struct arena *arena;
    Muster__V1__Device **devices;
    size_t n, block_count;
    int32_t *blocks;
    uint32_t (*places)[BLOCK_SLOTS]; /* index + 1; 0: none */
};

static bool page_fill(struct page *p)
{
    p->blocks = malloc((p->n ? p->n : 1) * sizeof *p->blocks);
    if (!p->blocks)
        return false;
    for (size_t i = 0; i < p->n; i++) {
        int32_t block = (int32_t)block_of(p->devices[i]->seq);
        if (!p->block_count || p->blocks[p->block_count - 1] != block)
            p->blocks[p->block_count++] = block;
    }
    p->places = calloc(p->block_count ? p->block_count : 1, sizeof *p->places);
    for (size_t i = 0, b = 0; p->places && i < p->n; i++) {
        while (p->blocks[b] != (int32_t)block_of(p->devices[i]->seq))
            b++;
        p->places[b][slot_of(p->devices[i]->seq)] = (uint32_t)i + 1;
    }
    return p->places != NULL;
}

static void page_free(struct page *p)
{
    free(p->blocks);
    free(p->places);
}

/* The slots of a block, or NULL. */
static const uint32_t *places_of(const struct page *p, uint32_t block)
{
    size_t low = 0, high = p->block_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if ((uint32_t)p->blocks[mid] < block)
            low = mid + 1;
        else
            high = mid;
    }
    return low < p->block_count && (uint32_t)p->blocks[low] == block ? p->places[low] : NULL;
}

void device_labels_ask(struct pg_txn *txn, int32_t tenant, Muster__V1__Device *const *devices, size_t n)
{
    int32_t *blocks = malloc((n ? n : 1) * sizeof *blocks);
    size_t count = 0;
    for (size_t i = 0; blocks && i < n; i++)
        if (!count || blocks[count - 1] != (int32_t)block_of(devices[i]->seq))
            blocks[count++] = (int32_t)block_of(devices[i]->seq);
    /* Without memory nothing is known of them: the transaction fails too then. */
    db_label_of_blocks(txn, tenant, blocks, count);
    db_seen_of_blocks(txn, tenant, blocks, count);
    free(blocks);
}

/* --- labels ------------------------------------------------------------------------------------------------------- */

/* The place for one more in an array of pointers, which doubles at powers of two; NULL without memory. */
static void *one_more(struct arena *a, void ***array, size_t *n)
{
    if ((*n & (*n - 1)) == 0) {
        void **grown = arena_alloc(a, (*n ? 2 * *n : 1) * sizeof *grown);
        if (!grown)
            return NULL;
        if (*n)
            memcpy(grown, *array, *n * sizeof *grown);
        *array = grown;
    }
    return &(*array)[(*n)++];
}

static void add_attribute(struct arena *a, Muster__V1__Device *d, char *name, char *value)
{
    if (strcmp(name, LABEL_TIME_ZONE) == 0)
        d->time_zone = value;
    Muster__V1__Device__AttributesEntry *entry = arena_alloc(a, sizeof *entry);
    void **place = entry ? one_more(a, (void ***)&d->attributes, &d->n_attributes) : NULL;
    if (!place)
        return;
    muster__v1__device__attributes_entry__init(entry);
    entry->key = name;
    entry->value = value;
    *place = entry;
}

static Muster__V1__DeviceInformation *information_of(struct arena *a, Muster__V1__Device *d)
{
    if (!d->information && (d->information = arena_alloc(a, sizeof *d->information)))
        muster__v1__device_information__init(d->information);
    return d->information;
}

static void add_label(struct arena *a, Muster__V1__Device *d, const char *name, char *shown, char *value)
{
    Muster__V1__DeviceInformation *information;
    void **place;
    if (strcmp(name, DB_LABEL_TAG) == 0) {
        if ((place = one_more(a, (void ***)&d->tags, &d->n_tags)))
            *place = value;
    } else if (strncmp(name, DB_LABEL_ATTRIBUTE, strlen(DB_LABEL_ATTRIBUTE)) == 0) {
        add_attribute(a, d, shown, value);
    } else if ((information = information_of(a, d))) {
        if (strcmp(name, DB_LABEL_MODEL) == 0)
            information->model = value;
        else
            information->os_version = value;
    }
}

static void put_labels(struct page *p, const struct pg_result *r)
{
    struct db_label_block b;
    for (int row = 0; row < pg_rows(r) && !p->arena->failed; row++) {
        const uint32_t *places = db_label_block_read(r, row, &b) ? places_of(p, b.block) : NULL;
        if (!places)
            continue;
        char *value = NULL, *name = NULL;
        for (unsigned slot = bitmap_next(&b.slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&b.slots, slot + 1)) {
            if (!places[slot])
                continue;
            if (!value) { /* one copy for all of them */
                size_t prefix = strlen(DB_LABEL_ATTRIBUTE);
                value = arena_copy(p->arena, b.value, strlen(b.value));
                name = strlen(b.name) > prefix ? arena_copy(p->arena, b.name + prefix, strlen(b.name + prefix)) : value;
                if (!value || !name)
                    return;
            }
            add_label(p->arena, p->devices[places[slot] - 1], b.name, name, value);
        }
    }
}

/* --- last sight --------------------------------------------------------------------------------------------------- */

/* Rows come newest first: what is known already is newer. A day's row bears its last hour. */
static void put_seen(struct page *p, const struct pg_result *r)
{
    struct db_seen_block b;
    int64_t days_before = (clock_wall_ms() / HOUR_MS - DB_SEEN_KEEP_HOURS) / 24 * 24;
    for (int row = 0; row < pg_rows(r) && !p->arena->failed; row++) {
        const uint32_t *places = db_seen_block_read(r, row, &b) ? places_of(p, b.block) : NULL;
        if (!places)
            continue;
        bool day = b.hour < days_before;
        for (unsigned slot = bitmap_next(&b.slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&b.slots, slot + 1)) {
            Muster__V1__Device *d = places[slot] ? p->devices[places[slot] - 1] : NULL;
            if (d && !d->last_seen_at)
                d->last_seen_at = present_time(p->arena, (day ? b.hour - 23 : b.hour) * HOUR_MS);
        }
    }
}

/* As many as take no more than the bytes of a page. */
static size_t fitting(Muster__V1__Device *const *devices, size_t n)
{
    size_t bytes = 0, i = 0;
    for (; i < n && (i == 0 || bytes < PAGE_BYTES); i++)
        bytes += muster__v1__device__get_packed_size(devices[i]);
    return i;
}

size_t device_labels_put(struct arena *a, Muster__V1__Device **devices, size_t n,
                         const struct pg_result *const *results)
{
    struct page p = {.arena = a, .devices = devices, .n = n};
    if (page_fill(&p)) {
        put_labels(&p, results[0]);
        put_seen(&p, results[1]);
    } else {
        a->failed = true;
    }
    page_free(&p);
    return a->failed ? 0 : fitting(devices, n);
}
