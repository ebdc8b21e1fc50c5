#include "dispatcher/accepted_digest.h"

#include "lib/store/db_batch.h"
#include "lib/store/db_control.h"

bool accepted_digest(const struct pg_result *addressed, const struct pg_result *parts, int32_t tenant,
                     char out[TARGET_DIGEST_TEXT])
{
    struct target_set set = {0}, joined = {0};
    struct db_batch_block b;
    struct db_control_part part;
    for (int row = 0; row < pg_rows(addressed); row++)
        if (db_batch_addressed_read(addressed, row, &b))
            target_set_add(&set, b.block, &b.targets);
    for (int row = 0; row < pg_rows(parts); row++)
        if (db_control_part_read(parts, row, &part) && part.kind == DB_PART_JOINED)
            target_set_add(&joined, part.block, &part.slots);
    bool whole = !set.failed && !joined.failed;
    target_set_subtract(&set, &joined);
    target_set_digest(&set, tenant, out);
    target_set_free(&set);
    target_set_free(&joined);
    return whole;
}
