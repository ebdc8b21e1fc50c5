#include "dispatcher/leader_gates.h"

#include <stdlib.h>

#include "dispatcher/leader_write.h"
#include "dispatcher/route.h"
#include "lib/base/log.h"
#include "lib/store/db_gate.h"

/* A gate as it was seen last. */
struct seen {
    int32_t tenant; /* 0: all */
    int64_t number;
    bool shut;    /* closed, or its opening not confirmed */
    bool routing; /* open again: what is behind it is being routed anew, */
    bool settled; /* and has been; the row is to go */
};

struct reign_gates {
    struct seen *v; /* in the order of tenants */
    size_t count;
};

struct reign_gates *reign_gates_new(struct reign *r)
{
    (void)r;
    return calloc(1, sizeof(struct reign_gates));
}

void reign_gates_free(struct reign_gates **g)
{
    if (!*g)
        return;
    free((*g)->v);
    free(*g);
    *g = NULL;
}

static struct seen *find(const struct reign_gates *g, int32_t tenant)
{
    for (size_t i = 0; i < g->count && g->v[i].tenant <= tenant; i++)
        if (g->v[i].tenant == tenant)
            return &g->v[i];
    return NULL;
}

bool reign_gates_closed(const struct reign_gates *g, uint32_t tenant)
{
    if (!g->count)
        return false;
    const struct seen *all = find(g, 0), *own = find(g, (int32_t)tenant);
    return (all && all->shut) || (own && own->shut);
}

/* --- routing anew ------------------------------------------------------------------------------------------------- */

struct scope {
    struct reign *reign;
    int32_t tenant;
    bool waits; /* some batch is still on its way */
};

static bool concerns(const struct scope *s, const struct open_batch *batch)
{
    return batch->stage == OPEN_RUNNING && batch->unsettled && !batch->held && !batch->canceling && !batch->ending &&
           (!s->tenant || batch->tenant == (uint32_t)s->tenant);
}

static void route_anew(void *arg, struct open_batch *batch)
{
    struct scope *s = arg;
    if (concerns(s, batch))
        router_again(s->reign, batch);
}

static void look(void *arg, struct open_batch *batch)
{
    struct scope *s = arg;
    s->waits = s->waits || (concerns(s, batch) && !batch->handed);
}

void reign_gates_tick(struct reign *r)
{
    struct reign_gates *g = r->gates;
    if (!g->count || !r->loaded)
        return;
    for (size_t i = 0; i < g->count; i++) {
        struct seen *seen = &g->v[i];
        struct scope s = {r, seen->tenant, false};
        if (seen->shut || seen->settled)
            continue;
        if (!seen->routing) {
            seen->routing = true;
            open_set_each(&r->set, route_anew, &s);
            router_pump(r);
        }
        open_set_each(&r->set, look, &s);
        if (s.waits && !reign_gates_closed(g, (uint32_t)seen->tenant))
            continue; /* behind a gate that is closed for all, it is opened with that one */
        seen->settled = true;
        write_gate_settled(r, seen->tenant, seen->number);
    }
}

/* --- seeing ------------------------------------------------------------------------------------------------------- */

void reign_gates_seen(struct reign *r, const struct pg_result *rows)
{
    struct reign_gates *g = r->gates;
    int n = pg_rows(rows);
    if (!n && !g->count)
        return;
    struct seen *v = calloc((size_t)n + 1, sizeof *v);
    if (!v)
        abort();
    for (int i = 0; i < n; i++) {
        struct db_gate gate;
        db_gate_read(rows, i, &gate);
        const struct seen *before = find(g, gate.tenant);
        if (before && before->number == gate.number)
            v[i] = *before;
        v[i].tenant = gate.tenant;
        v[i].number = gate.number;
        v[i].shut = gate.closed || !gate.confirmed_ms;
        if (v[i].shut && !(before && before->shut))
            log_info("gate_closed", "tenant=%d", gate.tenant);
    }
    free(g->v);
    g->v = v;
    g->count = (size_t)n;
    reign_gates_tick(r);
}
