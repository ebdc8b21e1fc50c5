#include "lib/store/db_credential.h"

void db_credential_keys(struct pg_txn *txn)
{
    static const struct pg_stmt stmt = {"credential_keys", "SELECT id, secret FROM signing_key"};
    pg_txn_add(txn, &stmt);
}

void db_signing_key_read(const struct pg_result *r, int row, struct db_signing_key *out)
{
    *out = (struct db_signing_key){.id = (uint32_t)pg_int(r, row, 0), .secret = pg_bytes(r, row, 1)};
}

void db_credential_revocations(struct pg_txn *txn, int64_t after, int32_t limit)
{
    static const struct pg_stmt stmt = {"credential_revocations",
                                        "SELECT id, tenant_id, seq, issued_before_ms FROM revocation"
                                        " WHERE id > $1::bigint ORDER BY id LIMIT $2::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, after);
    pg_put_int4(txn, limit);
}

void db_revocation_read(const struct pg_result *r, int row, struct db_revocation *out)
{
    *out = (struct db_revocation){.id = pg_int(r, row, 0),
                                  .tenant = (uint32_t)pg_int(r, row, 1),
                                  .seq = (uint32_t)pg_int(r, row, 2),
                                  .issued_before_ms = pg_int(r, row, 3)};
}
