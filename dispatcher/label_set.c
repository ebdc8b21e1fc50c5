#include "dispatcher/label_set.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/validate.h"
#include "lib/store/db_window.h"
#include "proto/delivery.h"
#include "proto/filter.h"

/* The longest name a label can have, and the longest value. */
#define KEY_MAX (sizeof DB_LABEL_ATTRIBUTE + FILTER_NAME_MAX + LABEL_VALUE_MAX + 2)

/* --- checks ------------------------------------------------------------------------------------------------------- */

static void check_text(struct status *st, const char *path, const char *field, size_t i, const char *text, size_t min,
                       size_t max)
{
    char whole[96];
    snprintf(whole, sizeof whole, "%s.%s[%zu]", path, field, i);
    validate_text(st, whole, text, min, max);
}

static void check_attribute(struct status *st, const char *path, const Muster__V1__Device__AttributesEntry *a)
{
    char whole[96 + FILTER_NAME_MAX];
    if (!filter_name_ok(a->key)) {
        snprintf(whole, sizeof whole, "%s.attributes", path);
        status_violation(st, whole, "\"%.80s\" is no name of 1 to %u bytes of [A-Za-z0-9_.-]", a->key, FILTER_NAME_MAX);
        return;
    }
    snprintf(whole, sizeof whole, "%s.attributes[%s]", path, a->key);
    validate_text(st, whole, a->value, 0, LABEL_VALUE_MAX);
}

static void check_information(struct status *st, const char *path, const Muster__V1__DeviceInformation *information)
{
    char whole[96];
    snprintf(whole, sizeof whole, "%s.information.os_version", path);
    validate_text(st, whole, information->os_version, 0, INFORMATION_OS_MAX);
    snprintf(whole, sizeof whole, "%s.information.model", path);
    validate_text(st, whole, information->model, 0, INFORMATION_TEXT_MAX);
}

/* What it says beside the field: NULL when it does not. */
static const Muster__V1__Device__AttributesEntry *zone_attribute(const Muster__V1__Device *d)
{
    for (size_t i = d->n_attributes; i-- > 0;) /* of a repeated name the last counts */
        if (strcmp(d->attributes[i]->key, LABEL_TIME_ZONE) == 0)
            return d->attributes[i];
    return NULL;
}

/* Whether there is such a zone PostgreSQL says. */
static void check_zone(struct status *st, const char *path, const Muster__V1__Device *d)
{
    const Muster__V1__Device__AttributesEntry *other = zone_attribute(d);
    char whole[96];
    snprintf(whole, sizeof whole, "%s.time_zone", path);
    validate_text(st, whole, d->time_zone, 0, DB_ZONE_MAX - 1);
    if (*d->time_zone && other && strcmp(other->value, d->time_zone) != 0)
        status_violation(st, whole, "is not what the attribute says");
}

void label_set_check(struct status *st, const char *path, const Muster__V1__Device *d)
{
    char whole[96];
    snprintf(whole, sizeof whole, "%s.tags", path);
    if (d->n_tags > LABEL_TAGS_MAX)
        status_violation(st, whole, "has %zu entries, allowed are %u", d->n_tags, LABEL_TAGS_MAX);
    for (size_t i = 0; i < d->n_tags && i < LABEL_TAGS_MAX; i++)
        check_text(st, path, "tags", i, d->tags[i], 1, LABEL_VALUE_MAX);
    snprintf(whole, sizeof whole, "%s.attributes", path);
    if (d->n_attributes > LABEL_ATTRIBUTES_MAX)
        status_violation(st, whole, "has %zu entries, allowed are %u", d->n_attributes, LABEL_ATTRIBUTES_MAX);
    for (size_t i = 0; i < d->n_attributes && i < LABEL_ATTRIBUTES_MAX; i++)
        check_attribute(st, path, d->attributes[i]);
    if (d->information)
        check_information(st, path, d->information);
    check_zone(st, path, d);
}

/* --- labels, each once -------------------------------------------------------------------------------------------- */

static size_t place_of(const struct label_set *set, const char *key, size_t len)
{
    uint8_t hash[crypto_shorthash_BYTES];
    crypto_shorthash(hash, (const uint8_t *)key, len, set->hash_key);
    return load_u64le(hash) & (set->places - 1);
}

static size_t key_length(const char *key)
{
    size_t name = strlen(key) + 1;
    return name + strlen(key + name) + 1;
}

/* The table is at most half full. */
static bool grow_table(struct label_set *set)
{
    size_t places = set->places ? set->places * 2 : 256;
    uint32_t *table = calloc(places, sizeof *table);
    if (!table)
        return false;
    if (!set->places)
        crypto_shorthash_keygen(set->hash_key);
    free(set->table);
    set->table = table;
    set->places = places;
    for (size_t i = 0; i < set->count; i++) {
        size_t at = place_of(set, set->keys[i], key_length(set->keys[i]));
        while (table[at])
            at = (at + 1) & (places - 1);
        table[at] = (uint32_t)i + 1;
    }
    return true;
}

/* Makes an array of `cap` things; what it was stays where it fails. */
static bool resize(void *array, size_t cap, size_t size)
{
    void *old, *grown;
    memcpy(&old, array, sizeof old);
    grown = realloc(old, cap * size);
    if (grown)
        memcpy(array, &grown, sizeof grown);
    return grown != NULL; /* cppcheck-suppress memleak */
}

static bool grow_labels(struct label_set *set)
{
    size_t cap = set->cap ? set->cap * 2 : 64;
    if (!resize(&set->keys, cap, sizeof *set->keys) || !resize(&set->names, cap, sizeof *set->names) ||
        !resize(&set->values, cap, sizeof *set->values))
        return false;
    set->cap = cap;
    return true;
}

/* The number of a label, from 1; 0 without memory. */
static uint32_t intern(struct label_set *set, const char *key, size_t len)
{
    if (2 * (set->count + 1) > set->places && !grow_table(set))
        return 0;
    size_t at = place_of(set, key, len);
    for (; set->table[at]; at = (at + 1) & (set->places - 1)) {
        const char *other = set->keys[set->table[at] - 1];
        if (key_length(other) == len && memcmp(other, key, len) == 0)
            return set->table[at];
    }
    if (set->count == set->cap && !grow_labels(set))
        return 0;
    char *copy = malloc(len);
    if (!copy)
        return 0;
    memcpy(copy, key, len);
    set->keys[set->count] = copy;
    set->names[set->count] = copy;
    set->values[set->count] = copy + strlen(copy) + 1;
    set->table[at] = (uint32_t)++set->count;
    return set->table[at];
}

static bool add_pair(struct label_set *set, int32_t device, const char *prefix, const char *name, const char *value)
{
    char key[KEY_MAX];
    int n = snprintf(key, sizeof key, "%s%s%c%s", prefix, name, 0, value);
    uint32_t label = n >= 0 && (size_t)n < sizeof key ? intern(set, key, (size_t)n + 1) : 0;
    if (set->pairs == set->pairs_cap) {
        size_t cap = set->pairs_cap ? set->pairs_cap * 2 : 1024;
        if (!resize(&set->devices, cap, sizeof *set->devices) || !resize(&set->labels, cap, sizeof *set->labels))
            return false;
        set->pairs_cap = cap;
    }
    if (!label)
        return false;
    set->devices[set->pairs] = device;
    set->labels[set->pairs++] = (int32_t)label;
    return true;
}

/* Of a name that comes twice, as an encoder may send a map, the last counts. */
static bool overridden(const Muster__V1__Device *d, size_t i)
{
    for (size_t k = i + 1; k < d->n_attributes; k++)
        if (strcmp(d->attributes[k]->key, d->attributes[i]->key) == 0)
            return true;
    return false;
}

bool label_set_add(struct label_set *set, int32_t number, const Muster__V1__Device *d)
{
    bool added = true;
    for (size_t i = 0; i < d->n_tags; i++)
        added = added && add_pair(set, number, "", DB_LABEL_TAG, d->tags[i]);
    for (size_t i = 0; i < d->n_attributes; i++)
        if (!overridden(d, i))
            added = added && add_pair(set, number, DB_LABEL_ATTRIBUTE, d->attributes[i]->key, d->attributes[i]->value);
    if (*d->time_zone && !zone_attribute(d))
        added = added && add_pair(set, number, DB_LABEL_ATTRIBUTE, LABEL_TIME_ZONE, d->time_zone);
    if (d->information && *d->information->os_version)
        added = added && add_pair(set, number, "", DB_LABEL_OS_VERSION, d->information->os_version);
    if (d->information && *d->information->model)
        added = added && add_pair(set, number, "", DB_LABEL_MODEL, d->information->model);
    return added;
}

struct db_labels label_set_labels(const struct label_set *set, bool replace)
{
    return (struct db_labels){.names = set->names,
                              .values = set->values,
                              .count = set->count,
                              .devices = set->devices,
                              .labels = set->labels,
                              .pairs = set->pairs,
                              .replace = replace};
}

void label_set_free(struct label_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->keys[i]);
    free(set->keys);
    free((void *)set->names);
    free((void *)set->values);
    free(set->table);
    free(set->devices);
    free(set->labels);
    *set = (struct label_set){0};
}
