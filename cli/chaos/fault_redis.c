/* Redis killed, emptied, and robbed of the end of its append-only file. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/chaos/fault.h"

#define END_S 40
/* Cut off an append-only file: in the middle of something, and some of what was acknowledged. */
#define TORN_BYTES_MAX 20000
#define FOLDER         "appendonlydir" /* of Redis 7 */

bool fault_kill_redis(struct chaos *c, struct injury *i)
{
    snprintf(i->victim, sizeof i->victim, "redis");
    dev_process_end(&c->dev.redis, SIGKILL, END_S);
    return !c->dev.group.broken;
}

bool fault_start_redis(struct chaos *c, struct injury *i)
{
    (void)i;
    return chaos_redis_start(c);
}

/* Calls `fn` for every file of the append-only folder. */
static bool each_file(struct chaos *c, bool (*fn)(struct injury *i, const char *path), struct injury *i)
{
    char folder[DEV_PATH_BYTES], path[DEV_PATH_BYTES + 256];
    bool good = true;

    if (!dev_path(folder, c->redis_data, FOLDER))
        return false;
    DIR *d = opendir(folder);
    if (!d)
        return errno == ENOENT;
    for (const struct dirent *e; good && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        good = fn(i, path);
    }
    closedir(d);
    return good;
}

static bool lose_file(struct injury *i, const char *path)
{
    (void)i;
    return unlink(path) == 0;
}

bool fault_lose_redis(struct chaos *c, struct injury *i)
{
    return fault_kill_redis(c, i) && each_file(c, lose_file, i);
}

static bool tear_file(struct injury *i, const char *path)
{
    struct stat st;

    if (!strstr(path, ".incr.aof") || stat(path, &st) != 0)
        return true;
    off_t cut = (off_t)(1 + i->fault->victim % TORN_BYTES_MAX);
    return truncate(path, st.st_size > cut ? st.st_size - cut : 0) == 0;
}

bool fault_tear_redis(struct chaos *c, struct injury *i)
{
    return fault_kill_redis(c, i) && each_file(c, tear_file, i);
}

static void flushed(void *arg, enum err err, const redisReply *reply)
{
    struct chaos *c = arg;

    (void)err;
    (void)reply;
    c->redis_answered = true;
    ev_break(c->dev.group.loop, EVBREAK_ALL);
}

bool fault_flush_redis(struct chaos *c, struct injury *i)
{
    const struct slice word = {(const uint8_t *)"FLUSHALL", 8};

    snprintf(i->victim, sizeof i->victim, "redis");
    c->redis_answered = false;
    redis_command(c->redis, 1, &word, flushed, c);
    while (!c->redis_answered)
        ev_run(c->dev.group.loop, 0);
    return true;
}
