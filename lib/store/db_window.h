/* Maintenance windows in the time zones of devices; PostgreSQL knows the zones' rules.
 * Owns: statements over the attribute time_zone and the functions of schema/postgres (steering). May call:
 * lib/store/pg, block. Loop rule: as pg.h. Adding and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_WINDOW_H
#define MUSTER_STORE_DB_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/block.h"
#include "lib/store/pg.h"

#define DB_ZONE_MAX 64 /* bytes of a zone's name, with the final NUL */

/* Which outcomes are tried again, as it is stored; `after` 0: none. */
struct db_retry {
    int32_t after;            /* states: bits */
    int16_t attempts, factor; /* deliveries in all; of each wait to the one before */
    int64_t initial_ms, max_ms;
};

/* When a batch may be sent, as it is stored; 0 for what is not limited. */
struct db_steer {
    int64_t not_before_ms, deliver_by_ms, execution_ms;
    int32_t window; /* see schema/postgres */
    bool rollout;   /* it has waves or thresholds, which are read when they are needed */
    int32_t waves;
    struct db_retry retry;
    bool supersedes; /* others, which it must not overtake */
    char zone[DB_ZONE_MAX];
};

struct db_window {
    int32_t days;        /* bit n for ISO day n + 1: Monday first */
    int32_t from, until; /* minutes of the day */
    const char *zone;    /* of devices that have none */
};

static inline int32_t db_window_pack(const struct db_window *w)
{
    return w->days + w->from * 128 + w->until * 262144;
}
static inline struct db_window db_window_of(const struct db_steer *s)
{
    return (struct db_window){s->window % 128, s->window / 128 % 2048, s->window / 262144, s->zone};
}

/* One bool: whether it is the name of a time zone. */
void db_window_zone_known(struct pg_txn *txn, const char *zone);
/* zone, opens_ms (NULL: never) for each zone in which one of these devices is: when the window opens next, or is open,
 * from `from_ms` on. `targets`: whole bitmaps. */
void db_window_of_devices(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, const struct slice *targets,
                          size_t n, const struct db_window *window, int64_t from_ms);

/* zone, block, slots of the devices of these blocks that have a zone, in the order of zones. */
void db_window_zones(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, size_t n);
struct db_window_zone {
    const char *zone;
    uint32_t block;
    struct bitmap slots; /* of deleted devices too */
};
/* False when the row makes no sense. */
MUST_CHECK bool db_window_zone_read(const struct pg_result *r, int row, struct db_window_zone *out);
/* zone, opens_ms, closes_ms (NULL: none) of the window that is open or comes next, for the tenant's zones and the
 * default one. */
void db_window_next(struct pg_txn *txn, int32_t tenant, const struct db_window *window, int64_t now_ms);

#endif
