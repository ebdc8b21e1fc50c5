/* What the oracle keeps of what it has seen, for its own files: oracle.c watches the stores, oracle_devices.c what
 * devices get, oracle_retry.c what they get again, oracle_judge.c judges in the end.
 * Owns: struct oracle and what is in it. May call: world. Loop rule: none. */
#ifndef MUSTER_TESTS_SIM_ORACLE_PARTS_H
#define MUSTER_TESTS_SIM_ORACLE_PARTS_H

#include "lib/base/buf.h"
#include "lib/store/state.h"
#include "tests/sim/device.h"
#include "tests/sim/pg_model.h"
#include "tests/sim/world.h"

#define BATCHES_MAX 256
#define SKEW_MS     12000 /* clocks of processes differ by so much, at most */
#define TURN_MS     5     /* from a look at the clock to the byte on the wire */

/* How often a command came to its device, and was executed. */
struct tries {
    uint8_t outcomes; /* it was executed with: bits */
    uint8_t executions;
    uint8_t attempt, done; /* of the delivery that came last, and that was executed last */
    int64_t done_us;       /* when it was executed last */
    int64_t said_us;       /* the device had PUBACK of that, and it is to be tried again; 0: not yet */
    bool sent_since;       /* then Redis had it as sent: by a worker that died it may have been */
    uint8_t put_off;       /* attempt that was put off last, with PUBACK; 0: none, or not known any more, */
    int64_t put_off_us;    /* and when */
    bool was_put_off;      /* once: with the next delivery, which counts no more, an outcome of that one may cross */
    bool resent;           /* since it was put off Redis had it as sent, whatever came */
    unsigned came_on, done_on, put_off_on; /* connections of the device */
};

/* What was seen of one command. */
struct command {
    int64_t addressed_us; /* since when PostgreSQL has the device among those of the batch; 0: it has not */
    int64_t first_us;     /* delivered first; 0: never */
    int64_t sent_us;      /* and sent */
    int64_t noted_us;     /* Redis first had it as sent: it was, or by a worker that died it may have been; 0: never */
    int64_t ended_us;     /* a store first said that it has ended without the device */
    uint8_t ended_as;     /* in that state */
    int64_t over_us;      /* a store first said that it has ended at all, in that state */
    uint8_t over_as;
    bool got;       /* delivered, and not put off since, */
    int64_t got_us; /* sent then, */
    const struct process *by;
    int32_t some_request; /* it was asked that it end, with this request of its batch; 0: not */
    bool superseded;      /* by that, or by one behind it */
    bool barred;          /* by a newer batch with the key, to which the device was to belong: it does not join */
    int64_t canceled_us;  /* that is carried out */
    uint8_t executed;     /* outcome, 0: never */
    uint8_t acknowledged; /* outcome with PUBACK */
    int64_t acknowledged_us;
    struct tries tries;
};

struct seen_block {
    uint32_t version;
    uint8_t *states;
    size_t len;
};

struct seen_batch {
    struct command *commands; /* one per device */
    bool answered;
    int64_t answered_us, committed_us, canceled_us, closed_us;
    int64_t paused_us; /* it is, and that is carried out; 0: not */
    int64_t sealed_us; /* nobody may join it since: sealed, being canceled or closed; 0: not */
    int32_t request, wave;
    int64_t freed_us; /* when it was last let go on: resumed, or its next wave released */
    struct seen_block *blocks;
};

struct oracle {
    struct seen_batch batches[BATCHES_MAX];
    size_t batch_count; /* of PostgreSQL's, seen */
    bool reachable[STATE_COUNT][STATE_COUNT];
    const struct process *who; /* of what is being done to Redis; NULL: nobody any more */
    struct slice what;
    int64_t redis_lost_us;               /* when it did not hold what it should; 0: never after the begin */
    unsigned redis_cuts;                 /* connections to it that broke */
    int64_t held_us[DEVICE_TENANTS + 1]; /* of all (0) and of each tenant: held, and that is confirmed; 0: not */
    int64_t opened_us;                   /* when something was released last */
    bool gates;                          /* something was ever held */
    int64_t epoch;                       /* of the lease, and how many there were */
    uint32_t leaders;
};

/* Devices a second: at first, and at most. */
struct rate {
    uint32_t first, most; /* 0: it has none */
};

struct seen_batch *oracle_seen(struct world *w, uint64_t batch);
bool oracle_addresses(const struct row_batch *row, const struct device *d);
/* Of its tenant's devices: whether it is in this part of the batch (PART_CANARY …). */
bool oracle_is_in_part(const struct world *w, const struct row_batch *row, int16_t kind, const struct device *d);
struct rate oracle_rate(const struct row_batch *row);

#endif
