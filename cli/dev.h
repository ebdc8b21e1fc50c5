/* `muster dev`: a private installation that lives as long as the command.
 * Owns: struct dev, its folders, its processes' order of starting and ending. May call: everything of cli/, lib/store's
 * migrations and bootstrap. Loop rule: waits run the default loop. */
#ifndef MUSTER_CLI_DEV_H
#define MUSTER_CLI_DEV_H

#include <ev.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "cli/args.h"
#include "cli/dev_process.h"
#include "cli/session.h"

#define DEV_DISPATCHERS_MAX 16
#define DEV_WORKERS_MAX     128
/* A path with room for the names below it; sun_path takes 108 bytes. */
#define DEV_PATH_BYTES 256

struct dev_options {
    int64_t devices, workers, dispatchers; /* workers 0: as many as the devices need */
    const char *data, *env, *log_level;
    bool demo, plain;
    struct arg_list dispatcher_flags, worker_flags, fleet_flags;
};

struct dev {
    struct invocation *inv;
    struct dev_options options;
    struct dev_group group; /* the children, the loop, whether to stop */
    /* run: sockets, always temporary. data: everything else; the same folder without --data. */
    char run[DEV_PATH_BYTES], data[DEV_PATH_BYTES];
    char programs[DEV_PATH_BYTES];                                      /* folder of muster-dispatcher and the others */
    char ca[DEV_PATH_BYTES], cert[DEV_PATH_BYTES], key[DEV_PATH_BYTES]; /* PEM files */
    char conninfo[DEV_PATH_BYTES], redis_url[DEV_PATH_BYTES], credentials[DEV_PATH_BYTES];
    char api_key[96];
    struct dev_process postgres, redis, fleet;
    struct dev_process dispatchers[DEV_DISPATCHERS_MAX], workers[DEV_WORKERS_MAX];
    struct common common; /* how to reach the first dispatcher; texts borrowed from here */
};

/* Each returns false with one line on stderr; dev->group.stopping may have become true meanwhile. */

/* dev_folders.c: makes run and data, finds the programs, sweeps run away. */
MUST_CHECK bool dev_folders_make(struct dev *dev);
void dev_folders_remove(struct dev *dev);
/* Writes "<folder>/<name>" into out; false when it does not fit. */
MUST_CHECK bool dev_path(char out[DEV_PATH_BYTES], const char *folder, const char *name);

/* Makes a folder that belongs to the user the stores run as. */
MUST_CHECK bool dev_own_folder(struct dev *dev, const char *path);

/* dev_postgres.c, dev_redis.c: the two stores, on unix sockets. The parts of starting one: a cluster is made by
 * initdb (`more`: further flags, NULL at the end), a process is prepared, not started. */
MUST_CHECK bool dev_postgres_start(struct dev *dev);
MUST_CHECK bool dev_postgres_init(struct dev *dev, const char *data, const char *const *more);
MUST_CHECK bool dev_postgres_make(struct dev *dev, struct dev_process *p, const char *name, const char *data,
                                  const char *sockets);
/* Runs one of PostgreSQL's programs to its end, as the stores' user; `args` ends with NULL. */
MUST_CHECK bool dev_postgres_tool(struct dev *dev, const char *name, const char *const *args);
MUST_CHECK bool dev_redis_start(struct dev *dev);
MUST_CHECK bool dev_redis_make(struct dev *dev, const char *data, const char *socket_path);
/* Whether somebody listens on the unix socket `arg`. Redis reads its append-only file before it listens. */
bool dev_redis_listens(void *arg);

/* dev_certificates.c: an authority and a server certificate for localhost in the data folder, unless there are some. */
MUST_CHECK bool dev_certificates_make(struct dev *dev);

/* dev_daemons.c: dispatchers and workers. */
MUST_CHECK bool dev_daemons_start(struct dev *dev);
/* Prepares "dispatcher" or "worker" `number`; more flags may be added before it is started. */
MUST_CHECK bool dev_daemon_make(struct dev *dev, struct dev_process *p, const char *program, int number,
                                const char *postgres, const char *redis);

/* dev_tenant.c: tenant, key, devices, their tokens; the simulated fleet. */
MUST_CHECK bool dev_tenant_make(struct dev *dev);
MUST_CHECK bool dev_devices_make(struct dev *dev);
MUST_CHECK bool dev_fleet_start(struct dev *dev);
/* The parts: registers devices "<prefix>-0000000" and on, and writes their tokens; opens the file for tokens (NULL with
 * one line); prepares the fleet for `workers`, "host:port,host:port". */
MUST_CHECK bool dev_devices_register(struct dev *dev, const struct common *who, const char *prefix, size_t count,
                                     FILE *tokens);
FILE *dev_credentials_open(struct dev *dev);
MUST_CHECK bool dev_fleet_make(struct dev *dev, const char *workers);

/* dev_env.c: the file to source, and what to tell the user. */
MUST_CHECK bool dev_env_write(struct dev *dev);
void dev_env_tell(const struct dev *dev);

/* dev_demo.c: one lock command for everybody. Returns an exit status. */
int dev_demo_run(struct dev *dev);

#endif
