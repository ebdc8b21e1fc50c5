/* PostgreSQL killed and started again. */
#include <signal.h>
#include <stdio.h>

#include "cli/chaos/fault.h"

#define END_S 60

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
