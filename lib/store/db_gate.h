/* Gates: what is held of a tenant, or of all, until somebody opens it again.
 * Owns: the statements on gate and gate_state. May call: lib/store/pg. Loop rule: as pg.h. Adding and reading: see
 * db_tenant.h. */
#ifndef MUSTER_STORE_DB_GATE_H
#define MUSTER_STORE_DB_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/db_lease.h"
#include "lib/store/pg.h"

/* One row: number of the newest change (0: none ever), tenants whose gate is closed, in order; 0 among them: all. */
void db_gate_closed(struct pg_txn *txn);

struct db_gate {
    int32_t tenant; /* 0: of all */
    const char *tenant_name;
    bool closed;
    int64_t number; /* of its last change */
    const char *reason;
    int64_t changed_ms;
    int64_t confirmed_ms; /* when no worker alive could still act on what was before; 0: not yet */
};
/* Every gate that is closed, or not yet settled after it was opened; `tenant` above 0: only those that hold this
 * tenant.
 */
void db_gate_list(struct pg_txn *txn, int32_t tenant);
void db_gate_read(const struct pg_result *r, int row, struct db_gate *out);
/* Closes or opens; the row as it is then, none when it was open all along, or there is no such tenant. `tenant` 0: all,
 * unless `name` is not NULL: the tenant of that name. What it is already it stays: number and reason are then old. */
void db_gate_set(struct pg_txn *txn, int32_t tenant, const char *name, bool closed, const char *reason, int64_t now_ms,
                 int64_t key);
/* All workers alive have confirmed everything up to `number`. */
void db_gate_confirm(struct pg_txn *txn, int64_t number, int64_t now_ms);
/* Fenced: opened gates whose batches have been routed anew are forgotten, unless they have changed since. */
void db_gate_settle(struct pg_txn *txn, const int32_t *tenants, const int64_t *numbers, size_t n);

#endif
