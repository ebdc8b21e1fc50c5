/* Devices, their numbers, tokens and groups in PostgreSQL.
 * Owns: statements over device, device_block, device_group, device_group_block, revocation and signing_key as the
 * dispatcher needs them. May call: lib/store/pg, block. Loop rule: as pg.h. Adding and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_DEVICE_H
#define MUSTER_STORE_DB_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/block.h"
#include "lib/store/pg.h"

/* --- devices ---------------------------------------------------------------------------------------------------- */
struct db_device {
    uint32_t seq;
    const char *id;
    int16_t platform;
    struct slice information; /* encoded muster.v1.DeviceInformation; empty: none */
    int64_t created_ms;
    int64_t total; /* db_device_list: rows there would have been without the limit of bytes */
};
void db_device_get(struct pg_txn *txn, int32_t tenant, const char *id);
/* Registered devices with a number above `after`, in order: at most `limit`, and fewer when their information takes
 * more than `bytes`. `platform` 0: all. `group` NULL: all. */
void db_device_list(struct pg_txn *txn, int32_t tenant, int64_t after, int platform, const char *group, int32_t limit,
                    int64_t bytes);
/* The same of these numbers, which are in order. */
void db_device_list_of(struct pg_txn *txn, int32_t tenant, const int32_t *seqs, size_t n, int64_t bytes);
void db_device_read(const struct pg_result *r, int row, struct db_device *out);

/* One row, one int4[] column: the number of each id in the order given, -1 where there is no such device. Many ids cost
 * least in the order of their bytes. */
void db_device_seqs(struct pg_txn *txn, int32_t tenant, const char *const *ids, size_t n);
/* Ids of the devices of `n` runs of numbers, deleted devices too. One row: int4[] of numbers, and as text their ids in
 * the same order with commas between (no id has one). */
void db_device_ids(struct pg_txn *txn, int32_t tenant, const int32_t *firsts, const int32_t *lasts, size_t n);

/* One row with the seq; none when there is no such device. */
void db_device_delete(struct pg_txn *txn, int32_t tenant, const char *id, int64_t now_ms, int64_t key);

/* --- tokens ----------------------------------------------------------------------------------------------------- */
/* Tokens issued before this time, year 9999, are refused: for deleted devices. */
#define DB_REVOKED_FOR_GOOD_MS 253402300799000

/* Makes the first signing key if there is none yet. */
void db_signing_key_ensure(struct pg_txn *txn, const uint8_t secret[32], int64_t now_ms);
/* The newest: one row of id, secret. */
void db_signing_key_get(struct pg_txn *txn);
/* One row per id, in order: seq (NULL: no such device), issued_before_ms (NULL: nothing revoked). */
void db_device_tokens(struct pg_txn *txn, int32_t tenant, const char *const *ids, size_t n);
/* Refuses all tokens issued so far: rows of seq, issued_before_ms; a token issued from then on is good. */
void db_device_revoke(struct pg_txn *txn, int32_t tenant, const int32_t *seqs, size_t n, int64_t now_ms, int64_t key);

/* --- blocks ----------------------------------------------------------------------------------------------------- */
struct db_device_block {
    uint32_t block;
    int16_t platform;
    struct bitmap slots;
};
/* All blocks of the tenant, in order; `platform` 0 means all. Empty ones are left out. */
void db_device_blocks(struct pg_txn *txn, int32_t tenant, int platform);
/* The same of the blocks that a batch has. */
void db_device_blocks_of(struct pg_txn *txn, int32_t tenant, int64_t batch);
/* False when the row is no bitmap. */
MUST_CHECK bool db_device_block_read(const struct pg_result *r, int row, struct db_device_block *out);

/* --- groups ----------------------------------------------------------------------------------------------------- */
struct db_group {
    const char *name;
    uint32_t devices;
    int64_t created_ms;
    const char *filter; /* "": it has a list of members */
};
void db_group_get(struct pg_txn *txn, int32_t tenant, const char *name);
/* Which of these names are groups: rows like db_group_get. */
void db_group_find(struct pg_txn *txn, int32_t tenant, const char *const *names, size_t n);
void db_group_list(struct pg_txn *txn, int32_t tenant, const char *after, int32_t limit);
void db_group_read(const struct pg_result *r, int row, struct db_group *out);

/* One row: made (bool), devices, created_ms, unknown text[]. Not made: the name is taken, or ids are unknown. */
void db_group_create(struct pg_txn *txn, int32_t tenant, const char *name, const char *const *ids, size_t n,
                     int64_t now_ms, int64_t key);
/* The same with a filter in place of members: one row as db_group_get's, none when the name is taken. */
void db_group_create_filter(struct pg_txn *txn, int32_t tenant, const char *name, const char *filter, int64_t now_ms,
                            int64_t key);
/* One row as db_group_get's; none when there is no such group with a filter. */
void db_group_change_filter(struct pg_txn *txn, int32_t tenant, const char *name, const char *filter, int64_t now_ms,
                            int64_t key);
/* One row: devices, created_ms, unknown text[]; none when there is no such group, or it has a filter. Unknown ids:
 * nothing was changed. */
void db_group_change(struct pg_txn *txn, int32_t tenant, const char *name, const char *const *add, size_t n_add,
                     const char *const *remove, size_t n_remove, int64_t now_ms, int64_t key);
/* One row when there was one. */
void db_group_delete(struct pg_txn *txn, int32_t tenant, const char *name, int64_t now_ms, int64_t key);

#endif
