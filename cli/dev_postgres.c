#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/dev.h"
#include "lib/store/pg.h"

/* Debian keeps the server's programs out of PATH; the newest version's are taken, else those in PATH. */
static void find_program(const char *name, char out[DEV_PATH_BYTES])
{
    char pattern[DEV_PATH_BYTES];
    glob_t found;

    snprintf(pattern, sizeof pattern, "/usr/lib/postgresql/*/bin/%s", name);
    snprintf(out, DEV_PATH_BYTES, "%s", name);
    if (glob(pattern, 0, NULL, &found) != 0)
        return;
    snprintf(out, DEV_PATH_BYTES, "%s", found.gl_pathv[found.gl_pathc - 1]);
    globfree(&found);
}

bool dev_postgres_tool(struct dev *dev, const char *name, const char *const *args)
{
    struct dev_process *p = calloc(1, sizeof *p);
    char program[DEV_PATH_BYTES], log[DEV_PATH_BYTES];

    if (!p || !dev_path(log, dev->data, "log")) {
        free(p);
        return false;
    }
    find_program(name, program);
    dev_process_init(p, &dev->group, log, name, 0);
    p->unprivileged = true;
    dev_process_arg(p, program);
    for (; *args; args++)
        dev_process_arg(p, *args);
    bool ok = dev_process_start(p) && dev_process_wait_end(p, 120);
    dev_process_stop(p, SIGTERM, 10);
    free(p);
    return ok;
}

bool dev_postgres_init(struct dev *dev, const char *data, const char *const *more)
{
    const char *args[24] = {"-D", data, "-U", "muster", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"};
    size_t n = 10;

    for (; *more && n < 23; more++)
        args[n++] = *more;
    return dev_postgres_tool(dev, "initdb", args);
}

static bool answers(void *arg)
{
    return pg_answers(arg);
}

bool dev_postgres_make(struct dev *dev, struct dev_process *p, const char *name, const char *data, const char *sockets)
{
    char program[DEV_PATH_BYTES], log[DEV_PATH_BYTES];

    if (!dev_path(log, dev->data, "log"))
        return false;
    find_program("postgres", program);
    dev_process_init(p, &dev->group, log, name, 0);
    p->unprivileged = true;
    p->death_signal = SIGQUIT; /* at once, its own children too */
    dev_process_args(p, program, "-D", data, "-k", sockets, "-c", "listen_addresses=", "-c", "max_connections=300",
                     "-c", "shared_buffers=256MB", "-c", "fsync=on", "-c", "synchronous_commit=on", "-c",
                     "max_wal_size=2GB", "-c", "checkpoint_timeout=15min", "-c", "wal_buffers=16MB", "-c",
                     "log_min_messages=warning", NULL);
    return true;
}

static bool start(struct dev *dev, const char *data, const char *sockets)
{
    struct dev_process *p = &dev->postgres;

    return dev_postgres_make(dev, p, "postgres", data, sockets) && dev_process_start(p) &&
           dev_process_wait_up(p, answers, dev->conninfo, 60);
}

bool dev_postgres_start(struct dev *dev)
{
    char folder[DEV_PATH_BYTES], data[DEV_PATH_BYTES], sockets[DEV_PATH_BYTES], version[DEV_PATH_BYTES],
        error[512] = "";
    const char *const no_more[] = {NULL};

    if (!dev_path(folder, dev->data, "postgres") || !dev_path(data, folder, "data") ||
        !dev_path(version, data, "PG_VERSION") || !dev_path(sockets, dev->run, "pg") || !dev_own_folder(dev, folder) ||
        !dev_own_folder(dev, sockets))
        return false;
    snprintf(dev->conninfo, sizeof dev->conninfo, "host=%.200s user=muster dbname=postgres", sockets);
    if (access(version, F_OK) != 0 && !dev_postgres_init(dev, data, no_more))
        return false;
    if (!start(dev, data, sockets))
        return false;
    if (pg_migrate(dev->conninfo, error, sizeof error, NULL) == ERR_OK)
        return true;
    fprintf(stderr, "muster dev: %s\n", error);
    return false;
}
