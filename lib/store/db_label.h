/* Tags, attributes and the hours in which devices were seen, in PostgreSQL; and what filters find there.
 * Owns: statements over label_name, label, label_block, device_seen and device_news. May call: lib/store/pg, block.
 * Loop rule: as pg.h. Adding and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_LABEL_H
#define MUSTER_STORE_DB_LABEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/store/block.h"
#include "lib/store/pg.h"

/* Names as they are stored: a tag's, and what stands before an attribute's own. */
#define DB_LABEL_TAG        "tag"
#define DB_LABEL_OS_VERSION "os_version"
#define DB_LABEL_MODEL      "model"
#define DB_LABEL_ATTRIBUTE  "attr."

/* Different names of attributes of a tenant: each is looked at when a device is shown. */
#define DB_ATTRIBUTE_NAMES_MAX 256

/* Labels for the devices of one statement: see label_devices of schema/postgres. All borrowed. */
struct db_labels {
    const char *const *names, *const *values; /* of each label */
    size_t count;
    const int32_t *devices, *labels; /* pairs, both counted from 1: device n gets label m */
    size_t pairs;
    bool replace; /* the devices keep no others */
};
/* Ids must differ. One row: created, updated. SQLSTATE DB_LABEL_LIMIT: more than DB_ATTRIBUTE_NAMES_MAX. */
void db_label_import(struct pg_txn *txn, int32_t tenant, const char *const *ids, const int16_t *platforms, size_t n,
                     const struct db_labels *labels, int64_t now_ms);
#define DB_LABEL_LIMIT "MU002"
#define DB_LABEL_ZONE  "MU003" /* the attribute time_zone is no time zone: the message says which */

/* The labels that devices of these blocks have, in the order of name and value. */
struct db_label_block {
    const char *name, *value;
    uint32_t block;
    struct bitmap slots; /* of deleted devices too */
};
void db_label_of_blocks(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, size_t n);
/* False when the row makes no sense. */
MUST_CHECK bool db_label_block_read(const struct pg_result *r, int row, struct db_label_block *out);

/* --- when devices were seen --------------------------------------------------------------------------------------- */
#define DB_SEEN_KEEP_HOURS 48  /* afterwards days are kept as wholes */
#define DB_SEEN_KEEP_DAYS  370 /* a little more than a filter can ask for */

struct db_seen_block {
    int32_t hour; /* since 1970 */
    uint32_t block;
    struct bitmap slots;
};
/* The rows of these blocks, the newest hour first. */
void db_seen_of_blocks(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, size_t n);
MUST_CHECK bool db_seen_block_read(const struct pg_result *r, int row, struct db_seen_block *out);
/* Joins hours to days, and forgets old ones. */
void db_seen_forget(struct pg_txn *txn, int32_t hour);

/* Brings at most `rows` rows of what devices said of their system into the labels. One row: how many it were. */
void db_label_take_news(struct pg_txn *txn, int32_t rows);

/* --- filters ------------------------------------------------------------------------------------------------------ */
struct db_filter_test {
    const char *field; /* "device_id", "group", "last_seen" or the name of a label */
    int op;            /* enum filter_op; of last_seen the value is the first hour */
    const char *const *values;
    size_t count;
};
struct db_filter_block {
    size_t test;
    uint32_t block;
    struct bitmap slots; /* of deleted devices too */
};
/* Which devices each test means, all at one moment; in the order of test and block. False (nothing is added) without
 * memory. */
MUST_CHECK bool db_filter_blocks(struct pg_txn *txn, int32_t tenant, const struct db_filter_test *tests, size_t n);
MUST_CHECK bool db_filter_block_read(const struct pg_result *r, int row, struct db_filter_block *out);

#endif
