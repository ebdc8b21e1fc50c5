/* The values of a batch being accepted: for which devices they are, packed block by block.
 * Owns: struct batch_values. May call: lib/store, dispatcher/resolve, target_set. Loop rule: non-blocking.
 *
 * What validate_values has checked is matched with the devices addressed: each must have values or a default, and who
 * has values must be addressed. */
#ifndef MUSTER_DISPATCHER_BATCH_VALUES_H
#define MUSTER_DISPATCHER_BATCH_VALUES_H

#include <stdbool.h>

#include "dispatcher/resolve.h"
#include "lib/store/db_guard.h"
#include "lib/store/db_values.h"
#include "muster/v1/command_service.pb-c.h"

#define BATCH_VALUES_NAMED 16 /* devices that an error names */

/* Zero-initialise, then set what is asked. */
struct batch_values {
    struct pg *pg;
    int32_t tenant;
    const Muster__V1__Values *in;     /* borrowed until freed */
    const struct target_set *set;     /* whom the batch addresses; not empty */
    const struct target_set *skipped; /* left out of those; NULL: none. Who of them has values is not outside */
    const struct resolution *listed;  /* when the target was the devices listed: its resolution; else NULL */
    /* Called once, perhaps before batch_values_run returns; batch_values_free is the caller's. */
    void (*done)(void *arg);
    void *arg;
    /* The answer. */
    struct status st;
    bool store_failed; /* it is the store's failure that `st` tells */
    struct db_values values;
    /* Its own. */
    Muster__V1__Target target;
    Muster__V1__DeviceIds ids;
    struct resolution found;
    uint32_t *places; /* of each slot of the set's blocks: the entry, from 1 on; 0: none */
    uint32_t own;     /* devices with values of their own */
    struct buf packed, described, defaults;
    struct slice *blocks;
    int32_t lacking[BATCH_VALUES_NAMED];
    size_t lacking_count;
};

/* A digest of the request's part, for its hash; false without memory. */
#define BATCH_VALUES_DIGEST 32 /* bytes */
MUST_CHECK bool batch_values_digest(const Muster__V1__Values *values, uint8_t digest[BATCH_VALUES_DIGEST]);
/* The target that the devices listed are, for a request without one. */
void batch_values_target(struct batch_values *v);
void batch_values_run(struct batch_values *v);
void batch_values_free(struct batch_values *v);
/* SHA-256 over salt, command and all values, as hexadecimal text; once `values` is there. */
void batch_values_hash(const struct batch_values *v, struct slice command, char out[DB_GUARD_HASH_TEXT]);

#endif
