/* From the target of a request to the devices it means (DESIGN step 1).
 * Owns: struct resolution. May call: lib/store, target_set, sorted_ids, request. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_RESOLVE_H
#define MUSTER_DISPATCHER_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/request.h"
#include "dispatcher/sorted_ids.h"
#include "dispatcher/target_set.h"
#include "muster/v1/command.pb-c.h"
#include "proto/status.h"

#define RESOLVE_UNKNOWN_KEPT SORTED_IDS_MISSING_KEPT
#define RESOLVE_PLATFORMS    16 /* values of muster.v1.Platform fit below */
/* A long list is looked up in so many parts at once, each over a connection of its own. */
#define RESOLVE_PARTS 4

struct resolution;
/* A part of a list of ids on its way. */
struct resolve_part {
    struct resolution *res;
    size_t from, count; /* of the list */
};

/* Zero-initialise, then set target and per_platform. */
struct resolution {
    const Muster__V1__Target *target; /* borrowed until freed */
    bool per_platform;                /* counts are wanted */
    /* The answer. */
    struct target_set set;
    uint32_t unknown_count;
    const char *unknown[RESOLVE_UNKNOWN_KEPT]; /* the first of them, borrowed from the target */
    size_t unknown_kept;
    uint32_t platforms[RESOLVE_PLATFORMS];
    /* Its own. */
    struct request *r;
    request_next_fn *next;
    struct status *refusal;
    struct sorted_ids list;
    int64_t *seqs; /* of each of the list */
    struct resolve_part parts[RESOLVE_PARTS];
    size_t waiting;
    bool failed;
};

/* Asks what the target means, and calls `next` with NULL for results when the answer is there: with `refusal` filled
 * when a group is unknown. When PostgreSQL or memory fails the resolution is freed and the request ends without it. All
 * is borrowed; the caller touches nothing afterwards. */
void resolution_run(struct resolution *res, struct request *r, struct status *refusal, request_next_fn *next);
void resolution_free(struct resolution *res);

#endif
