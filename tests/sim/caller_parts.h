/* What a caller wants, for its own files: caller.c asks for it, caller_choose.c draws it.
 * Owns: struct wish. May call: world. Loop rule: none. */
#ifndef MUSTER_TESTS_SIM_CALLER_PARTS_H
#define MUSTER_TESTS_SIM_CALLER_PARTS_H

#include "lib/store/block.h"
#include "lib/store/db_window.h"
#include "tests/sim/world.h"

#define BLOCKS_MAX 4

struct caller;
struct device;

enum wish_kind {
    WISH_BATCH,
    WISH_CANCEL,
    WISH_DELETE,
    WISH_PAUSE,
    WISH_RESUME,
    WISH_SOME, /* cancel for some devices */
    WISH_WAVE, /* release the next one */
    WISH_SEAL, /* nobody joins any more */
    WISH_JOIN, /* a device comes to be meant by dynamic batches */
    WISH_HOLD,
    WISH_OPEN,
};

/* Something wanted, until it is answered. */
struct wish {
    struct caller *caller;
    enum wish_kind kind;
    struct event event; /* when it is asked, or asked again */
    struct process *process;
    unsigned life;
    bool asked, done;
    /* What is wished for once this is answered: so long after it; 0: not at all. */
    int64_t cancel_after_us, pause_after_us, some_after_us, wave_after_us, resume_after_us, undo_after_us,
        seal_after_us;
    /* WISH_BATCH */
    char request[24], device_id[32];
    bool single, valued; /* valued: a value per device */
    bool dynamic;        /* to those of the tenant who are meant then, and later */
    bool canary;         /* its first wave is a group: see caller_is_canary */
    uint32_t tenant;
    int16_t priority;
    int64_t expires_after_ms, created_ms;
    struct bitmap targets[BLOCKS_MAX]; /* WISH_SOME: for whom; not of a dynamic one */
    char key[8];
    struct db_steer steer; /* its times count from acceptance */
    uint8_t steering[96];
    size_t steering_len;
    /* WISH_DELETE, WISH_JOIN: device, WISH_HOLD, WISH_OPEN: tenant, the others: batch */
    int64_t batch;
    struct device *device;
};

/* Whether the device is in the group of the canaries. */
static inline bool caller_is_canary(uint32_t seq)
{
    return seq % 3 == 0;
}

/* Of a WISH_BATCH: all but its name. `steered`: some of the seed's batches are. */
void caller_choose(struct world *w, struct wish *x, bool steered);

#endif
