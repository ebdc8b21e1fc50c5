#include "lib/store/db_retry.h"

void db_retry_accept(struct pg_txn *txn, const struct db_accept *batch)
{
    static const struct pg_stmt stmt = {"retry_accept",
                                        "SELECT accept_retry($1::integer, $2::text, $3::integer, $4::smallint,"
                                        " $5::smallint, $6::bigint, $7::bigint)"};
    const struct db_retry *r = &batch->steer.retry;
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, batch->tenant);
    pg_put_text(txn, batch->request_id);
    pg_put_int4(txn, r->after);
    pg_put_int2(txn, r->attempts);
    pg_put_int2(txn, r->factor);
    pg_put_int8(txn, r->initial_ms);
    pg_put_int8(txn, r->max_ms);
}
