/* Looking at all that is in Redis, to compare it with what should be there; and the reports by which workers say what
 * they have. Owns: nothing of its own; key names as live.h. May call: lib/store/live. Loop rule: as live.h. Nothing
 * here changes what others rely on, but for live_worker_list. */
#ifndef MUSTER_STORE_LIVE_LOOK_H
#define MUSTER_STORE_LIVE_LOOK_H

#include "lib/store/live.h"

/* What stands for a batch in a block. Borrowed; `presence` is that of the span of `states`, or empty. */
struct live_seen {
    struct slice states, presence;
    bool listed; /* in `open` */
};
typedef void live_look_fn(void *arg, enum err err, const struct live_seen *seen);
void live_look(struct live *live, struct live_place place, live_look_fn *done, void *arg);

/* What is open for one device, in order of delivery, HELD too, of the block's first WAITING_BATCHES open batches; and
 * the worker it is connected to, 0 for none. */
#define WAITING_BATCHES 4096
typedef void live_waiting_fn(void *arg, enum err err, uint16_t worker, const struct live_pending *commands,
                             size_t count);
void live_waiting(struct live *live, uint32_t tenant, uint32_t block, uint16_t slot, live_waiting_fn *done, void *arg);

/* Every key, a page at a time: begin with cursor 0, and go on with `next` until that is 0. A key may come twice. */
enum live_key_kind {
    LIVE_KEY_OTHER,
    LIVE_KEY_OPEN,
    LIVE_KEY_STATE,
    LIVE_KEY_VALUES,
    LIVE_KEY_SPEC,
    LIVE_KEY_CANCEL,
    LIVE_KEY_INBOX,
    LIVE_KEY_LEASE
};
struct live_key {
    enum live_key_kind kind;
    struct live_place place; /* of OPEN, STATE and VALUES; `batch` also of SPEC and CANCEL */
    uint16_t worker;         /* of INBOX and LEASE */
};
typedef void live_keys_fn(void *arg, enum err err, uint64_t next, const struct live_key *keys, size_t count);
void live_keys(struct live *live, uint64_t cursor, live_keys_fn *done, void *arg);

/* The batches that stand in a block's `open`, 50,000 at most. */
typedef void live_batches_fn(void *arg, enum err err, const uint64_t *batches, size_t count);
void live_batches(struct live *live, uint32_t tenant, uint32_t block, live_batches_fn *done, void *arg);
/* 1 when batch:<id> is there, else 0. */
void live_spec_there(struct live *live, uint64_t batch, live_int_fn *done, void *arg);
/* 1 when the values of the batch's devices in the block are there, else 0. */
void live_values_there(struct live *live, struct live_place place, live_int_fn *done, void *arg);
/* Entries that wait in a worker's inboxes. */
void live_inbox_waiting(struct live *live, uint16_t worker, live_int_fn *done, void *arg);
/* 1 when the number has a lease that somebody holds, else 0; without calling anybody dead. */
void live_worker_there(struct live *live, uint16_t worker, live_int_fn *done, void *arg);
/* Puts a number into `workers`: a dead one is reaped, and forgotten with its inboxes, by the leader's next sweep. */
void live_worker_list(struct live *live, uint16_t worker);

/* A worker's report, by the number it was asked with: for each block the slots it has sessions for (REPORT_IDLE: a
 * session that holds nothing and expects nothing), then the end, with the commands that wait in its hands, or -1 when
 * it can't tell. It lives for a minute. */
#define REPORT_IDLE 0x8000
void live_report_put(struct live *live, uint16_t worker, uint64_t number, uint32_t tenant, uint32_t block,
                     const uint16_t *slots, size_t count);
void live_report_end(struct live *live, uint16_t worker, uint64_t number, int64_t waiting);
struct live_report {
    uint32_t tenant, block;
    struct slice slots; /* u16 each, little endian */
};
/* ERR_NOT_FOUND while it has not ended. */
typedef void live_report_fn(void *arg, enum err err, int64_t waiting, const struct live_report *reports, size_t count);
void live_report_get(struct live *live, uint16_t worker, uint64_t number, live_report_fn *done, void *arg);

#endif
