/* The worker's writes of outcomes: its stream of the acknowledgement log, results, and what devices say of themselves.
 * Owns: the statements. May call: lib/store/pg. Loop rule: non-blocking. */
#ifndef MUSTER_STORE_DB_ACK_LOG_H
#define MUSTER_STORE_DB_ACK_LOG_H

#include "lib/store/pg.h"

/* Opens a stream for this life of a worker. `worker` is its name for people. */
void db_ack_stream_open(struct pg *pg, const char *worker, int64_t now_ms,
                        void (*done)(void *arg, enum err err, int64_t stream), void *arg);

/* What one device said beyond the outcome. */
struct db_result {
    uint64_t batch;
    uint32_t tenant, seq;
    uint8_t attempt;          /* of two results that of the later delivery counts; of one the first */
    struct slice result;      /* encoded muster.v1.CommandResult */
    struct slice information; /* encoded muster.v1.DeviceInformation, or empty */
};

/* One flush: the log's row (if `entries` is not empty) and the results, in one transaction. The same (stream, n) again
 * changes nothing, so a flush of unknown fate may be repeated. */
void db_ack_flush(struct pg *pg, int64_t stream, int64_t n, int64_t at_ms, struct slice entries,
                  const struct db_result *results, size_t count, void (*done)(void *arg, enum err err), void *arg);

#endif
