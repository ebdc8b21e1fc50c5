#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/dev.h"

bool dev_redis_listens(void *arg)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%.*s", (int)sizeof address.sun_path - 1, (const char *)arg);
    bool yes = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return yes;
}

bool dev_redis_make(struct dev *dev, const char *data, const char *socket_path)
{
    struct dev_process *p = &dev->redis;
    char log[DEV_PATH_BYTES];

    if (!dev_path(log, dev->data, "log"))
        return false;
    snprintf(dev->redis_url, sizeof dev->redis_url, "unix://%.*s", (int)sizeof dev->redis_url - 8, socket_path);
    dev_process_init(p, &dev->group, log, "redis", 0);
    p->unprivileged = true;
    dev_process_args(p, "redis-server", "--port", "0", "--unixsocket", socket_path, "--dir", data, "--appendonly",
                     "yes", "--appendfsync", "everysec", "--save", "", NULL);
    return true;
}

bool dev_redis_start(struct dev *dev)
{
    struct dev_process *p = &dev->redis;
    char data[DEV_PATH_BYTES], sockets[DEV_PATH_BYTES], socket_path[DEV_PATH_BYTES];

    return dev_path(data, dev->data, "redis") && dev_path(sockets, dev->run, "rd") &&
           dev_path(socket_path, sockets, "redis.sock") && dev_own_folder(dev, data) && dev_own_folder(dev, sockets) &&
           dev_redis_make(dev, data, socket_path) && dev_process_start(p) &&
           dev_process_wait_up(p, dev_redis_listens, socket_path, 60);
}
