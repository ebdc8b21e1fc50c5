/* A list of ids in order, each once, and which of them were found.
 * Owns: struct sorted_ids. May call: the C library. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_SORTED_IDS_H
#define MUSTER_DISPATCHER_SORTED_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct id_entry {
    uint64_t key;   /* bytes behind what all ids have in common, so that comparing rarely reads the text */
    const char *id; /* borrowed */
    uint32_t place; /* in the list it came from */
};

/* Zero-initialised is empty and valid. */
struct sorted_ids {
    struct id_entry *entries; /* in the order of their bytes */
    size_t count;
    const char **ids; /* the same ids once more, as an array */
};

/* Fills an empty list; of a repeated id the first counts. False without memory. */
MUST_CHECK bool sorted_ids_fill(struct sorted_ids *list, const char *const *ids, size_t n);
void sorted_ids_free(struct sorted_ids *list);
/* How many have no number in `seqs`, which goes with the list; fills `missing` with the first of them in the order of
 * the list they came from. */
#define SORTED_IDS_MISSING_KEPT 100
size_t sorted_ids_missing(const struct sorted_ids *list, const int64_t *seqs,
                          const char *missing[SORTED_IDS_MISSING_KEPT]);

#endif
