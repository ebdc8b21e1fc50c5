/* No space left for PostgreSQL's log or Redis' append-only file: each on a small file system of its own, filled up. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/chaos/fault.h"

#define BALLAST "ballast"
/* To be done with a new segment of the log, or not. */
#define SWITCH_S 0.5

const char *fault_disk_prevented(const struct chaos *c)
{
    return c->has_tmpfs ? NULL : "needs the right to mount a small file system (root)";
}

static void ballast_path(const char *folder, char out[DEV_PATH_BYTES + 16])
{
    snprintf(out, DEV_PATH_BYTES + 16, "%s/" BALLAST, folder);
}

/* A file that takes all there is, to the last page. */
static bool fill(const char *folder)
{
    char path[DEV_PATH_BYTES + 16];
    off_t size = 0;

    ballast_path(folder, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == ENOSPC;
    for (off_t piece = 64 << 20; piece >= 4096; piece /= 2)
        while (fallocate(fd, 0, size, piece) == 0)
            size += piece;
    return close(fd) == 0;
}

static bool empty(const char *folder)
{
    char path[DEV_PATH_BYTES + 16];

    ballast_path(folder, path);
    return unlink(path) == 0 || errno == ENOENT;
}

static void nobody_waits(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                         size_t count)
{
    (void)arg, (void)err, (void)error, (void)results, (void)count;
}

/* The server asks for a new segment soon by itself; now it does at once. It cannot answer. */
bool fault_fill_wal(struct chaos *c, struct injury *i)
{
    static const struct pg_stmt stmt = {"chaos_switch", "SELECT pg_switch_wal()"};
    struct chaos_node *n = &c->nodes[c->primary];

    snprintf(i->victim, sizeof i->victim, "%s", n->process.name);
    n->process.told = true; /* PostgreSQL gives up when it cannot write its log */
    if (!fill(n->wal))
        return false;
    struct pg_txn *txn = pg_txn_new(c->pg, PG_ANY_LANE);
    pg_txn_add(txn, &stmt);
    pg_txn_submit(txn, nobody_waits, NULL);
    return chaos_pause(c, SWITCH_S);
}

bool fault_empty_wal(struct chaos *c, struct injury *i)
{
    (void)i;
    return empty(c->nodes[c->primary].wal) && chaos_node_mend(c, c->primary);
}

bool fault_fill_aof(struct chaos *c, struct injury *i)
{
    snprintf(i->victim, sizeof i->victim, "redis");
    return fill(c->redis_data);
}

bool fault_empty_aof(struct chaos *c, struct injury *i)
{
    (void)i;
    return empty(c->redis_data);
}
