/* From a filter to the devices it matches, at one moment (DESIGN step 1).
 * Owns: struct filter_find, groups with filters named in filters. May call: lib/store, proto/filter, target_set.
 * Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_FILTER_FIND_H
#define MUSTER_DISPATCHER_FILTER_FIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/target_set.h"
#include "lib/store/pg.h"
#include "proto/status.h"

/* Groups with filters may name groups with filters, so often. */
#define FILTER_FIND_NESTED 4
/* Groups that a filter and the groups in it name, all together. */
#define FILTER_FIND_GROUPS 512

/* What is asked: `text` alone, or the members of groups, some of which have filters. Borrowed until done. */
struct filter_question {
    int32_t tenant;
    const char *text; /* NULL: `groups` */
    char *const *groups;
    size_t group_count;
};

/* `st`: STATUS_OK, or why there is no answer; `store` when the store failed. `set` may be taken (moved); it is freed
 * otherwise. */
typedef void filter_found_fn(void *arg, const struct status *st, bool store, struct target_set *set);

/* Asks; `done` comes exactly once, perhaps before this returns. */
void filter_find(struct pg *pg, const struct filter_question *question, filter_found_fn *done, void *arg);

/* Fills a violation of `field` when the text is no filter; metadata say where. */
void filter_find_check(struct status *st, const char *field, const char *text);

#endif
