/* muster dev: a table of contents of a private installation's life. */
#include "cli/dev.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "lib/base/log.h"

/* A worker holds at most 20,000 descriptors where the hard limit is that. */
#define DEVICES_A_WORKER 15000

static void step(const struct dev *dev, const char *what)
{
    (void)dev;
    printf("%s\n", what);
    fflush(stdout);
}

/* Everything up, in order. */
static bool bring_up(struct dev *dev)
{
    char text[128];

    step(dev, "Starting PostgreSQL and Redis.");
    if (!dev_folders_make(dev) || !dev_certificates_make(dev) || !dev_postgres_start(dev) || !dev_redis_start(dev))
        return false;
    snprintf(text, sizeof text, "Starting %d dispatchers and %d workers.", (int)dev->options.dispatchers,
             (int)dev->options.workers);
    step(dev, text);
    if (!dev_daemons_start(dev) || !dev_tenant_make(dev))
        return false;
    snprintf(text, sizeof text, "Registering and connecting %d devices.", (int)dev->options.devices);
    step(dev, text);
    return dev_devices_make(dev) && dev_fleet_start(dev) && dev_env_write(dev);
}

/* Everything down, devices first, stores last. */
static void take_down(struct dev *dev)
{
    dev->group.ending = true;
    dev_process_stop(&dev->fleet, SIGTERM, 30);
    for (int i = 0; i < DEV_WORKERS_MAX; i++)
        if (dev->workers[i].pid > 0)
            kill(dev->workers[i].pid, SIGTERM); /* all at once: each drains */
    for (int i = 0; i < DEV_WORKERS_MAX; i++)
        dev_process_stop(&dev->workers[i], SIGTERM, 30);
    for (int i = 0; i < DEV_DISPATCHERS_MAX; i++)
        dev_process_stop(&dev->dispatchers[i], SIGTERM, 30);
    dev_process_stop(&dev->redis, SIGTERM, 30);
    dev_process_stop(&dev->postgres, SIGINT, 60); /* "fast": ends its sessions, then itself */
    dev_folders_remove(dev);
}

static void wait_for_the_end(struct dev *dev)
{
    while (!dev->group.broken)
        ev_run(dev->group.loop, 0);
}

static void check(struct invocation *inv, struct dev_options *o)
{
    enum log_level level;

    if (!o->workers) {
        o->workers = (o->devices + DEVICES_A_WORKER - 1) / DEVICES_A_WORKER;
        o->workers = o->workers < 2 ? 2 : o->workers;
    }
    if (log_level_parse(o->log_level, &level) != 0)
        args_refuse(inv, "--daemon-log-level %s: is not debug, info, warn or error", o->log_level);
    if (log_level_parse(inv->common.log_level, &level) != 0)
        args_refuse(inv, "--log-level %s: is not debug, info, warn or error", inv->common.log_level);
    log_init("muster", level);
}

static int run(struct dev *dev)
{
    int status = EXIT_NOT_ALL;

    if (dev_group_init(&dev->group, dev->inv->command) && bring_up(dev)) {
        dev_env_tell(dev);
        if (dev->options.demo) {
            status = dev_demo_run(dev);
        } else {
            wait_for_the_end(dev);
            status = dev->group.failed ? EXIT_NOT_ALL : EXIT_DONE;
        }
    }
    if (dev->group.stopping)
        printf("\nTaking everything down.\n");
    take_down(dev);
    dev_group_free(&dev->group);
    return status;
}

int dev_run(struct invocation *inv)
{
    /* Too large for a stack, and gone with the process. */
    struct dev *dev = calloc(1, sizeof *dev);
    struct dev_options *o = dev ? &dev->options : NULL;

    if (!dev)
        return EXIT_NOT_ALL;
    *o = (struct dev_options){.devices = 1000, .dispatchers = 1, .log_level = "info"};
    const struct arg_flag flags[] = {
        {"devices", ARG_INT, &o->devices, "N", "simulated devices (default 1000)", 1, 1000000},
        {"workers", ARG_INT, &o->workers, "N", "worker processes (default 2, more for many devices)", 1,
         DEV_WORKERS_MAX},
        {"dispatchers", ARG_INT, &o->dispatchers, "N", "dispatcher processes (default 1)", 1, DEV_DISPATCHERS_MAX},
        {"data", ARG_TEXT, &o->data, "DIR", "keep data, keys and logs here and go on with them the next time", 0, 0},
        {"env", ARG_TEXT, &o->env, "FILE", "write the file to source here too", 0, 0},
        {"demo", ARG_BOOL, &o->demo, "", "lock every device, show how it goes, then end", 0, 0},
        {"plain", ARG_BOOL, &o->plain, "", "the fleet connects without TLS, for measuring", 0, 0},
        {"restart", ARG_BOOL, &dev->group.restart, "", "start a dispatcher or worker that dies again", 0, 0},
        {"daemon-log-level", ARG_TEXT, &o->log_level, "LEVEL", "of dispatchers and workers (default info)", 0, 0},
        {"dispatcher-flag", ARG_LIST, &o->dispatcher_flags, "FLAG", "pass --NAME=VALUE on; may be repeated", 0, 0},
        {"worker-flag", ARG_LIST, &o->worker_flags, "FLAG", "pass --NAME=VALUE on; may be repeated", 0, 0},
        {0},
    };
    struct args a = {.positional = "",
                     .flags = flags,
                     .takes_rest = true,
                     .notes =
                         "What stands behind -- goes to muster-fleet. Without --data nothing is left behind. Ends on "
                         "Ctrl-C or SIGTERM;\na process that dies by itself ends everything with status 1."};
    args_parse(inv, &a);
    o->fleet_flags = a.rest;
    check(inv, o);
    dev->inv = inv;
    int status = run(dev);
    free(dev);
    return status;
}
