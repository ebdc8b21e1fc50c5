#include "lib/store/db_block.h"

void db_blocks(struct pg_txn *txn)
{
    static const struct pg_stmt stmt = {"blocks", "SELECT tenant_id, block, slots FROM device_block"
                                                  " WHERE slots <> decode(repeat('00', 128), 'hex')"
                                                  " ORDER BY tenant_id, block"};
    pg_txn_add(txn, &stmt);
}

bool db_block_read(const struct pg_result *r, int row, struct db_block *out)
{
    struct slice slots = pg_bytes(r, row, 2);
    out->tenant = (uint32_t)pg_int(r, row, 0);
    out->block = (uint32_t)pg_int(r, row, 1);
    return bitmap_untrim(&out->slots, 0, slots);
}
