#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "cli/chaos/chaos.h"

/* Until every process of a killed server has left, and the new one has read its log. */
#define NODE_UP_S  120
#define REDIS_UP_S 60

/* Small segments of the log, so that it asks for space often; few of them, so that little space is a small file system.
 */
#define WAL_SEGMENT_MB "1"
#define WAL_DISK       "256m"
#define AOF_DISK       "256m"

bool chaos_node_answers(void *node)
{
    return pg_answers(((const struct chaos_node *)node)->conninfo);
}

/* A view of the file systems of our own: what is mounted there goes with the last process that has it, whatever
 * happens. */
void chaos_small_disks_allow(struct chaos *c)
{
    c->has_tmpfs =
        geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* A small file system at `path`, if we may; else a folder. */
static bool small_disk(struct chaos *c, const char *path, const char *size)
{
    char options[96];

    if (!dev_own_folder(&c->dev, path))
        return false;
    if (!c->has_tmpfs)
        return true;
    snprintf(options, sizeof options, "size=%s,mode=0700,uid=%d,gid=%d", size, (int)c->dev.group.uid,
             (int)c->dev.group.gid);
    c->has_tmpfs = mount("muster", path, "tmpfs", 0, options) == 0;
    return true;
}

/* The same as an ordinary folder: what is on it stays when this process ends. */
static void keep_disk(const char *path)
{
    char kept[DEV_PATH_BYTES + 8], command[3 * DEV_PATH_BYTES];

    snprintf(kept, sizeof kept, "%s.kept", path);
    snprintf(command, sizeof command, "cp -a '%s' '%s'", path, kept);
    if (system(command) != 0 || umount2(path, MNT_DETACH) != 0 || rmdir(path) != 0 || rename(kept, path) != 0)
        fprintf(stderr, "muster chaos: %s could not be kept\n", path);
}

void chaos_small_disks_end(struct chaos *c, bool keep)
{
    const char *const paths[] = {c->nodes[0].wal, c->nodes[1].wal, c->redis_data};

    for (size_t i = 0; c->has_tmpfs && i < sizeof paths / sizeof paths[0]; i++) {
        if (!paths[i][0])
            continue;
        if (keep)
            keep_disk(paths[i]);
        else
            umount2(paths[i], MNT_DETACH);
    }
}

static bool prepare_node(struct chaos *c, int number)
{
    struct chaos_node *n = &c->nodes[number];
    char name[32], sockets[DEV_PATH_BYTES];

    snprintf(name, sizeof name, "postgres-%d", number + 1);
    if (!dev_path(n->data, c->dev.data, name))
        return false;
    snprintf(name, sizeof name, "wal-%d", number + 1);
    if (!dev_path(n->wal, c->dev.data, name) || !small_disk(c, n->wal, WAL_DISK))
        return false;
    snprintf(name, sizeof name, "pg%d", number + 1);
    if (!dev_path(sockets, c->dev.run, name) || !dev_own_folder(&c->dev, sockets))
        return false;
    memcpy(n->sockets, sockets, sizeof n->sockets);
    snprintf(n->conninfo, sizeof n->conninfo, "host=%.200s user=muster dbname=postgres", sockets);
    snprintf(name, sizeof name, "postgres-%d", number + 1);
    if (!dev_postgres_make(&c->dev, &n->process, name, n->data, n->sockets))
        return false;
    dev_process_args(&n->process, "-c", "max_wal_size=48MB", "-c", "min_wal_size=8MB", "-c", "checkpoint_timeout=1min",
                     "-c", "wal_level=replica", "-c", "max_wal_senders=8", "-c", "hot_standby=on", "-c",
                     "shared_buffers=64MB", NULL);
    n->made = true;
    return true;
}

bool chaos_node_start(struct chaos *c, int number)
{
    struct chaos_node *n = &c->nodes[number];
    double until = ev_time() + NODE_UP_S;

    while (ev_time() < until && !c->dev.group.stopping) {
        if (!dev_process_start(&n->process))
            return false;
        n->process.told = true; /* it may end: while others of it are leaving */
        if (dev_process_try_up(&n->process, chaos_node_answers, n, NODE_UP_S)) {
            n->process.told = false;
            return true;
        }
        if (!n->process.ended)
            break;
        if (!chaos_pause(c, 0.05))
            return false;
    }
    fprintf(stderr, "muster chaos: %s does not come up; see %s\n", n->process.name, n->process.log_path);
    return false;
}

bool chaos_redis_start(struct chaos *c)
{
    struct dev_process *p = &c->dev.redis;

    if (!dev_process_start(p))
        return false;
    return dev_process_wait_up(p, dev_redis_listens, c->redis_socket, REDIS_UP_S);
}

bool chaos_node_mend(struct chaos *c, int number)
{
    struct chaos_node *n = &c->nodes[number];

    if (!n->process.ended && dev_process_try_up(&n->process, chaos_node_answers, n, NODE_UP_S)) {
        n->process.told = false;
        return true;
    }
    return n->process.ended && chaos_node_start(c, number);
}

static bool make_redis(struct chaos *c)
{
    char sockets[DEV_PATH_BYTES];

    if (!dev_path(c->redis_data, c->dev.data, "redis") || !dev_path(sockets, c->dev.run, "rd") ||
        !dev_path(c->redis_socket, sockets, "redis.sock") || !small_disk(c, c->redis_data, AOF_DISK) ||
        !dev_own_folder(&c->dev, sockets))
        return false;
    snprintf(c->dev.redis_url, sizeof c->dev.redis_url, "unix://%.200s", c->redis_socket);
    return dev_redis_make(&c->dev, c->redis_data, c->redis_socket) && chaos_redis_start(c);
}

bool chaos_stores_make(struct chaos *c)
{
    const char *more[] = {"--wal-segsize", WAL_SEGMENT_MB, NULL, NULL, NULL};
    char error[512] = "";

    for (int i = 0; i < CHAOS_NODES; i++)
        if (!prepare_node(c, i))
            return false;
    if (c->has_tmpfs) {
        more[2] = "-X";
        more[3] = c->nodes[0].wal;
    }
    if (!dev_own_folder(&c->dev, c->nodes[0].data) || !dev_postgres_init(&c->dev, c->nodes[0].data, more) ||
        !chaos_node_start(c, 0) || !make_redis(c))
        return false;
    if (pg_migrate(c->nodes[0].conninfo, error, sizeof error, NULL) == ERR_OK)
        return true;
    fprintf(stderr, "muster chaos: %s\n", error);
    return false;
}
