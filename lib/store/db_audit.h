/* The audit: who did what (schema/postgres, audit).
 * Owns: the statements on ledger_inbox, audit_log and audit_head. May call: lib/store/pg. Loop rule: as pg.h. Adding
 * and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_AUDIT_H
#define MUSTER_STORE_DB_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/db_batch.h"
#include "lib/store/pg.h"

/* --- writing ------------------------------------------------------------------------------------------------------ */

/* First statement of a transaction that serves a caller: what it notes in the audit bears this address. */
void db_audit_caller(struct pg_txn *txn, const char *address);
/* What no function of the schema notes by itself. `devices` negative: it is about none. */
void db_audit_add(struct pg_txn *txn, int64_t now_ms, int32_t tenant, int64_t key, const char *action,
                  const char *detail, int64_t devices, const char *outcome, const char *note);
/* The entry of a batch to one device, before and behind the batch's number, each with its NUL: see ledger_submitted. */
void db_audit_head(struct buf *out, const struct db_accept *batch);
void db_audit_tail(struct buf *out, const struct db_accept *batch);
/* Last statement of a transaction that accepts other batches: notes those of the batches that it has made. False
 * (nothing is added) without memory. */
MUST_CHECK bool db_audit_accepted(struct pg_txn *txn, const struct db_accept *const *batches, size_t n);

/* --- the leader --------------------------------------------------------------------------------------------------- */

/* Fenced, one at a time: puts what up to `limit` rows of the inbox name where it belongs. Two integers: how many rows
 * there were, and how many events were given numbers. */
void db_ledger_settle(struct pg_txn *txn, int limit, int64_t now_ms);

/* --- reading ------------------------------------------------------------------------------------------------------ */

enum db_audit_whose { DB_AUDIT_TENANT, DB_AUDIT_INSTALLATION, DB_AUDIT_ALL };
struct db_audit_scope {
    enum db_audit_whose whose;
    int32_t tenant;   /* its number, or */
    const char *name; /* its name; NULL: the number counts */
};
struct db_audit_filter {
    int64_t before; /* id of the last entry that was told, of the same scope; INT64_MAX: from the newest on */
    int64_t batch, key;
    const char *action;
    int64_t since_ms, until_ms;
};

struct db_audit {
    /* id: its place in the listing that it is from */
    int64_t id, number, place, at_ms, key;
    const char *tenant, *address, *action, *detail, *note, *outcome;
    int16_t role;
    int32_t tenant_number; /* 0: of the whole installation */
    int64_t devices;       /* -1: it is about none */
    struct slice hash;
};
/* Newest first; 0, "" and INT64_MAX of `until_ms` do not narrow. */
void db_audit_list(struct pg_txn *txn, const struct db_audit_scope *scope, const struct db_audit_filter *filter,
                   int32_t limit);
void db_audit_read(const struct pg_result *r, int row, struct db_audit *out);

/* Looks at up to `limit` rows behind `after`. No row: there is no such tenant. */
struct db_audit_verdict {
    int64_t looked, good;
    struct slice hash; /* of the last good one */
    bool at_end;
    const char *wrong; /* with the one behind it; "": nothing */
    bool as_noted;     /* the row `noted` is there with this hash, or none was given, or it is further behind */
};
void db_audit_verify(struct pg_txn *txn, const struct db_audit_scope *scope, int64_t after, int32_t limit,
                     int64_t noted, struct slice noted_hash);
void db_audit_verify_read(const struct pg_result *r, int row, struct db_audit_verdict *out);

#endif
