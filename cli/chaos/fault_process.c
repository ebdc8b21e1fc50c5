/* Dispatchers and workers killed, stopped and started, and the fleet's devices all at once. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/chaos/fault.h"

#define READY_S 60
#define END_S   40
/* The leader's lease and the workers', as stack.c has them: a stopped one is stopped for longer. */
#define LEADER_LEASE_S 2.0
#define WORKER_LEASE_S 2.0

static struct dev_process *dispatcher(struct chaos *c, int i)
{
    return &c->dev.dispatchers[i];
}

static struct dev_process *worker(struct chaos *c, int i)
{
    return &c->dev.workers[i];
}

static void take_leader(void *arg, const struct pg_result *rows)
{
    if (pg_rows(rows) > 0)
        snprintf(arg, 128, "%s", pg_text(rows, 0, 0));
}

/* Which dispatcher leads; -1 when nobody can say. */
static int leader(struct chaos *c)
{
    static const struct pg_stmt stmt = {"chaos_leader", "SELECT holder FROM lease WHERE name = 'leader'"};
    char holder[128] = "", pid[32];

    if (!chaos_sql(c, &stmt, 5, take_leader, holder))
        return -1;
    for (int i = 0; i < c->options.dispatchers; i++) {
        snprintf(pid, sizeof pid, ":%d:", (int)dispatcher(c, i)->pid);
        if (strstr(holder, pid))
            return i;
    }
    return -1;
}

/* Three of four times the leader, whose death is felt most. */
static void choose_dispatcher(struct chaos *c, struct injury *i)
{
    int leads = i->fault->victim % 4 ? leader(c) : -1;

    i->index = leads >= 0 ? leads : (int)(i->fault->victim / 4 % (uint32_t)c->options.dispatchers);
    snprintf(i->victim, sizeof i->victim, "%s%s", dispatcher(c, i->index)->name, leads >= 0 ? " (leads)" : "");
}

static void choose_worker(struct chaos *c, struct injury *i)
{
    i->index = (int)(i->fault->victim % (uint32_t)c->options.workers);
    snprintf(i->victim, sizeof i->victim, "%s", worker(c, i->index)->name);
}

bool fault_kill_dispatcher(struct chaos *c, struct injury *i)
{
    choose_dispatcher(c, i);
    dev_process_end(dispatcher(c, i->index), SIGKILL, END_S);
    return !c->dev.group.broken;
}

bool fault_kill_worker(struct chaos *c, struct injury *i)
{
    choose_worker(c, i);
    dev_process_end(worker(c, i->index), SIGKILL, END_S);
    return !c->dev.group.broken;
}

static struct dev_process *victim(struct chaos *c, const struct injury *i)
{
    return fault_kind_info(i->fault->kind)->touches & TOUCHES_DISPATCHER ? dispatcher(c, i->index)
                                                                         : worker(c, i->index);
}

/* It is ready once all it needs is there again, which others may have to heal first: see fault_settle. */
bool fault_start_daemon(struct chaos *c, struct injury *i)
{
    return dev_process_again(victim(c, i));
}

bool fault_settle(struct chaos *c)
{
    for (int i = 0; i < c->options.dispatchers; i++)
        if (!dev_process_wait_ready(dispatcher(c, i), READY_S))
            return false;
    for (int i = 0; i < c->options.workers; i++)
        if (!dev_process_wait_ready(worker(c, i), READY_S))
            return false;
    return true;
}

bool fault_stop_dispatcher(struct chaos *c, struct injury *i)
{
    choose_dispatcher(c, i);
    i->hold_s += LEADER_LEASE_S;
    return kill(dispatcher(c, i->index)->pid, SIGSTOP) == 0;
}

bool fault_stop_worker(struct chaos *c, struct injury *i)
{
    choose_worker(c, i);
    i->hold_s += WORKER_LEASE_S;
    return kill(worker(c, i->index)->pid, SIGSTOP) == 0;
}

bool fault_continue(struct chaos *c, struct injury *i)
{
    return kill(victim(c, i)->pid, SIGCONT) == 0;
}

bool fault_reconnect_all(struct chaos *c, struct injury *i)
{
    snprintf(i->victim, sizeof i->victim, "%d devices", (int)c->options.devices);
    return kill(c->dev.fleet.pid, SIGHUP) == 0;
}

static bool restart(struct dev_process *p)
{
    dev_process_end(p, SIGTERM, END_S);
    return dev_process_again(p) && dev_process_wait_ready(p, READY_S);
}

/* As an administrator does it: one after the other, in order. */
bool fault_restart_all(struct chaos *c, struct injury *i)
{
    snprintf(i->victim, sizeof i->victim, "everything");
    for (int n = 0; n < c->options.workers; n++)
        if (!restart(worker(c, n)))
            return false;
    for (int n = 0; n < c->options.dispatchers; n++)
        if (!restart(dispatcher(c, n)))
            return false;
    dev_process_end(&c->dev.redis, SIGTERM, END_S);
    if (!chaos_redis_start(c))
        return false;
    dev_process_end(&c->nodes[c->primary].process, SIGINT, END_S);
    return chaos_node_start(c, c->primary);
}
