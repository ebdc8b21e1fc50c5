/* Tenants and API keys in PostgreSQL.
 * Owns: statements over tenant and api_key. May call: lib/store/pg. Loop rule: as pg.h.
 *
 * As in all db_* files: a function without result adds one statement to a transaction; db_*_read reads a row of that
 * statement's result, its texts and bytes borrowed from the result. */
#ifndef MUSTER_STORE_DB_TENANT_H
#define MUSTER_STORE_DB_TENANT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/pg.h"

struct db_tenant {
    int32_t id;
    const char *name;
    uint32_t devices;
    int64_t created_ms;
};

/* No row when there is one of that name. `key` is who does it, for the audit; 0: nobody's key. */
void db_tenant_create(struct pg_txn *txn, const char *name, int64_t now_ms, int64_t key);
void db_tenant_get(struct pg_txn *txn, const char *name);
/* Those behind the name `after`, by name, at most `limit`. */
void db_tenant_list(struct pg_txn *txn, const char *after, int32_t limit);
void db_tenant_read(const struct pg_result *r, int row, struct db_tenant *out);

struct db_key {
    int64_t id;
    int32_t tenant;
    int16_t role;
    struct slice hash;
    const char *description, *tenant_name;
    int64_t created_ms, revoked_ms; /* 0: holds */
};

/* No row when there is no such tenant. */
void db_key_create(struct pg_txn *txn, const char *tenant, int role, const uint8_t hash[32], const char *description,
                   int64_t now_ms, int64_t by_key);
void db_key_get(struct pg_txn *txn, int64_t id);
/* Those behind the number `after`, at most `limit`. */
void db_key_list(struct pg_txn *txn, const char *tenant, int64_t after, int32_t limit);
/* Also answers a key that was revoked before, as it is. */
void db_key_revoke(struct pg_txn *txn, int64_t id, int64_t now_ms, int64_t by_key);
void db_key_read(const struct pg_result *r, int row, struct db_key *out);
/* Of a row of db_key_get: bit n says that the tenant's policy guards field n of muster.v1.Command. */
uint32_t db_key_guarded(const struct pg_result *r, int row);

#endif
