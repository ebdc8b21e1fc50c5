/* What the capacity model knows of this software: costs measured by `make bench-model`, kept in bench/model.json.
 * Owns: the names and meanings of the figures. May call: nothing. Loop rule: none.
 *
 * bench/model.json is the one place they are changed, by measuring (`make bench-model RECORD=1`); bench/model_embed.py
 * makes the constant from it. Times are µs of one core of the machine named in plan_measured_on, sizes are bytes.
 *
 * What a piece of work takes a component is a sum: so much a command, a block row (a batch in a block of 1,024
 * devices), a batch and a flush (a worker's transaction of acknowledgements, while others flush too). */
#ifndef MUSTER_CLI_PLAN_FIGURES_H
#define MUSTER_CLI_PLAN_FIGURES_H

struct plan_figures {
    /* The dispatcher that accepts: gRPC, validation, resolving, its part of group commit. */
    double accept_us_per_command, accept_us_per_block, accept_us_per_batch;
    /* The one that leads: routing, folding, closing. */
    double leader_us_per_command, leader_us_per_block, leader_us_per_batch, leader_us_per_flush;
    double leader_us_per_s;          /* with nothing to do */
    double leader_bytes_per_command; /* of open batches */
    double dispatcher_bytes;         /* of a process with nothing to do */
    /* PostgreSQL, all its processes. */
    double pg_us_per_command, pg_us_per_block, pg_us_per_batch, pg_us_per_flush;
    double pg_us_per_s, pg_us_per_worker_s; /* with nothing to do */
    double pg_writes_per_command, pg_writes_per_block, pg_writes_per_batch, pg_writes_per_flush; /* transactions */
    double wal_bytes_per_command, wal_bytes_per_block, wal_bytes_per_batch, wal_bytes_per_flush;
    double disk_bytes_per_command, disk_bytes_per_block,
        disk_bytes_per_batch; /* kept of a closed batch, with indexes */
    double pg_commits_per_s;  /* small durable transactions, 32 connections, pgbench on the same machine and disk */
    /* Redis. A script call is one of: route, record, close of a block row. */
    double redis_us_per_command, redis_us_per_script, redis_us_per_batch, redis_us_per_flush;
    double redis_scripts_per_block; /* when all acknowledgements of a block row come together */
    double redis_us_per_s, redis_us_per_worker_s;
    double redis_bytes_per_command, redis_bytes_per_block, redis_bytes_per_batch; /* of open batches */
    double redis_us_per_attach, redis_us_per_reconnect; /* a device comes; it comes from another worker */
    /* A worker, by record layer. A command is push, acknowledgement and PUBACKs. */
    double worker_us_per_command_openssl, worker_us_per_command_lean, worker_us_per_command_plain;
    double worker_us_per_flush;
    double worker_bytes_per_connection_openssl, worker_bytes_per_connection_lean, worker_bytes_per_connection_plain;
    double kernel_bytes_per_connection;             /* the server's end */
    double connect_us_full, connect_us_plain;       /* TLS handshake, MQTT CONNECT, SUBSCRIBE, attach */
    double reconnect_us_full, reconnect_us_resumed; /* the same when its worker has gone; resumed: with a ticket */
    double worker_us_per_ping;                      /* a keepalive */
    double worker_us_per_s, worker_bytes;           /* of a process with nothing to do */
};

extern const struct plan_figures plan_figures;
/* "processor, n cores, Linux version, date". */
extern const char plan_measured_on[];

#endif
