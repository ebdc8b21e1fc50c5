/* Steered batches: what was asked for (by callers), and how far it is carried out (by the leader).
 * Owns: the statements on batch_control and batch_cancel. May call: lib/store/pg, block. Loop rule: as pg.h. Adding and
 * reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_CONTROL_H
#define MUSTER_STORE_DB_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/block.h"
#include "lib/store/pg.h"

/* --- callers ----------------------------------------------------------------------------------------------------- */
/* One row, a bool: whether anything changed; none when the batch is not there, is being canceled or is closed. */
void db_control_pause(struct pg_txn *txn, int32_t tenant, int64_t batch, bool paused, const char *reason,
                      int64_t now_ms, int64_t key);
/* The same: to be canceled for these devices. */
void db_control_cancel_some(struct pg_txn *txn, int32_t tenant, int64_t batch, const int32_t *blocks,
                            const struct slice *slots, size_t n, int64_t now_ms, int64_t key);

/* Of the wave of this number, if it is the next one; 0: of the next one. One row: a bool, whether it is released by
 * this; how many were released before, and how many there are; none as above. */
void db_control_release_wave(struct pg_txn *txn, int32_t tenant, int64_t batch, uint32_t wave, int64_t now_ms,
                             int64_t key);

/* --- the leader -------------------------------------------------------------------------------------------------- */
struct db_control {
    uint64_t batch;
    bool paused;
    int32_t request;
    bool closed; /* the batch */
    bool sealed; /* it is dynamic, and nobody joins any more */
};
/* What is asked for and not carried out, but of batches held for approval, which the leader does not know. */
void db_control_asked(struct pg_txn *txn, int limit);
void db_control_asked_read(const struct pg_result *r, int row, struct db_control *out);
/* block, slots of the devices for which the batch is to be canceled or (third column) is superseded, whether or not
 * that is carried out. */
void db_control_cancels(struct pg_txn *txn, uint64_t batch);
/* Fenced: all up to these requests is carried out; a batch may be there more than once. */
void db_control_handled(struct pg_txn *txn, const int64_t *batches, const int32_t *requests, size_t n, int64_t now_ms);
/* Fenced: the batches are closed: for whom they were canceled or superseded is of no use any more. */
void db_control_closed(struct pg_txn *txn, const int64_t *batches, size_t n);

/* Platforms that thresholds may act on: values of muster.v1.Platform fit below. */
#define DB_PLATFORMS 16
/* How far a batch with waves or thresholds is. */
struct db_rollout {
    struct slice steering; /* encoded muster.v1.Steering; borrowed from the result */
    uint32_t wave, by_hand, stopped, canceled, acted;
    uint8_t platform_acted[DB_PLATFORMS]; /* thresholds that have acted on each platform */
    int64_t wave_ms,
        now_ms;      /* when the wave was released (0: the first one is not out), and now, by the server's clock */
    int32_t request; /* that this is the state of */
    struct db_pace {
        uint32_t steps, ended, succeeded;
        int64_t last_ms; /* when somebody had a turn last, by the server's clock; 0: nobody yet */
    } pace;
};
void db_control_rollout(struct pg_txn *txn, uint64_t batch);
void db_control_rollout_read(const struct pg_result *r, int row, struct db_rollout *out);
/* Fenced: the wave is about to be released; of the first (0), that it may be sent. Once each. */
void db_control_wave(struct pg_txn *txn, uint64_t batch, uint32_t wave);
/* Parts of the batch's devices, block by block, by kind and block. */
enum db_part {
    DB_PART_CANARY = 1,
    DB_PART_JOINED,
    DB_PART_LET_GO,
    DB_PART_BARRED,
    DB_PART_TAKEN /* db_dynamic_taken */
};
struct db_control_part {
    int kind; /* enum db_part */
    uint32_t block;
    struct bitmap slots;
};
void db_control_parts(struct pg_txn *txn, uint64_t batch);
/* False when the row makes no sense. */
MUST_CHECK bool db_control_part_read(const struct pg_result *r, int row, struct db_control_part *out);
/* Fenced: who had a turn in these blocks (all who ever had one), and how the pace is, now. A write that comes late,
 * behind newer ones, takes nothing back. */
void db_control_let_go(struct pg_txn *txn, uint64_t batch, const struct db_pace *pace, const int32_t *blocks,
                       const struct slice *slots, size_t n);
/* Fenced: the batches are closed: who had a turn is of no use any more. */
void db_control_forget(struct pg_txn *txn, const int64_t *batches, size_t n);
/* What thresholds (bits of `acted`) do: stop platforms (bits), cancel the batch for some, pause it, or cancel it. */
struct db_stop {
    uint32_t platforms, canceled, acted;
    uint8_t platform_acted[DB_PLATFORMS]; /* with those of before */
    bool pause, abort;
    const char *reason;
    const char *outcome, *note; /* for the audit, */
    int64_t devices;            /* and of how many devices; negative: of all of the batch */
};
/* Fenced. Notes it in the audit, unless the batch is ending anyway. */
void db_control_stop(struct pg_txn *txn, uint64_t batch, const struct db_stop *stop, int64_t now_ms);

#endif
