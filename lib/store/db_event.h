/* Events: what happened to batches (schema/postgres, events). They are written by functions and triggers of the schema.
 * Owns: the statements on event_log and event_head. May call: lib/store/pg. Loop rule: as pg.h. Adding and reading: see
 * db_tenant.h. */
#ifndef MUSTER_STORE_DB_EVENT_H
#define MUSTER_STORE_DB_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/pg.h"

/* One row: the numbers of the tenant's last event, and of the first one that is kept (0: none is); the text of the
 * event of this number (negative: of the last one), null when it is not kept. */
void db_event_range(struct pg_txn *txn, int32_t tenant, int64_t after);
/* tenant, number of its last event, of those tenants that have any. */
void db_event_heads(struct pg_txn *txn, const int32_t *tenants, size_t n);
/* Rows of events with numbers above `after`, in order, at most `rows` of at most 256 events each. */
void db_event_page(struct pg_txn *txn, int32_t tenant, int64_t after, int rows);
/* Calls `each` for every event of a row that is above `after`. `text` is one for db_event_read. */
void db_event_each(const struct pg_result *r, int row, int64_t after,
                   void (*each)(void *arg, int64_t id, struct slice text), void *arg);

struct db_event {
    int kind; /* muster.v1.EventKind */
    int64_t batch, at_ms;
    struct slice data; /* JSON of the rest of muster.v1.Event; borrowed from the text */
};
/* False when the text makes no sense. */
MUST_CHECK bool db_event_read(struct slice text, struct db_event *out);

/* Fenced: events that got their numbers before go, at most `rows` rows. One integer: how many rows. */
void db_event_forget(struct pg_txn *txn, int64_t before_ms, int rows);

#endif
