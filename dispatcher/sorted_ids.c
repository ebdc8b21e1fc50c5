#include "dispatcher/sorted_ids.h"

#include <stdlib.h>
#include <string.h>

void sorted_ids_free(struct sorted_ids *list)
{
    free(list->entries);
    free(list->ids);
    *list = (struct sorted_ids){0};
}

#define KEY_BYTES 8
/* Below, comparing is cheaper than counting. */
#define RADIX_MIN 1000

/* How many bytes all ids begin with. */
static size_t common_prefix(const char *const *ids, size_t n)
{
    size_t len = n ? strlen(ids[0]) : 0;
    for (size_t i = 1; i < n && len; i++) {
        size_t same = 0;
        while (same < len && ids[i][same] == ids[0][same])
            same++;
        len = same;
    }
    return len;
}

/* The next eight bytes as a number that orders as they do; a shorter id has zeros. */
static uint64_t key_of(const char *text)
{
    uint64_t key = 0;
    for (int shift = 8 * (KEY_BYTES - 1); shift >= 0 && *text; shift -= 8)
        key |= (uint64_t)(uint8_t)*text++ << shift;
    return key;
}

static int compare(const void *a, const void *b)
{
    const struct id_entry *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    int order = strcmp(x->id, y->id);
    if (order)
        return order;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Sorts by key alone, byte by byte from the last; what has one key stays in its order. Half the cost of comparing.
 * False without memory. */
static bool sort_by_key(struct id_entry *entries, size_t n)
{
    size_t counts[KEY_BYTES][256] = {0};
    struct id_entry *other = calloc(n, sizeof *other), *from = entries, *to = other;
    if (!other)
        return false;
    for (size_t i = 0; i < n; i++)
        for (unsigned b = 0; b < KEY_BYTES; b++)
            counts[b][entries[i].key >> 8 * b & 255]++;
    for (unsigned b = 0; b < KEY_BYTES; b++) {
        size_t *at = counts[b], sum = 0;
        if (at[entries[0].key >> 8 * b & 255] == n)
            continue; /* all have the same */
        for (unsigned v = 0; v < 256; v++) {
            size_t count = at[v];
            at[v] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++)
            to[at[from[i].key >> 8 * b & 255]++] = from[i];
        struct id_entry *swap = from;
        from = to;
        to = swap;
    }
    if (from != entries)
        memcpy(entries, from, n * sizeof *entries);
    free(other);
    return true;
}

static bool sort(struct id_entry *entries, size_t n)
{
    if (n < RADIX_MIN) {
        qsort(entries, n, sizeof *entries, compare);
        return true;
    }
    if (!sort_by_key(entries, n))
        return false;
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && entries[end].key == entries[i].key;)
            end++;
        if (end - i > 1)
            qsort(&entries[i], end - i, sizeof *entries, compare);
    }
    return true;
}

static size_t drop_repeated(struct id_entry *entries, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!kept || entries[i].key != entries[kept - 1].key || strcmp(entries[i].id, entries[kept - 1].id) != 0)
            entries[kept++] = entries[i];
    return kept;
}

bool sorted_ids_fill(struct sorted_ids *list, const char *const *ids, size_t n)
{
    list->entries = malloc((n ? n : 1) * sizeof *list->entries);
    list->ids = malloc((n ? n : 1) * sizeof *list->ids);
    if (!list->entries || !list->ids)
        return false;
    size_t prefix = common_prefix(ids, n);
    for (size_t i = 0; i < n; i++)
        list->entries[i] = (struct id_entry){key_of(ids[i] + prefix), ids[i], (uint32_t)i};
    if (!sort(list->entries, n))
        return false;
    list->count = drop_repeated(list->entries, n);
    for (size_t i = 0; i < list->count; i++)
        list->ids[i] = list->entries[i].id;
    return true;
}

size_t sorted_ids_missing(const struct sorted_ids *list, const int64_t *seqs,
                          const char *missing[SORTED_IDS_MISSING_KEPT])
{
    const struct id_entry *first[SORTED_IDS_MISSING_KEPT]; /* by place */
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct id_entry *e = &list->entries[i];
        if (seqs[i] >= 0)
            continue;
        n++;
        if (kept == SORTED_IDS_MISSING_KEPT && first[kept - 1]->place < e->place)
            continue;
        size_t at = kept < SORTED_IDS_MISSING_KEPT ? kept++ : kept - 1;
        for (; at && first[at - 1]->place > e->place; at--)
            first[at] = first[at - 1];
        first[at] = e;
    }
    for (size_t i = 0; i < kept; i++)
        missing[i] = first[i]->id;
    return n;
}
