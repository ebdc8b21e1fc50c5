#include "lib/store/db_credential.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

/* Ids are given before commit: one that commits late is read by going back a little. */
#define OVERLAP 1000

static const struct pg_stmt read_revocations = {
    "revocation_read",
    "SELECT id, tenant_id, seq, issued_before_ms FROM revocation WHERE id > $1::bigint ORDER BY id",
};

static const struct pg_stmt read_keys = {
    "signing_key_read",
    "SELECT id, secret FROM signing_key ORDER BY id DESC",
};

struct request {
    void (*revoked)(void *arg, int64_t id, uint32_t tenant, uint32_t seq, int64_t issued_before_ms);
    void (*done)(void *arg, enum err err, const struct db_signing_key *keys, size_t count);
    void *arg;
};

static void on_rows(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct request *r = arg;
    (void)count;
    if (err) {
        log_warn("credentials_unread", "error=%s message=%s", err_name(err),
                 log_quote(error && error->message ? error->message : ""));
        r->done(r->arg, err, NULL, 0);
        free(r);
        return;
    }
    for (int row = 0; row < pg_rows(results[0]); row++)
        r->revoked(r->arg, pg_int(results[0], row, 0), (uint32_t)pg_int(results[0], row, 1),
                   (uint32_t)pg_int(results[0], row, 2), pg_int(results[0], row, 3));
    size_t n = (size_t)pg_rows(results[1]);
    struct db_signing_key *keys = calloc(n ? n : 1, sizeof *keys);
    for (size_t i = 0; keys && i < n; i++) {
        struct slice secret = pg_bytes(results[1], (int)i, 1);
        keys[i].id = (uint32_t)pg_int(results[1], (int)i, 0);
        memcpy(keys[i].secret, secret.data, secret.len < sizeof keys[i].secret ? secret.len : sizeof keys[i].secret);
    }
    r->done(r->arg, keys ? ERR_OK : ERR_NOMEM, keys, keys ? n : 0);
    if (keys)
        sodium_memzero(keys, n * sizeof *keys);
    free(keys);
    free(r);
}

void db_credential_read(struct pg *pg, int64_t after,
                        void (*revoked)(void *arg, int64_t id, uint32_t tenant, uint32_t seq, int64_t issued_before_ms),
                        void (*done)(void *arg, enum err err, const struct db_signing_key *keys, size_t count),
                        void *arg)
{
    struct request *r = malloc(sizeof *r);
    if (!r) {
        log_error("out_of_memory", "where=db_credential_read");
        abort();
    }
    *r = (struct request){revoked, done, arg};
    struct pg_txn *txn = pg_txn_new(pg, PG_ANY_LANE);
    if (txn) {
        pg_txn_add(txn, &read_revocations);
        pg_put_int8(txn, after > OVERLAP ? after - OVERLAP : 0);
        pg_txn_add(txn, &read_keys);
    }
    pg_txn_submit(txn, on_rows, r);
}
