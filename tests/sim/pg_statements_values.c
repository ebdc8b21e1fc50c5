/* Statements about values per device: see lib/store/db_values.c. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/pg_model.h"

stmt_fn stmt_values_accepted, stmt_values_page;

static void keep(uint8_t **at, size_t *len, struct slice s)
{
    *at = malloc(s.len + 1);
    if (!*at)
        abort();
    if (s.len)
        memcpy(*at, s.data, s.len);
    *len = s.len;
}

/* Of the batch that an earlier statement of this transaction made. */
void stmt_values_accepted(struct stmt_call *c)
{
    struct row_batch *b = c->m->accepted;
    size_t n;
    bool made = b && b->tenant == param_int(c, 0) && slice_is(param_bytes(c, 1), b->request_id);
    out_columns(c, 1);
    out_bool(c, 0, made);
    out_row(c);
    if (!made)
        return;
    b->valued = true;
    keep(&b->described, &b->described_len, param_bytes(c, 2));
    keep(&b->defaults, &b->defaults_len, param_bytes(c, 3));
    struct slice *blocks = param_array(c, 5, &n), *vals = param_array(c, 6, &n);
    for (size_t i = 0; i < n; i++) {
        struct row_block *k = pg_model_block(b, (int32_t)int_of_slice(blocks[i]));
        if (k)
            keep(&k->vals, &k->vals_len, vals[i]);
    }
    free(blocks);
    free(vals);
}

void stmt_values_page(struct stmt_call *c)
{
    const struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    int64_t after = param_int(c, 1), left = param_int(c, 2);
    out_columns(c, 2);
    for (size_t i = 0; b && i < b->block_count && left > 0; i++) {
        const struct row_block *k = &b->blocks[i];
        if (!k->vals || k->block <= after)
            continue;
        out_int4(c, 0, k->block);
        out_bytes(c, 1, k->vals, k->vals_len);
        out_row(c);
        left -= (int64_t)k->vals_len;
    }
}
