#include "cli/plan_model.h"

#include <math.h>
#include <string.h>

#define BLOCK_SLOTS 1024.0
#define DAY_S       86400.0
#define FLUSH_CROWD 16.0 /* acknowledgements within a flush interval that make a worker collect */
#define FLUSH_LONG  5.0  /* so many times as long (workers/acks.c) */
#define CORE_US     1e6
#define ROOM_STEPS  100

/* What happens in a second. */
struct work {
    double commands, blocks, batches, flushes;
};

/* What one of each takes. */
struct cost {
    double command, block, batch, flush;
};

static double take(const struct cost *c, const struct work *w)
{
    return c->command * w->commands + c->block * w->blocks + c->batch * w->batches + c->flush * w->flushes;
}

const char *plan_input_fault(const struct plan_input *in)
{
    if (in->batch_size < 1)
        return "a batch has at least one device";
    if (in->tenant_devices < 1)
        return "a tenant has at least one device";
    if (in->peak_factor < 1)
        return "the peak is not below the mean";
    if (!(in->connected_share >= 0 && in->connected_share <= 1))
        return "the connected share lies between 0 and 1";
    if (!(in->answer_s > 0 && in->flush_s > 0 && in->keepalive_s > 0 && in->storm_s > 0))
        return "times are longer than 0";
    if (!(in->cores_per_host >= 1 && in->memory_per_host > 0 && in->descriptors >= 1))
        return "a host has a core, memory and descriptors";
    if (!(in->commits_per_s > 0 && in->wal_bytes_per_s > 0))
        return "PostgreSQL writes something";
    return NULL;
}

/* Blocks that one batch touches: each of the tenant's is missed when none of its devices is meant. */
static double blocks_per_batch(double batch, double tenant)
{
    double n = ceil(tenant / BLOCK_SLOTS);
    double missed = pow(1 - batch / tenant, fmin(BLOCK_SLOTS, tenant));

    return fmin(fmin(n, batch), fmax(n * (1 - missed), ceil(batch / BLOCK_SLOTS)));
}

/* Of all workers together. The pause until the first acknowledgement counts too. */
static double flushes(double commands, double workers, double interval)
{
    double each = workers > 0 ? commands / workers : 0;

    if (each <= 0)
        return 0;
    return workers / (interval * (each * interval < FLUSH_CROWD ? 1 : FLUSH_LONG) + 1 / each);
}

static void find_rates(const struct plan_input *in, struct plan *p)
{
    struct plan_rates *r = &p->rates;
    double tenant = fmin(in->tenant_devices, in->devices), batch = fmin(in->batch_size, tenant);

    p->connected = floor(in->devices * in->connected_share);
    r->commands_mean = in->devices > 0 ? in->commands_per_day / DAY_S : 0;
    r->commands = r->commands_mean * in->peak_factor;
    p->blocks_per_batch = batch > 0 ? blocks_per_batch(batch, tenant) : 0;
    r->batches = batch > 0 ? r->commands / batch : 0;
    r->blocks = r->batches * p->blocks_per_batch;
    r->pings = p->connected / in->keepalive_s;
    r->reconnects = p->connected * in->reconnects_per_day / DAY_S;
    r->storm_connects = p->connected / in->storm_s;
}

/* --- workers ------------------------------------------------------------------------------------------------------ */

static double worker_us(const struct plan_input *in, const struct plan_figures *f)
{
    return in->records == PLAN_LEAN ? f->worker_us_per_command_lean : f->worker_us_per_command_openssl;
}

/* As many as the hardest of the bounds asks for; one more than needed, for the one that dies. */
static double count_workers(const struct plan_input *in, struct plan *p)
{
    double a_worker = PLAN_MEMORY_SHARE * in->memory_per_host / in->cores_per_host;
    const double by[] = {
        [PLAN_BY_DESCRIPTORS] = ceil(p->connected / (PLAN_DESCRIPTOR_SHARE * in->descriptors)),
        [PLAN_BY_MEMORY] = ceil(p->connected * p->worker_bytes_per_connection / a_worker),
        [PLAN_BY_CPU] = ceil(p->size[PLAN_WORKER].cores / PLAN_CPU_SHARE),
        [PLAN_BY_SAFETY] = 1,
    };
    double most = 0;

    for (int i = 0; i <= PLAN_BY_SAFETY; i++)
        if (by[i] > most) {
            most = by[i];
            p->worker_bound = (enum plan_bound)i;
        }
    return most + 1;
}

static void size_workers(const struct plan_input *in, const struct plan_figures *f, struct plan *p)
{
    struct plan_size *s = &p->size[PLAN_WORKER];
    struct plan_rates *r = &p->rates;
    double per_second = r->pings * f->worker_us_per_ping;
    double peak = r->commands * worker_us(in, f) + r->reconnects * f->reconnect_us_full;
    double storm = r->storm_connects * f->connect_us_full;

    s->cores = (per_second + fmax(peak, storm)) / CORE_US;
    p->worker_bytes_per_connection =
        f->kernel_bytes_per_connection +
        (in->records == PLAN_LEAN ? f->worker_bytes_per_connection_lean : f->worker_bytes_per_connection_openssl);
    s->processes = count_workers(in, p);
    if (in->workers > 0) {
        s->processes = in->workers;
        p->worker_bound = PLAN_BY_WISH;
    }
    /* Flushes follow from the number of workers; they are few where a worker has much to do. */
    r->flushes = flushes(r->commands, s->processes, in->flush_s);
    double flushing = r->flushes * f->worker_us_per_flush;
    s->us_per_command = worker_us(in, f) + (r->commands > 0 ? flushing / r->commands : 0);
    s->cores += (flushing + s->processes * f->worker_us_per_s) / CORE_US;
    s->memory = p->connected * p->worker_bytes_per_connection + s->processes * f->worker_bytes;
    p->worker_hosts = fmax(ceil(s->cores / (PLAN_CPU_SHARE * in->cores_per_host)),
                           ceil(s->memory / (PLAN_MEMORY_SHARE * in->memory_per_host)));
}

/* --- the others --------------------------------------------------------------------------------------------------- */

/* CPU of a component by its costs; `base` is what it does anyway, in µs a second. */
static void spend(struct plan_size *s, const struct cost *c, const struct work *w, double base)
{
    double us = take(c, w);

    s->us_per_command = w->commands > 0 ? us / w->commands : 0;
    s->cores = (us + base) / CORE_US;
}

static void size_dispatchers(const struct plan_figures *f, const struct work *w, struct plan *p)
{
    struct plan_size *accept = &p->size[PLAN_ACCEPT], *leader = &p->size[PLAN_LEADER];

    spend(accept, &(struct cost){f->accept_us_per_command, f->accept_us_per_block, f->accept_us_per_batch, 0}, w, 0);
    spend(leader,
          &(struct cost){f->leader_us_per_command, f->leader_us_per_block, f->leader_us_per_batch,
                         f->leader_us_per_flush},
          w, f->leader_us_per_s);
    leader->processes = 1;
    accept->processes = fmax(1, ceil(accept->cores / PLAN_CPU_SHARE)); /* it also stands by to lead */
    leader->memory = f->dispatcher_bytes + p->open_commands * f->leader_bytes_per_command;
    accept->memory = accept->processes * f->dispatcher_bytes;
}

static double redis_memory(const struct plan_input *in, const struct plan_figures *f, const struct plan *p)
{
    double batch = fmin(in->batch_size, fmin(in->tenant_devices, in->devices));
    double batches = batch > 0 ? p->open_commands / batch : 0;

    return p->open_commands * f->redis_bytes_per_command + batches * f->redis_bytes_per_batch +
           batches * p->blocks_per_batch * f->redis_bytes_per_block + in->devices * 2; /* presence: u16 a device */
}

static void size_redis(const struct plan_input *in, const struct plan_figures *f, const struct work *w, struct plan *p)
{
    struct plan_size *s = &p->size[PLAN_REDIS];
    struct plan_rates *r = &p->rates;
    double workers = p->size[PLAN_WORKER].processes;
    double in_block = w->blocks > 0 ? w->commands / w->blocks : 0;
    double answers = fmin(in_block, workers * fmax(1, in->answer_s / (FLUSH_LONG * in->flush_s)));

    r->scripts = w->blocks * (f->redis_scripts_per_block - 1 + answers);
    double us = w->commands * f->redis_us_per_command + r->scripts * f->redis_us_per_script +
                w->batches * f->redis_us_per_batch + w->flushes * f->redis_us_per_flush;
    double coming = fmax(us + r->reconnects * f->redis_us_per_reconnect, r->storm_connects * f->redis_us_per_attach);
    s->us_per_command = w->commands > 0 ? us / w->commands : 0;
    s->cores = (coming + f->redis_us_per_s + workers * f->redis_us_per_worker_s) / CORE_US;
    s->memory = redis_memory(in, f, p);
    s->processes =
        fmax(1, fmax(ceil(s->cores / PLAN_CPU_SHARE), ceil(s->memory / (PLAN_MEMORY_SHARE * in->memory_per_host))));
}

static void size_postgres(const struct plan_input *in, const struct plan_figures *f, const struct work *w,
                          struct plan *p)
{
    struct plan_size *s = &p->size[PLAN_POSTGRES];
    double batch = fmin(in->batch_size, fmin(in->tenant_devices, in->devices));
    double a_command = batch > 0 ? f->disk_bytes_per_command +
                                       (p->blocks_per_batch * f->disk_bytes_per_block + f->disk_bytes_per_batch) / batch
                                 : 0;

    spend(s, &(struct cost){f->pg_us_per_command, f->pg_us_per_block, f->pg_us_per_batch, f->pg_us_per_flush}, w,
          f->pg_us_per_s + p->size[PLAN_WORKER].processes * f->pg_us_per_worker_s);
    p->pg_writes = take(&(struct cost){f->pg_writes_per_command, f->pg_writes_per_block, f->pg_writes_per_batch,
                                       f->pg_writes_per_flush},
                        w);
    p->wal_bytes = take(&(struct cost){f->wal_bytes_per_command, f->wal_bytes_per_block, f->wal_bytes_per_batch,
                                       f->wal_bytes_per_flush},
                        w);
    p->disk_bytes = p->rates.commands_mean * DAY_S * in->retention_days * a_command;
    s->processes = 1;
}

/* --- limits ------------------------------------------------------------------------------------------------------- */

static void find_limits(const struct plan_input *in, struct plan *p)
{
    const struct plan_size *s = p->size;

    p->load[PLAN_LIMIT_LEADER] = s[PLAN_LEADER].cores / PLAN_CPU_SHARE;
    p->load[PLAN_LIMIT_REDIS_CPU] = s[PLAN_REDIS].cores / PLAN_CPU_SHARE;
    p->load[PLAN_LIMIT_REDIS_MEMORY] = s[PLAN_REDIS].memory / (PLAN_MEMORY_SHARE * in->memory_per_host);
    p->load[PLAN_LIMIT_POSTGRES_CPU] = s[PLAN_POSTGRES].cores / (PLAN_CPU_SHARE * in->cores_per_host);
    p->load[PLAN_LIMIT_COMMITS] = p->pg_writes / (PLAN_CPU_SHARE * in->commits_per_s);
    p->load[PLAN_LIMIT_WAL] = p->wal_bytes / in->wal_bytes_per_s;
    p->load[PLAN_LIMIT_WORKERS] = s[PLAN_WORKER].processes / PLAN_WORKERS_MAX;
    for (int i = 0; i < PLAN_LIMITS; i++)
        if (p->load[i] > p->load[p->first])
            p->first = (enum plan_limit)i;
}

static void make(const struct plan_input *in, const struct plan_figures *f, struct plan *p)
{
    memset(p, 0, sizeof *p);
    find_rates(in, p);
    p->open_commands = p->rates.commands_mean * DAY_S * in->open_days;
    size_workers(in, f, p);
    const struct work w = {p->rates.commands, p->rates.blocks, p->rates.batches, p->rates.flushes};
    size_dispatchers(f, &w, p);
    size_redis(in, f, &w, p);
    size_postgres(in, f, &w, p);
    for (int i = 0; i < PLAN_PARTS; i++)
        p->memory += p->size[i].memory;
    find_limits(in, p);
}

/* The plan of a fleet and load so many times as large. */
static void make_times(const struct plan_input *in, double times, const struct plan_figures *f, struct plan *p)
{
    struct plan_input larger = *in;

    larger.devices *= times;
    larger.commands_per_day *= times;
    make(&larger, f, p);
}

/* Looks for the room by halving, on a scale of powers: loads grow with the fleet. */
static void find_room(const struct plan_input *in, const struct plan_figures *f, struct plan *out)
{
    double low = 1 / PLAN_ROOM_MAX, high = PLAN_ROOM_MAX;
    struct plan other;

    make_times(in, high, f, &other);
    if (other.load[other.first] <= 1)
        low = high;
    for (int i = 0; i < ROOM_STEPS && low < high; i++) {
        double middle = sqrt(low * high);
        make_times(in, middle, f, &other);
        *(other.load[other.first] > 1 ? &high : &low) = middle;
    }
    make_times(in, high, f, &other);
    out->room = low;
    out->next = other.first;
}

void plan_make(const struct plan_input *in, const struct plan_figures *f, struct plan *out)
{
    make(in, f, out);
    find_room(in, f, out);
}
