#include "lib/store/db_seen.h"

#include <stdlib.h>

void db_seen_add(struct pg_txn *txn, int32_t hour, const struct db_seen *blocks, size_t n)
{
    static const struct pg_stmt stmt = {"seen_add",
                                        "SELECT see_devices($1::integer, $2::integer[], $3::integer[], $4::bytea[])"};
    int32_t *tenants = malloc((n + 1) * sizeof *tenants), *numbers = malloc((n + 1) * sizeof *numbers);
    struct bitmap *reversed = malloc((n + 1) * sizeof *reversed);
    struct slice *slots = malloc((n + 1) * sizeof *slots);
    if (!tenants || !numbers || !reversed || !slots)
        abort();
    for (size_t i = 0; i < n; i++) {
        tenants[i] = blocks[i].tenant;
        numbers[i] = (int32_t)blocks[i].block;
        reversed[i] = *blocks[i].slots;
        bitmap_reverse_bytes(&reversed[i]);
        slots[i] = (struct slice){reversed[i].bytes, BITMAP_BYTES};
    }
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, hour);
    pg_put_int4_array(txn, tenants, n);
    pg_put_int4_array(txn, numbers, n);
    pg_put_bytea_array(txn, slots, n);
    free(tenants);
    free(numbers);
    free(reversed);
    free(slots);
}
