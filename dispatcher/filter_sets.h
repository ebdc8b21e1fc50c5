/* Filters evaluated: what their tests mean, block by block, put together by their programs.
 * Owns: struct filter_unit. May call: lib/store/db_label, db_device, proto/filter, target_set. Loop rule: none: adds
 * statements, reads results. */
#ifndef MUSTER_DISPATCHER_FILTER_SETS_H
#define MUSTER_DISPATCHER_FILTER_SETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/target_set.h"
#include "lib/base/err.h"
#include "lib/store/pg.h"
#include "proto/filter.h"

/* One filter: a question's, or a group's. */
struct filter_unit {
    struct filter filter;
    struct target_set tests[FILTER_TESTS_MAX]; /* what each means */
    char hours[FILTER_TESTS_MAX][16];          /* of last_seen: the first hour, as the store takes it */
    enum { UNIT_NEW, UNIT_UNDER_WAY, UNIT_DONE } stage;
    struct target_set set; /* the answer */
};

/* Returns owned, or NULL without memory. */
struct filter_unit *filter_unit_new(void);
void filter_unit_free(struct filter_unit **unit);
/* Makes it the filter `group in (names)`; at most FILTER_VALUES_MAX names, borrowed. */
void filter_unit_groups(struct filter_unit *unit, char *const *names, size_t n);

/* Adds the statement that says what the tests of all these units mean at `now_ms`. False without memory. */
MUST_CHECK bool filter_units_ask(struct filter_unit *const *units, size_t n, struct pg_txn *txn, int32_t tenant,
                                 int64_t now_ms);

struct filter_units {
    struct filter_unit *const *units;
    size_t count;
    size_t (*unit_of)(void *arg, const char *group); /* of the group's filter; 0: it has a list of members */
    void *arg;
};
/* Fills the set of the first unit, and those it needs. `registered`: rows of all blocks (db_device_blocks); `tests`:
 * those of filter_units_ask. ERR_EXISTS: a group's filter needs itself; ERR_NOMEM. */
MUST_CHECK enum err filter_units_evaluate(const struct filter_units *all, const struct pg_result *registered,
                                          const struct pg_result *tests);

#endif
