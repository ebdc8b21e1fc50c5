#include "lib/store/db_audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void db_audit_caller(struct pg_txn *txn, const char *address)
{
    static const struct pg_stmt stmt = {"audit_caller", "SELECT set_config('muster.address', $1::text, true)"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, address);
}

void db_audit_add(struct pg_txn *txn, int64_t now_ms, int32_t tenant, int64_t key, const char *action,
                  const char *detail, int64_t devices, const char *outcome, const char *note)
{
    static const struct pg_stmt stmt = {"audit_add",
                                        "SELECT audit_add($1::bigint, $2::integer, $3::bigint, $4::text, $5::text,"
                                        " nullif($6::bigint, -1)::integer, $7::text, $8::text)"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, now_ms);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, key);
    pg_put_text(txn, action);
    pg_put_text(txn, detail);
    pg_put_int8(txn, devices < 0 ? -1 : devices);
    pg_put_text(txn, outcome);
    pg_put_text(txn, note);
}

static size_t characters(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void db_audit_tail(struct buf *out, const struct db_accept *batch)
{
    const char *texts[] = {batch->note ? batch->note : "", batch->address ? batch->address : ""};
    char length[24];
    for (int i = 0; i < 2; i++) {
        buf_put(out, length, (size_t)snprintf(length, sizeof length, "%zu:", characters(texts[i])));
        buf_put(out, texts[i], strlen(texts[i]));
        buf_put_u8(out, ',');
    }
    buf_put_u8(out, 0);
}

void db_audit_head(struct buf *out, const struct db_accept *batch)
{
    char head[96];
    int n = snprintf(head, sizeof head, "%" PRId64 ",%" PRId64 ",%d,1,submit_batch,accepted,", batch->created_ms,
                     batch->key, batch->role);
    buf_put(out, head, (size_t)n + 1);
}

bool db_audit_accepted(struct pg_txn *txn, const struct db_accept *const *batches, size_t n)
{
    static const struct pg_stmt stmt = {
        "ledger_accepted", "SELECT ledger_accepted($1::integer[], $2::text[], $3::bigint[], $4::smallint[],"
                           " $5::text[])"};
    struct buf text = {0};
    int32_t *tenants = calloc(n, sizeof *tenants);
    int64_t *keys = calloc(n, sizeof *keys);
    int16_t *roles = calloc(n, sizeof *roles);
    const char **texts = calloc(2 * n, sizeof *texts);
    for (size_t i = 0; i < n; i++)
        db_audit_tail(&text, batches[i]);
    bool made = tenants && keys && roles && texts && !text.failed;
    const char *next = (const char *)buf_slice(&text).data;
    for (size_t i = 0; made && i < n; i++, next += strlen(next) + 1) {
        tenants[i] = batches[i]->tenant;
        keys[i] = batches[i]->key;
        roles[i] = batches[i]->role;
        texts[i] = batches[i]->request_id;
        texts[n + i] = next;
    }
    if (made) {
        pg_txn_add(txn, &stmt);
        pg_put_int4_array(txn, tenants, n);
        pg_put_text_array(txn, texts, n);
        pg_put_int8_array(txn, keys, n);
        pg_put_int2_array(txn, roles, n);
        pg_put_text_array(txn, texts + n, n);
    }
    free(tenants);
    free(keys);
    free(roles);
    free(texts);
    buf_free(&text);
    return made;
}

void db_ledger_settle(struct pg_txn *txn, int limit, int64_t now_ms)
{
    static const struct pg_stmt stmt = {"ledger_settle",
                                        "SELECT l.taken, l.told FROM ledger_settle($1::integer, $2::bigint) AS l"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, limit);
    pg_put_int8(txn, now_ms);
}

/* Entries of the rows that are in a chain, from the newest on; place numbers the entries of a row. A page ends at
 * `place_of`, which is also what rows are ordered by: n for one chain. n says when a row was linked, audit_id when it
 * was written, and transactions commit in another order than they wrote in. Over all chains it is audit_id, as there is
 * no common n; what is linked meanwhile is at its own place there, so that what was listed comes once. */
#define AUDIT_LIST(place_of)                                                                                           \
    "SELECT " place_of " * 1024 + e.place, l.n, coalesce(t.name, ''), p.at_ms, p.key_id, p.role, p.address, p.action," \
    " p.detail, p.note, coalesce(p.devices, -1), p.outcome, l.hash, e.place, l.tenant_id"                              \
    " FROM audit_link l JOIN audit_log a ON a.id = l.audit_id LEFT JOIN tenant t ON t.id = l.tenant_id"                \
    " CROSS JOIN LATERAL unnest(a.entries) WITH ORDINALITY AS e (entry, place)"                                        \
    " CROSS JOIN LATERAL audit_parse(e.entry) AS p"                                                                    \
    " WHERE " place_of " <= $1::bigint / 1024 AND " place_of " * 1024 + e.place < $1::bigint" AUDIT_FILTER
#define AUDIT_OF                                                                                                       \
    " AND l.tenant_id = coalesce((SELECT x.id FROM tenant x WHERE x.name = $9::text),"                                 \
    " CASE WHEN $9::text IS NULL THEN $8::integer ELSE -1 END)"
#define AUDIT_ORDER(place_of) " ORDER BY " place_of " DESC, e.place DESC LIMIT $7::integer"
/* What can be told from the text alone is, so that not every entry is taken apart. */
#define AUDIT_FILTER                                                                                                   \
    " AND ($2::bigint = 0 OR e.entry ~ ('^([^,]*,){4}([^,]*batch[^,]*|release_wave|approval_expired),[^,]*,'"          \
    " || length($2::bigint::text) || ':' || $2::bigint || ','))"                                                       \
    " AND ($3::bigint = 0 OR split_part(e.entry, ',', 2) = $3::bigint::text)"                                          \
    " AND ($4::text = '' OR split_part(e.entry, ',', 5) = $4::text)"                                                   \
    " AND split_part(e.entry, ',', 1)::bigint >= $5::bigint AND split_part(e.entry, ',', 1)::bigint < $6::bigint"

static void put_filter(struct pg_txn *txn, const struct db_audit_filter *f)
{
    pg_put_int8(txn, f->before);
    pg_put_int8(txn, f->batch);
    pg_put_int8(txn, f->key);
    pg_put_text(txn, f->action);
    pg_put_int8(txn, f->since_ms);
    pg_put_int8(txn, f->until_ms);
}

/* The chain's number: 0 for the installation's. */
static void put_scope(struct pg_txn *txn, const struct db_audit_scope *s)
{
    pg_put_int4(txn, s->whose == DB_AUDIT_TENANT ? s->tenant : 0);
    if (s->whose == DB_AUDIT_TENANT && s->name)
        pg_put_text(txn, s->name);
    else
        pg_put_null(txn);
}

void db_audit_list(struct pg_txn *txn, const struct db_audit_scope *scope, const struct db_audit_filter *filter,
                   int32_t limit)
{
    static const struct pg_stmt all = {"audit_list_all", AUDIT_LIST("l.audit_id") AUDIT_ORDER("l.audit_id")};
    static const struct pg_stmt one = {"audit_list", AUDIT_LIST("l.n") AUDIT_OF AUDIT_ORDER("l.n")};
    pg_txn_add(txn, scope->whose == DB_AUDIT_ALL ? &all : &one);
    put_filter(txn, filter);
    pg_put_int4(txn, limit);
    if (scope->whose != DB_AUDIT_ALL)
        put_scope(txn, scope);
}

void db_audit_read(const struct pg_result *r, int row, struct db_audit *out)
{
    *out = (struct db_audit){.id = pg_int(r, row, 0),
                             .number = pg_int(r, row, 1),
                             .tenant = pg_text(r, row, 2),
                             .at_ms = pg_int(r, row, 3),
                             .key = pg_int(r, row, 4),
                             .role = (int16_t)pg_int(r, row, 5),
                             .address = pg_text(r, row, 6),
                             .action = pg_text(r, row, 7),
                             .detail = pg_text(r, row, 8),
                             .note = pg_text(r, row, 9),
                             .devices = pg_int(r, row, 10),
                             .outcome = pg_text(r, row, 11),
                             .hash = pg_bytes(r, row, 12),
                             .place = pg_int(r, row, 13),
                             .tenant_number = (int32_t)pg_int(r, row, 14)};
}

void db_audit_verify(struct pg_txn *txn, const struct db_audit_scope *scope, int64_t after, int32_t limit,
                     int64_t noted, struct slice noted_hash)
{
    static const struct pg_stmt stmt = {
        "audit_verify",
        "SELECT v.looked, v.good, v.good_hash, v.at_end, v.wrong, $5::bigint = 0 OR $5::bigint > v.good AND NOT "
        "v.at_end"
        " OR EXISTS (SELECT FROM audit_link l WHERE l.tenant_id = s.id AND l.n = $5::bigint AND l.hash = $6::bytea)"
        " FROM (SELECT CASE WHEN $2::text IS NULL THEN $1::integer ELSE (SELECT t.id FROM tenant t"
        " WHERE t.name = $2::text) END AS id) s CROSS JOIN LATERAL audit_verify(s.id, $3::bigint, $4::integer) AS v"
        " WHERE s.id IS NOT NULL"};
    pg_txn_add(txn, &stmt);
    put_scope(txn, scope);
    pg_put_int8(txn, after);
    pg_put_int4(txn, limit);
    pg_put_int8(txn, noted);
    pg_put_bytea(txn, noted_hash.data, noted_hash.len);
}

void db_audit_verify_read(const struct pg_result *r, int row, struct db_audit_verdict *out)
{
    *out = (struct db_audit_verdict){.looked = pg_int(r, row, 0),
                                     .good = pg_int(r, row, 1),
                                     .hash = pg_bytes(r, row, 2),
                                     .at_end = pg_bool(r, row, 3),
                                     .wrong = pg_text(r, row, 4),
                                     .as_noted = pg_bool(r, row, 5)};
}
