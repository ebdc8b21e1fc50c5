#include <signal.h>
#include <stdio.h>

#include "cli/dev.h"

/* A worker starts with a lease and its scripts, a dispatcher with migrations looked at. */
#define READY_S 60

bool dev_daemon_make(struct dev *dev, struct dev_process *p, const char *program, int number, const char *postgres,
                     const char *redis)
{
    char path[DEV_PATH_BYTES], log[DEV_PATH_BYTES], name[DEV_PATH_BYTES];

    snprintf(name, sizeof name, "muster-%s", program);
    if (!dev_path(path, dev->programs, name) || !dev_path(log, dev->data, "log"))
        return false;
    dev_process_init(p, &dev->group, log, program, number);
    p->daemon = true;
    dev_process_args(p, path, "--postgres", postgres, "--redis", redis, "--listen", "127.0.0.1:0", "--admin-listen",
                     "127.0.0.1:0", "--tls-cert", dev->cert, "--tls-key", dev->key, "--log-level",
                     dev->options.log_level, NULL);
    return true;
}

static bool start(struct dev *dev, struct dev_process *p, const char *program, int number, const struct arg_list *more)
{
    if (!dev_daemon_make(dev, p, program, number, dev->conninfo, dev->redis_url))
        return false;
    if (dev->options.plain && p >= dev->workers && p < dev->workers + DEV_WORKERS_MAX)
        dev_process_args(p, "--listen-plain", "127.0.0.1:0", NULL);
    for (size_t i = 0; i < more->count; i++)
        dev_process_arg(p, more->items[i]);
    return dev_process_start(p);
}

bool dev_daemons_start(struct dev *dev)
{
    const struct dev_options *o = &dev->options;

    for (int i = 0; i < o->dispatchers; i++)
        if (!start(dev, &dev->dispatchers[i], "dispatcher", i + 1, &o->dispatcher_flags))
            return false;
    for (int i = 0; i < o->workers; i++)
        if (!start(dev, &dev->workers[i], "worker", i + 1, &o->worker_flags))
            return false;
    for (int i = 0; i < o->dispatchers; i++)
        if (!dev_process_wait_ready(&dev->dispatchers[i], READY_S))
            return false;
    for (int i = 0; i < o->workers; i++)
        if (!dev_process_wait_ready(&dev->workers[i], READY_S))
            return false;
    return true;
}
