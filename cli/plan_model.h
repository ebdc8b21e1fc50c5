/* The capacity model: from a fleet and its load to processes, memory and writes, and to what gives way first.
 * Owns: the formula. May call: cli/plan_figures, libm. Loop rule: none, pure.
 *
 * Rates are those of the peak unless said otherwise. A component's CPU is
 *     commands/s x us_per_command + block rows/s x us_per_block + batches/s x us_per_batch + flushes/s x us_per_flush
 * and what it does anyway; for Redis, scripts/s x us_per_script stand in place of block rows.
 *
 * A batch to B of a tenant's T devices, who are anybody, touches n (1 - (1 - B/T)^1024) of the tenant's n = T/1024
 * blocks. A worker flushes an interval (5 ms) after the first acknowledgement, or five where 16 have come by then; each
 * (batch, block) in a flush is one script. A block row's acknowledgements so make min(devices in it, workers x answer
 * time / five intervals) scripts. */
#ifndef MUSTER_CLI_PLAN_MODEL_H
#define MUSTER_CLI_PLAN_MODEL_H

#include <stdbool.h>

#include "cli/plan_figures.h"

/* Headroom: what of a thing is planned to be used at the peak. */
#define PLAN_CPU_SHARE        0.6  /* beyond, waiting times grow fast; and one of two hosts may be gone */
#define PLAN_MEMORY_SHARE     0.8  /* allocators, page cache, a rolling restart */
#define PLAN_DESCRIPTOR_SHARE 0.75 /* a worker that dies leaves its devices to the others */

/* Limits that are in the code. */
#define PLAN_WORKERS_MAX 65534 /* worker numbers are u16, but 0 and one more */
#define PLAN_ROOM_MAX    1e6   /* growth beyond has no meaning */

enum plan_records { PLAN_OPENSSL, PLAN_LEAN };

struct plan_input {
    double devices, commands_per_day; /* registered; to all of them together */
    double batch_size, tenant_devices;
    double peak_factor;                              /* the busiest seconds over the mean */
    double connected_share;                          /* 0 … 1 */
    double answer_s;                                 /* within which the devices of a batch answer */
    double flush_s;                                  /* the workers' --flush-interval */
    double keepalive_s, reconnects_per_day, storm_s; /* storm: within which a whole fleet comes back */
    double open_days;                                /* how long a batch stays open for its last device */
    double retention_days;                           /* how long outcomes are kept */
    double cores_per_host, memory_per_host;          /* bytes */
    double descriptors;                              /* a process may open */
    double commits_per_s, wal_bytes_per_s;           /* PostgreSQL's, of your hardware */
    double workers;                                  /* 0: as many as are needed */
    enum plan_records records;
};

enum plan_part { PLAN_WORKER, PLAN_ACCEPT, PLAN_LEADER, PLAN_REDIS, PLAN_POSTGRES, PLAN_PARTS };

struct plan_rates { /* a second */
    double commands_mean, commands, batches, blocks, flushes, scripts;
    double pings, reconnects, storm_connects;
};

struct plan_size {
    double cores;          /* busy at the peak */
    double us_per_command; /* without keepalives, reconnects and what is done anyway */
    double memory;         /* bytes */
    double processes;
};

/* What limits the number of workers. */
enum plan_bound { PLAN_BY_DESCRIPTORS, PLAN_BY_MEMORY, PLAN_BY_CPU, PLAN_BY_SAFETY, PLAN_BY_WISH };

/* What there can be only one of, or so much. */
enum plan_limit {
    PLAN_LIMIT_LEADER,
    PLAN_LIMIT_REDIS_CPU,
    PLAN_LIMIT_REDIS_MEMORY,
    PLAN_LIMIT_POSTGRES_CPU,
    PLAN_LIMIT_COMMITS,
    PLAN_LIMIT_WAL,
    PLAN_LIMIT_WORKERS,
    PLAN_LIMITS
};

struct plan {
    double connected;
    double blocks_per_batch;
    struct plan_rates rates;
    struct plan_size size[PLAN_PARTS];
    enum plan_bound worker_bound;
    double worker_hosts;
    double worker_bytes_per_connection; /* with the kernel's part */
    double pg_writes, wal_bytes;        /* a second, at the peak */
    double disk_bytes, open_commands;
    double memory;            /* of all components but PostgreSQL's caches */
    double load[PLAN_LIMITS]; /* share of what may be used; above 1: more than there can be */
    enum plan_limit first;    /* the highest load */
    double room;              /* how many times devices and commands may grow together until a limit is reached, */
    enum plan_limit next;     /* and which one it is */
};

/* Any input whose numbers are finite, not negative, and whose divisors (see plan_input_fault) are not 0. */
void plan_make(const struct plan_input *in, const struct plan_figures *f, struct plan *out);
/* Names what of the input makes no sense (a literal), or NULL. */
const char *plan_input_fault(const struct plan_input *in);

#endif
