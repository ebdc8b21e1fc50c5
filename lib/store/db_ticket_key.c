#include "lib/store/db_ticket_key.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

static const struct pg_stmt read_keys = {
    "ticket_key_read", "SELECT secret, age_ms FROM tls_ticket_keys($1::bytea, $2::bigint, $3::bigint)"};

struct request {
    db_ticket_keys_fn *done;
    void *arg;
};

static void on_rows(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct request r = *(struct request *)arg;
    struct db_ticket_key keys[TLS_TICKET_KEYS_MAX];
    size_t n = 0;
    free(arg);
    (void)count;
    if (err)
        log_warn("ticket_keys_unread", "error=%s message=%s", err_name(err),
                 log_quote(error && error->message ? error->message : ""));
    for (int row = 0; !err && row < pg_rows(results[0]) && n < TLS_TICKET_KEYS_MAX; row++) {
        struct slice secret = pg_bytes(results[0], row, 0);
        if (secret.len != sizeof keys[n].key)
            continue;
        memcpy(&keys[n].key, secret.data, sizeof keys[n].key);
        keys[n++].age_ms = pg_int(results[0], row, 1);
    }
    r.done(r.arg, err ? err : n ? ERR_OK : ERR_INVALID, keys, n);
    sodium_memzero(keys, sizeof keys);
}

void db_ticket_keys(struct pg *pg, int64_t rotate_ms, int64_t keep_ms, db_ticket_keys_fn *done, void *arg)
{
    uint8_t fresh[TLS_TICKET_KEY_BYTES];
    struct request *r = malloc(sizeof *r);
    if (!r) {
        log_error("out_of_memory", "where=db_ticket_keys");
        abort();
    }
    *r = (struct request){done, arg};
    struct pg_txn *txn = pg_txn_new(pg, PG_ANY_LANE);
    if (txn) {
        randombytes_buf(fresh, sizeof fresh);
        pg_txn_add(txn, &read_keys);
        pg_put_bytea(txn, fresh, sizeof fresh);
        pg_put_int8(txn, rotate_ms);
        pg_put_int8(txn, keep_ms);
        sodium_memzero(fresh, sizeof fresh);
    }
    pg_txn_submit(txn, on_rows, r);
}
