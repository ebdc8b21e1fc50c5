/* From a target to the devices it means, at any time: for a request, or for a batch that looks again (DESIGN step 1).
 * Owns: struct resolution. May call: lib/store, filter_find, target_set, sorted_ids. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_RESOLVE_H
#define MUSTER_DISPATCHER_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/sorted_ids.h"
#include "dispatcher/target_set.h"
#include "lib/store/pg.h"
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

/* Zero-initialise, then set what is asked. */
struct resolution {
    struct pg *pg;
    int32_t tenant;
    const Muster__V1__Target *target; /* checked by validate_target; borrowed until freed */
    bool per_platform;                /* counts are wanted */
    const char *ids_field;            /* where its listed ids stand; NULL: target.devices.ids */
    /* Called once, perhaps before resolution_run returns; resolution_free is the caller's. */
    void (*done)(struct resolution *res);
    void *arg;
    /* NULL, or is called when `set` is complete, and may take some out, before they are counted. */
    void (*leave_out)(struct resolution *res);
    /* The answer. */
    struct status st;  /* not STATUS_OK: a group is unknown, and the like */
    bool store_failed; /* it is the store's failure that `st` tells */
    struct target_set set;
    uint32_t unknown_count;
    const char *unknown[RESOLVE_UNKNOWN_KEPT]; /* the first of them, borrowed from the target */
    size_t unknown_kept;
    /* The same of what is excluded. */
    uint32_t excluded_unknown_count;
    const char *excluded_unknown[RESOLVE_UNKNOWN_KEPT];
    size_t excluded_unknown_kept;
    uint32_t platforms[RESOLVE_PLATFORMS];
    /* Its own. */
    const Muster__V1__Target *side; /* the target, then what it excludes */
    struct target_set found;        /* of the side */
    struct sorted_ids list;
    int64_t *seqs; /* of each of the list */
    struct resolve_part parts[RESOLVE_PARTS];
    size_t waiting;
};

void resolution_run(struct resolution *res);
/* Where every id listed must be known: refuses in `st` (UNKNOWN_DEVICES) when some, of the target or of what it
 * excludes, are not registered, and names the first. Whether it does. */
bool resolution_refuse_unknown(const struct resolution *res, struct status *st);
void resolution_free(struct resolution *res);

#endif
