/* muster chaos: the real stack under load, broken in every way the schedule says, and judged.
 * Owns: struct chaos, the parts of a run. May call: everything of cli/, lib/store. Loop rule: waits run the default
 * loop. */
#ifndef MUSTER_CLI_CHAOS_CHAOS_H
#define MUSTER_CLI_CHAOS_CHAOS_H

#include "cli/chaos/schedule.h"
#include "cli/chaos/verdict.h"
#include "cli/dev.h"
#include "lib/store/pg.h"
#include "lib/store/redis.h"

#define CHAOS_TENANTS     2
#define CHAOS_NODES       2 /* of PostgreSQL: one is the primary */
#define CHAOS_ROUTES_MAX  64
#define CHAOS_DISPATCHERS 8
#define CHAOS_WORKERS     16

struct chaos_options {
    int64_t seed, rounds, devices, dispatchers, workers, rate, kills, others, patience_ms;
    const char *data, *log_level;
    struct arg_list only, faults; /* "kill-worker", "kill-worker=3" */
    bool list_faults, print_schedule, keep;
    unsigned count[FAULT_KINDS]; /* in each round */
};

/* A route of the proxy. */
struct chaos_route {
    char name[32], listen[DEV_ADDRESS_BYTES];
};

/* A server of PostgreSQL. */
struct chaos_node {
    struct dev_process process;
    char data[DEV_PATH_BYTES], sockets[DEV_PATH_BYTES], wal[DEV_PATH_BYTES];
    char conninfo[DEV_PATH_BYTES]; /* straight to it */
    bool made;                     /* its process is prepared */
};

/* What became of the faults of one kind. */
struct chaos_tally {
    unsigned injected, skipped;
    double recovery_max_s, recovery_sum_s;
};

struct chaos {
    struct invocation *inv;
    struct chaos_options options;
    struct dev dev; /* folders, certificates, daemons, Redis, the fleet */
    struct chaos_node nodes[CHAOS_NODES];
    int primary;
    struct dev_process proxy, loads[CHAOS_TENANTS];
    int proxy_socket;
    struct chaos_route routes[CHAOS_ROUTES_MAX];
    int route_count;
    char redis_data[DEV_PATH_BYTES], redis_socket[DEV_PATH_BYTES];
    char record[DEV_PATH_BYTES], probe_journal[DEV_PATH_BYTES];
    char api_keys[CHAOS_TENANTS][96];
    uint32_t tenants[CHAOS_TENANTS]; /* their numbers in PostgreSQL */
    struct pg *pg;                   /* straight to the servers, not through the proxy */
    struct redis *redis;
    bool redis_answered; /* a command of fault_redis.c is done */
    bool recorded;       /* the fleet has written its record since that was asked for */
    bool has_tmpfs;
    uint64_t judged_batch; /* all up to it were looked at */
    uint64_t probes;
    int64_t began_us;
    struct evidence evidence;                     /* of the round under way; faults add when the network was slow */
    struct slow_time redis_forgot, worker_forgot; /* the latest time each did */
    struct verdict verdict;
    struct chaos_tally tally[FAULT_KINDS];
    double idle_s, idle_max_s; /* from the end of load until all was closed */
    struct chaos_memory *memory;
};

/* Prefix of the ids of a tenant's devices. */
const char *chaos_prefix(int tenant);
static inline uint32_t chaos_devices(const struct chaos *c)
{
    return (uint32_t)(c->options.devices / CHAOS_TENANTS);
}
/* Runs the loop for so long; false when the run is to end. */
MUST_CHECK bool chaos_pause(struct chaos *c, double seconds);
/* A line on standard output, behind the time since the beginning; standard error with --json. */
void chaos_say(const struct chaos *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* How a tenant calls a dispatcher; texts borrowed from the run. */
struct common chaos_caller(const struct chaos *c, int tenant, int dispatcher);

/* stack.c: everything up, and down. Each false with one line printed. */
MUST_CHECK bool chaos_bring_up(struct chaos *c);
void chaos_take_down(struct chaos *c);

/* stack_store.c: PostgreSQL's servers and Redis. */
MUST_CHECK bool chaos_stores_make(struct chaos *c);
/* Starts server `node`, again and again while the processes of a killed one are still leaving. */
MUST_CHECK bool chaos_node_start(struct chaos *c, int node);
/* Waits for it, and starts it when it has ended. */
MUST_CHECK bool chaos_node_mend(struct chaos *c, int node);
MUST_CHECK bool chaos_redis_start(struct chaos *c);
/* Small file systems for what is to be filled up, if this process may. */
void chaos_small_disks_allow(struct chaos *c);
void chaos_small_disks_end(struct chaos *c, bool keep);
bool chaos_node_answers(void *node);

/* network.c: the proxy and its routes. */
MUST_CHECK bool chaos_network_start(struct chaos *c);
/* Makes a route; returns where it listens, or NULL with one line. */
const char *chaos_route_add(struct chaos *c, const char *name, const char *target);
/* Tells the proxy about a route: verb "stall", "break", "delay", "lose", "heal", "target". */
MUST_CHECK bool chaos_route_tell(struct chaos *c, const char *name, const char *verb, const char *value);

/* sql.c: one statement, repeated while PostgreSQL is away. False with one line after `seconds`. */
typedef void chaos_rows_fn(void *arg, const struct pg_result *rows);
MUST_CHECK bool chaos_sql(struct chaos *c, const struct pg_stmt *stmt, double seconds, chaos_rows_fn *rows, void *arg);
/* The same with one parameter, a bigint. */
MUST_CHECK bool chaos_sql_int8(struct chaos *c, const struct pg_stmt *stmt, int64_t parameter, double seconds,
                               chaos_rows_fn *rows, void *arg);
/* Whether the batches are closed: the number that are not, the lowest of them. False when PostgreSQL did not say. */
MUST_CHECK bool chaos_open_batches(struct chaos *c, int64_t *count, int64_t *lowest);

/* round.c: a round of faults under load, then the oracle. False when the run is to end. */
MUST_CHECK bool chaos_round(struct chaos *c, unsigned round);

/* probe.c: a small urgent batch; true when it was closed in time. False with a complaint otherwise. */
MUST_CHECK bool chaos_probe(struct chaos *c, double seconds);

/* oracle.c: gathers the evidence of the round, judges it and forgets it. False when it could not be gathered. */
MUST_CHECK bool chaos_judge(struct chaos *c, unsigned round);
/* oracle_rpc.c: what gRPC says of the round's commands. */
MUST_CHECK bool chaos_gather_rpc(struct chaos *c);
/* oracle_redis.c: complains about what Redis holds of closed batches. */
MUST_CHECK bool chaos_look_at_redis(struct chaos *c);

/* report.c: the table, or with --json one object. */
void chaos_report(const struct chaos *c);

#endif
