/* What keeps commands of one device from their end, as far as PostgreSQL knows.
 * Owns: statements over device, device_seen, batch_control and batch_approval for that answer. May call: lib/store/pg.
 * Loop rule: as pg.h. Adding and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_PENDING_H
#define MUSTER_STORE_DB_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/store/db_window.h"
#include "lib/store/pg.h"

struct db_pending_device {
    uint8_t platform;
    int64_t seen_ms; /* beginning of the hour, or day, in which it was seen last; 0: never */
    bool led;        /* some dispatcher leads */
};
/* One row. */
void db_pending_device(struct pg_txn *txn, int32_t tenant, uint32_t seq, int64_t now_ms);
void db_pending_device_read(const struct pg_result *r, int row, struct db_pending_device *out);

struct db_pending_batch {
    int64_t id;
    uint32_t device_count;
    int64_t expires_ms, cancel_requested_ms;
    bool steered;
    bool paused, asked; /* asked: for something that is not carried out */
    const char *reason; /* of the pause, or of the threshold */
    int64_t handled_ms; /* when all was that was asked for; 0: never */
    int64_t not_before_ms, deliver_by_ms;
    struct slice steering;         /* encoded muster.v1.Steering; of batches with waves or a rate, else empty */
    uint32_t wave, waves;          /* wave: the last one released, from 0 on */
    int64_t rank;                  /* of the device among those in no part, from 0 on; where there are waves */
    bool canary, joined, had_turn; /* the parts it is in: see DB_PART_CANARY and so on */
    uint32_t canaries, joiners;    /* devices in these parts */
    uint32_t rate_steps;           /* how often the rate has grown */
    bool older;                    /* batches that it supersedes can still send */
    bool routed;                   /* handed to Redis */
    struct db_retry retry;
    uint32_t stopped; /* bit n for platform n */
    int approval;     /* muster.v1.ApprovalState; 0: none */
    int64_t approve_by_ms, release_ms;
    bool windowed; /* sent in windows only, by the clock of `zone` */
    const char *zone;
    int64_t opens_ms, closes_ms; /* of the window that is open, or the next; 0: there is none */
};
/* A row for each of these batches that is the tenant's and not closed, in the order of id. */
void db_pending_batches(struct pg_txn *txn, int32_t tenant, uint32_t seq, const int64_t *batches, size_t n,
                        int64_t now_ms);
void db_pending_batch_read(const struct pg_result *r, int row, struct db_pending_batch *out);

#endif
