#include "lib/store/db_ack_log.h"

#include <stdlib.h>

#include "lib/base/log.h"
#include "proto/delivery.h"

#define LANE 0 /* rows of a stream commit in order */

static const struct pg_stmt open_stream = {
    "ack_stream_open",
    "INSERT INTO ack_stream (worker, created_ms) VALUES ($1::text, $2::bigint) RETURNING id",
};

static const struct pg_stmt insert_row = {
    "ack_log_insert",
    "INSERT INTO ack_log (stream, n, at_ms, entries) VALUES ($1::bigint, $2::bigint, $3::bigint, $4::bytea) "
    "ON CONFLICT DO NOTHING",
};

/* A device can name any batch in an acknowledgement: only results of commands that were meant for it are kept, and of
 * each the first, of the last delivery that has one. */
static const struct pg_stmt insert_results = {
    "command_result_insert",
    "INSERT INTO command_result AS c (batch_id, seq, result, attempt) "
    "SELECT DISTINCT ON (x.b, x.s) x.b, x.s, x.r, x.a "
    "FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bytea[], $5::smallint[]) WITH ORDINALITY AS x(b, t, s, r, a, "
    "n) "
    "JOIN batch ON batch.id = x.b AND batch.tenant_id = x.t "
    "JOIN batch_block k ON k.batch_id = x.b AND k.block = x.s / 1024 "
    "WHERE length(x.r) > 0 AND CASE WHEN x.s % 1024 BETWEEN k.first AND k.first + 8 * length(k.targets) - 1 "
    "THEN get_bit(k.targets, x.s % 1024 - k.first) = 1 ELSE false END "
    "ORDER BY x.b, x.s, x.a DESC, x.n ON CONFLICT (batch_id, seq) DO UPDATE "
    "SET result = excluded.result, attempt = excluded.attempt WHERE excluded.attempt > c.attempt",
};

/* What a device said last. */
static const struct pg_stmt update_devices = {
    "device_information_update",
    "UPDATE device d SET information = x.i FROM (SELECT DISTINCT ON (t, s) t, s, i FROM "
    "unnest($1::int[], $2::int[], $3::bytea[]) WITH ORDINALITY AS x(t, s, i, n) WHERE length(i) > 0 "
    "ORDER BY t, s, n DESC) AS x WHERE d.tenant_id = x.t AND d.seq = x.s AND d.deleted_ms IS NULL",
};

/* For the labels, which are another's to change: see take_device_news of schema/postgres. */
static const struct pg_stmt insert_news = {
    "device_news_insert",
    "INSERT INTO device_news (tenants, seqs, os_versions, models) SELECT $1::int[], $2::int[],"
    " ARRAY(SELECT nullif(convert_from(u, 'UTF8'), '') FROM unnest($3::bytea[]) AS u),"
    " ARRAY(SELECT nullif(convert_from(u, 'UTF8'), '') FROM unnest($4::bytea[]) AS u)",
};

struct open_request {
    void (*done)(void *arg, enum err err, int64_t stream);
    void *arg;
};

static void stream_opened(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                          size_t count)
{
    struct open_request *r = arg;
    (void)count;
    if (err)
        log_warn("ack_stream_open_failed", "error=%s message=%s", err_name(err),
                 log_quote(error ? error->message : ""));
    r->done(r->arg, err, err ? 0 : pg_int(results[0], 0, 0));
    free(r);
}

void db_ack_stream_open(struct pg *pg, const char *worker, int64_t now_ms,
                        void (*done)(void *arg, enum err err, int64_t stream), void *arg)
{
    struct open_request *r = malloc(sizeof *r);
    if (!r) {
        log_error("out_of_memory", "where=db_ack_stream_open");
        abort();
    }
    *r = (struct open_request){done, arg};
    struct pg_txn *txn = pg_txn_new(pg, LANE);
    if (txn) {
        pg_txn_add(txn, &open_stream);
        pg_put_text(txn, worker);
        pg_put_int8(txn, now_ms);
    }
    pg_txn_submit(txn, stream_opened, r);
}

struct flush_request {
    void (*done)(void *arg, enum err err);
    void *arg;
};

static void flushed(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct flush_request *r = arg;
    (void)results;
    (void)count;
    if (err)
        log_warn("ack_flush_failed", "error=%s sqlstate=%s message=%s", err_name(err), error ? error->sqlstate : "",
                 log_quote(error && error->message ? error->message : ""));
    r->done(r->arg, err);
    free(r);
}

/* What devices said of their system, one row; nothing when none said anything of it. */
static void add_news(struct pg_txn *txn, const struct db_result *results, size_t count, int32_t *tenants, int32_t *seqs)
{
    struct slice *os_versions = calloc(count, sizeof *os_versions), *models = calloc(count, sizeof *models);
    size_t n = 0;
    if (!os_versions || !models) {
        log_error("out_of_memory", "where=db_ack_flush");
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        information_read(results[i].information, &os_versions[n], &models[n]);
        if (!os_versions[n].len && !models[n].len)
            continue;
        tenants[n] = (int32_t)results[i].tenant;
        seqs[n++] = (int32_t)results[i].seq;
    }
    if (n) {
        pg_txn_add(txn, &insert_news);
        pg_put_int4_array(txn, tenants, n);
        pg_put_int4_array(txn, seqs, n);
        pg_put_bytea_array(txn, os_versions, n);
        pg_put_bytea_array(txn, models, n);
    }
    free(os_versions);
    free(models);
}

/* The parameters of both result statements, as columns. */
static void add_results(struct pg_txn *txn, const struct db_result *results, size_t count)
{
    int64_t *batches = calloc(count, sizeof *batches);
    int32_t *tenants = calloc(count, sizeof *tenants), *seqs = calloc(count, sizeof *seqs);
    struct slice *bytes = calloc(count, sizeof *bytes);
    int16_t *attempts = calloc(count, sizeof *attempts);
    bool any_information = false;
    if (!batches || !tenants || !seqs || !bytes || !attempts) {
        log_error("out_of_memory", "where=db_ack_flush");
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        batches[i] = (int64_t)results[i].batch;
        tenants[i] = (int32_t)results[i].tenant;
        seqs[i] = (int32_t)results[i].seq;
        bytes[i] = results[i].result;
        attempts[i] = results[i].attempt;
        any_information = any_information || results[i].information.len;
    }
    pg_txn_add(txn, &insert_results);
    pg_put_int8_array(txn, batches, count);
    pg_put_int4_array(txn, tenants, count);
    pg_put_int4_array(txn, seqs, count);
    pg_put_bytea_array(txn, bytes, count);
    pg_put_int2_array(txn, attempts, count);
    if (any_information) {
        for (size_t i = 0; i < count; i++)
            bytes[i] = results[i].information;
        pg_txn_add(txn, &update_devices);
        pg_put_int4_array(txn, tenants, count);
        pg_put_int4_array(txn, seqs, count);
        pg_put_bytea_array(txn, bytes, count);
        add_news(txn, results, count, tenants, seqs);
    }
    free(batches);
    free(tenants);
    free(seqs);
    free(bytes);
    free(attempts);
}

void db_ack_flush(struct pg *pg, int64_t stream, int64_t n, int64_t at_ms, struct slice entries,
                  const struct db_result *results, size_t count, void (*done)(void *arg, enum err err), void *arg)
{
    struct flush_request *r = malloc(sizeof *r);
    if (!r) {
        log_error("out_of_memory", "where=db_ack_flush");
        abort();
    }
    *r = (struct flush_request){done, arg};
    struct pg_txn *txn = pg_txn_new(pg, LANE);
    if (txn && entries.len) {
        pg_txn_add(txn, &insert_row);
        pg_put_int8(txn, stream);
        pg_put_int8(txn, n);
        pg_put_int8(txn, at_ms);
        pg_put_bytea(txn, entries.data, entries.len);
    }
    if (txn && count)
        add_results(txn, results, count);
    pg_txn_submit(txn, flushed, r);
}
