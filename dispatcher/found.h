/* Commands found in the blocks of a batch, and the answers that list them.
 * Owns: struct found. May call: view, lib/store, proto. Loop rule: non-blocking: adds statements, reads results. */
#ifndef MUSTER_DISPATCHER_FOUND_H
#define MUSTER_DISPATCHER_FOUND_H

#include <stddef.h>
#include <stdint.h>

#include "dispatcher/view.h"
#include "lib/base/buf.h"
#include "lib/store/pg.h"
#include "muster/v1/command.pb-c.h"
#include "proto/status.h"

struct found {
    uint32_t seq, time; /* as in struct view_block */
    uint8_t state;
};

/* Whose commands are wanted: numbers above `after` up to `last`, in one of `states` (a bit each; 0: any). */
struct found_filter {
    uint32_t states;
    int64_t after, last;
};

/* The bits of a request's states; 0 for any, which is also what "unspecified" means. Violations go to `st`. */
uint32_t found_states(struct status *st, const Muster__V1__CommandState *states, size_t n);
/* Appends what is wanted of a block to `list`, which has `n` entries and room for `max`. Returns the new n. */
size_t found_add(struct found *list, size_t n, size_t max, const struct view_block *block,
                 const struct found_filter *filter);

/* Asks for the ids and results of these commands (at least one): two statements. Results that take more than
 * PAGE_BYTES are left out behind the first. False without memory. */
MUST_CHECK bool found_ask(struct pg_txn *txn, const struct view_batch *batch, const struct found *list, size_t n);
/* Appends the commands as entries of the answers' field 1, up to the last whose result is there. Returns how many: all
 * of them, or at least one; 0 without memory (then out->failed). `results` are those of found_ask; `more`: further
 * fields of each, encoded. */
size_t found_put(struct buf *out, const struct view_batch *batch, const struct found *list, size_t n,
                 const struct pg_result *const *results, struct slice more);
/* Appends the answers' field 2. */
void found_put_token(struct buf *out, const char *token);

#endif
