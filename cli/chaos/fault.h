/* What is done to the installation, and undone: one pair of functions for each kind of fault.
 * Owns: struct injury, the table. May call: cli/chaos. Loop rule: waits run the default loop. */
#ifndef MUSTER_CLI_CHAOS_FAULT_H
#define MUSTER_CLI_CHAOS_FAULT_H

#include "cli/chaos/chaos.h"

/* A fault on its way. */
struct injury {
    const struct fault *fault;
    int index;       /* of the victim among its like */
    char victim[64]; /* "worker-2" */
    int64_t at_ms;   /* when it was injected */
    double hold_s;   /* from then until it is healed */
    uint64_t detail; /* the kind's own */
};

struct fault_work {
    /* NULL: it can be done here. Else why not. */
    const char *(*prevented)(const struct chaos *c);
    /* False: the run is to end. */
    bool (*inject)(struct chaos *c, struct injury *i);
    bool (*heal)(struct chaos *c, struct injury *i);
    /* The same once all daemons are ready; NULL: nothing. */
    bool (*after)(struct chaos *c, struct injury *i);
};

const struct fault_work *fault_work(enum fault_kind kind);
/* Everything is healed: waits until every daemon says it is ready. False: the run is to end. */
bool fault_settle(struct chaos *c);

/* fault_process.c */
bool fault_kill_dispatcher(struct chaos *c, struct injury *i);
bool fault_kill_worker(struct chaos *c, struct injury *i);
bool fault_start_daemon(struct chaos *c, struct injury *i);
bool fault_stop_dispatcher(struct chaos *c, struct injury *i);
bool fault_stop_worker(struct chaos *c, struct injury *i);
bool fault_continue(struct chaos *c, struct injury *i);
bool fault_restart_all(struct chaos *c, struct injury *i);
bool fault_reconnect_all(struct chaos *c, struct injury *i);

/* fault_redis.c */
bool fault_kill_redis(struct chaos *c, struct injury *i);
bool fault_start_redis(struct chaos *c, struct injury *i);
bool fault_lose_redis(struct chaos *c, struct injury *i);
bool fault_tear_redis(struct chaos *c, struct injury *i);
bool fault_flush_redis(struct chaos *c, struct injury *i);

/* fault_postgres.c */
bool fault_kill_postgres(struct chaos *c, struct injury *i);
bool fault_start_postgres(struct chaos *c, struct injury *i);
bool fault_promote_postgres(struct chaos *c, struct injury *i);
bool fault_finish_promotion(struct chaos *c, struct injury *i);
bool fault_light_postgres(struct chaos *c, struct injury *i);

/* fault_network.c */
bool fault_cut_network(struct chaos *c, struct injury *i);
bool fault_delay_network(struct chaos *c, struct injury *i);
bool fault_lose_packets(struct chaos *c, struct injury *i);
bool fault_heal_network(struct chaos *c, struct injury *i);

/* fault_disk.c */
const char *fault_disk_prevented(const struct chaos *c);
bool fault_fill_wal(struct chaos *c, struct injury *i);
bool fault_empty_wal(struct chaos *c, struct injury *i);
bool fault_fill_aof(struct chaos *c, struct injury *i);
bool fault_empty_aof(struct chaos *c, struct injury *i);

/* fault_clock.c */
const char *fault_clock_prevented(const struct chaos *c);
bool fault_step_clock(struct chaos *c, struct injury *i);
bool fault_set_clock_right(struct chaos *c, struct injury *i);

#endif
