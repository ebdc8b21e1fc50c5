/* From the target of a request to the devices it means (DESIGN step 1).
 * Owns: struct resolution. May call: lib/store, target_set. Loop rule: non-blocking: adds statements, reads results. */
#ifndef MUSTER_DISPATCHER_RESOLVE_H
#define MUSTER_DISPATCHER_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/target_set.h"
#include "lib/base/arena.h"
#include "lib/store/pg.h"
#include "muster/v1/command.pb-c.h"
#include "proto/status.h"

#define RESOLVE_UNKNOWN_KEPT 100
#define RESOLVE_PLATFORMS    16 /* values of muster.v1.Platform fit below */

/* Zero-initialise. Borrows the target until freed. */
struct resolution {
    const Muster__V1__Target *target;
    bool per_platform; /* counts are wanted */
    const char **ids;  /* each once; in the request's arena */
    size_t id_count;
    size_t results; /* statements added */
    struct target_set set;
    uint32_t unknown_count;
    const char *unknown[RESOLVE_UNKNOWN_KEPT];
    size_t unknown_kept;
    uint32_t platforms[RESOLVE_PLATFORMS];
};

void resolution_free(struct resolution *res);
/* Adds the statements, the first of the transaction. False without memory. */
MUST_CHECK bool resolution_ask(struct resolution *res, struct pg_txn *txn, int32_t tenant, struct arena *arena);
/* Reads the answers. Fills `st` when a group is unknown or nobody is left. False without memory. */
MUST_CHECK bool resolution_read(struct resolution *res, const struct pg_result *const *results, struct status *st);

#endif
