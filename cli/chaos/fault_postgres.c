/* PostgreSQL killed and started again, or replaced by its standby. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/chaos/fault.h"

#define END_S 60
/* A standby made from nothing, and in step. */
#define SYNC_S 60
#define LOOK_S 0.05
/* Load with a synchronous standby before the primary dies. */
#define IN_STEP_S 0.5

bool fault_kill_postgres(struct chaos *c, struct injury *i)
{
    struct dev_process *p = &c->nodes[c->primary].process;

    snprintf(i->victim, sizeof i->victim, "%s", p->name);
    dev_process_end(p, SIGKILL, END_S);
    return !c->dev.group.broken;
}

bool fault_start_postgres(struct chaos *c, struct injury *i)
{
    (void)i;
    return chaos_node_start(c, c->primary);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    return where->level == 0 ? 0 : remove(path); /* the folder itself may be a file system's root */
}

/* What is left of a former life, so that a standby can be made in its place. */
static bool clear(const char *folder)
{
    return nftw(folder, remove_one, 32, FTW_DEPTH | FTW_PHYS) == 0;
}

static bool make_standby(struct chaos *c, const struct chaos_node *primary, const struct chaos_node *standby)
{
    char from[2 * DEV_PATH_BYTES], wal[DEV_PATH_BYTES];
    const char *const args[] = {"-d",
                                from,
                                "-D",
                                standby->data,
                                "-R",
                                "-X",
                                "stream",
                                "-c",
                                "fast",
                                "--no-sync",
                                c->has_tmpfs ? "--waldir" : NULL,
                                wal,
                                NULL};

    snprintf(from, sizeof from, "host=%s user=muster application_name=standby", primary->sockets);
    snprintf(wal, sizeof wal, "%s", standby->wal);
    return dev_own_folder(&c->dev, standby->data) && clear(standby->data) && (!c->has_tmpfs || clear(standby->wal)) &&
           dev_postgres_tool(&c->dev, "pg_basebackup", args);
}

/* From now on a commit is answered when the standby has it too. */
static bool want_standby(const struct chaos_node *primary)
{
    char path[DEV_PATH_BYTES];

    if (!dev_path(path, primary->data, "postgresql.auto.conf"))
        return false;
    FILE *out = fopen(path, "ae");
    if (!out)
        return false;
    fprintf(out, "synchronous_standby_names = '*'\n");
    return fclose(out) == 0 && kill(primary->process.pid, SIGHUP) == 0;
}

static void take_count(void *arg, const struct pg_result *rows)
{
    *(bool *)arg = pg_int(rows, 0, 0) > 0;
}

static bool wait_in_step(struct chaos *c)
{
    static const struct pg_stmt stmt = {
        "chaos_standby", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"};
    double until = ev_time() + SYNC_S;
    bool in_step = false;

    while (chaos_sql(c, &stmt, SYNC_S, take_count, &in_step) && !in_step && ev_time() < until)
        if (!chaos_pause(c, LOOK_S))
            return false;
    if (!in_step)
        fprintf(stderr, "muster chaos: the standby does not get in step\n");
    return in_step;
}

/* The ways to the server that dies: some die so that nobody even says no. */
static bool tell_routes(struct chaos *c, int node, const char *verb)
{
    char end[16];

    snprintf(end, sizeof end, ".pg%d", node + 1);
    for (int i = 0; i < c->route_count; i++)
        if (strstr(c->routes[i].name, end) && !chaos_route_tell(c, c->routes[i].name, verb, ""))
            return false;
    return true;
}

bool fault_promote_postgres(struct chaos *c, struct injury *i)
{
    struct chaos_node *primary = &c->nodes[c->primary], *standby = &c->nodes[1 - c->primary];
    bool dark = i->fault->victim & 1;

    snprintf(i->victim, sizeof i->victim, "%s%s", primary->process.name, dark ? " (dark)" : "");
    i->index = c->primary;
    if (!make_standby(c, primary, standby) || !chaos_node_start(c, 1 - c->primary) || !want_standby(primary) ||
        !wait_in_step(c) || !chaos_pause(c, IN_STEP_S))
        return false;
    dev_process_end(&primary->process, SIGKILL, END_S);
    /* Who is connected hears of it; who connects hears nothing. */
    return !c->dev.group.broken && (!dark || (tell_routes(c, i->index, "break") && tell_routes(c, i->index, "heal") &&
                                              tell_routes(c, i->index, "stall")));
}

bool fault_finish_promotion(struct chaos *c, struct injury *i)
{
    struct chaos_node *standby = &c->nodes[1 - i->index];
    const char *const args[] = {"promote", "-D", standby->data, "-w", NULL};

    c->primary = 1 - i->index;
    return dev_postgres_tool(&c->dev, "pg_ctl", args);
}

/* The dead one's address may answer again: the daemons must have found the other before. */
bool fault_light_postgres(struct chaos *c, struct injury *i)
{
    return tell_routes(c, i->index, "heal");
}
