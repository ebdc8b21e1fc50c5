#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/dev.h"

typedef const char *field_fn(const struct dev_process *p, char out[DEV_ADDRESS_BYTES]);

static const char *listen_of(const struct dev_process *p, char out[DEV_ADDRESS_BYTES])
{
    (void)out;
    return p->listen;
}

static const char *plain_of(const struct dev_process *p, char out[DEV_ADDRESS_BYTES])
{
    (void)out;
    return p->listen_plain;
}

static const char *admin_of(const struct dev_process *p, char out[DEV_ADDRESS_BYTES])
{
    (void)out;
    return p->admin;
}

static const char *pid_of(const struct dev_process *p, char out[DEV_ADDRESS_BYTES])
{
    snprintf(out, DEV_ADDRESS_BYTES, "%d", (int)p->pid);
    return out;
}

/* export NAME='a,b' with one value per process. */
static void put_list(int fd, const char *name, const struct dev_process *list, int64_t count, field_fn *get)
{
    char text[DEV_ADDRESS_BYTES];

    dprintf(fd, "export %s='", name);
    for (int64_t i = 0; i < count; i++)
        dprintf(fd, "%s%s", i ? "," : "", get(&list[i], text));
    dprintf(fd, "'\n");
}

static bool write_one(const struct dev *dev, const char *path)
{
    const struct dev_options *o = &dev->options;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600); /* it has the admin key */

    if (fd < 0) {
        fprintf(stderr, "muster dev: %s: %s\n", path, strerror(errno));
        return false;
    }
    dprintf(fd, "export MUSTER_TARGET='%s'\nexport MUSTER_CA='%s'\nexport MUSTER_API_KEY='%s'\n",
            dev->dispatchers[0].listen, dev->ca, dev->api_key);
    dprintf(fd, "export MUSTER_POSTGRES='%s'\nexport MUSTER_REDIS='%s'\nexport MUSTER_CREDENTIALS='%s'\n",
            dev->conninfo, dev->redis_url, dev->credentials);
    put_list(fd, "MUSTER_DISPATCHERS", dev->dispatchers, o->dispatchers, listen_of);
    put_list(fd, "MUSTER_DISPATCHERS_ADMIN", dev->dispatchers, o->dispatchers, admin_of);
    put_list(fd, "MUSTER_WORKERS", dev->workers, o->workers, listen_of);
    put_list(fd, "MUSTER_WORKERS_ADMIN", dev->workers, o->workers, admin_of);
    if (o->plain)
        put_list(fd, "MUSTER_WORKERS_PLAIN", dev->workers, o->workers, plain_of);
    put_list(fd, "MUSTER_DISPATCHER_PIDS", dev->dispatchers, o->dispatchers, pid_of);
    put_list(fd, "MUSTER_WORKER_PIDS", dev->workers, o->workers, pid_of);
    put_list(fd, "MUSTER_POSTGRES_PID", &dev->postgres, 1, pid_of);
    put_list(fd, "MUSTER_REDIS_PID", &dev->redis, 1, pid_of);
    put_list(fd, "MUSTER_FLEET_PID", &dev->fleet, 1, pid_of);
    return close(fd) == 0;
}

bool dev_env_write(struct dev *dev)
{
    char path[DEV_PATH_BYTES];

    return dev_path(path, dev->data, "env") && write_one(dev, path) &&
           (!dev->options.env || write_one(dev, dev->options.env));
}

void dev_env_tell(const struct dev *dev)
{
    const struct dev_options *o = &dev->options;
    char path[DEV_PATH_BYTES];

    printf("\nMuster is up: %d devices are connected.\n\n", (int)o->devices);
    for (int64_t i = 0; i < o->dispatchers; i++)
        printf("  dispatcher %-3d gRPC  %-24s admin http://%s\n", (int)i + 1, dev->dispatchers[i].listen,
               dev->dispatchers[i].admin);
    for (int64_t i = 0; i < o->workers; i++)
        printf("  worker %-3d     MQTT  %-24s admin http://%s\n", (int)i + 1, dev->workers[i].listen,
               dev->workers[i].admin);
    printf("  PostgreSQL     %s\n  Redis          %s\n  tokens         %s\n  logs           %s/log\n", dev->conninfo,
           dev->redis_url, dev->credentials, dev->data);
    if (!o->demo && (o->env || dev_path(path, dev->data, "env")))
        printf("\nIn another terminal:\n\n  . %s\n  %s/muster batch submit --type lock --message 'Please return me' "
               "--all --watch\n\nCtrl-C takes everything down.\n",
               o->env ? o->env : path, dev->programs);
    fflush(stdout);
}
