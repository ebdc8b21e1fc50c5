#include "cli/plan_show.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 48
#define LINE       "  %-34s %s\n"

static const char *const part_names[PLAN_PARTS] = {
    [PLAN_WORKER] = "muster-worker",
    [PLAN_ACCEPT] = "muster-dispatcher, accepts",
    [PLAN_LEADER] = "muster-dispatcher, leads",
    [PLAN_REDIS] = "Redis master",
    [PLAN_POSTGRES] = "PostgreSQL primary",
};
static const char *const part_keys[PLAN_PARTS] = {"worker", "accept", "leader", "redis", "postgres"};

static const char *const bound_names[] = {
    [PLAN_BY_DESCRIPTORS] = "descriptors", [PLAN_BY_MEMORY] = "memory",  [PLAN_BY_CPU] = "CPU",
    [PLAN_BY_SAFETY] = "one that may die", [PLAN_BY_WISH] = "--workers",
};

static const struct {
    const char *key, *name, *advice;
} limits[PLAN_LIMITS] = {
    [PLAN_LIMIT_LEADER] = {"leader", "CPU of the leading dispatcher",
                           "One process leads and routes for all tenants; more dispatchers do not help it. Larger "
                           "batches, and groups of\n  devices registered together, touch fewer blocks. Beyond that: "
                           "several installations, each with some tenants."},
    [PLAN_LIMIT_REDIS_CPU] =
        {"redis_cpu", "CPU of the one Redis",
         "Redis runs scripts on one thread. Fewer workers with more descriptors each, or a longer "
         "--flush-interval, ask it\n  less often. The keys are laid out for Redis Cluster, but this "
         "version does not follow its\n  redirects: until then several installations, each with "
         "some tenants and a Redis of its own."},
    [PLAN_LIMIT_REDIS_MEMORY] = {"redis_memory", "memory of the one Redis",
                                 "Open batches and presence must fit. Let batches expire sooner, or give Redis a "
                                 "larger host; else several installations."},
    [PLAN_LIMIT_POSTGRES_CPU] = {"postgres_cpu", "CPU of PostgreSQL's host",
                                 "Larger batches cost fewer rows. Give the primary a larger host, or split the "
                                 "tenants over several installations."},
    [PLAN_LIMIT_COMMITS] = {"postgres_commits", "durable transactions of PostgreSQL",
                            "Each worker commits what it has collected in 5 to 25 ms: raise --flush-interval, run "
                            "fewer workers with more\n  descriptors each, or use a disk with a faster fsync (measure "
                            "yours with pgbench, tell it with --commits-limit)."},
    [PLAN_LIMIT_WAL] = {"postgres_wal", "WAL of PostgreSQL",
                        "Larger batches write fewer bytes a command. Otherwise a faster disk (--wal-limit), or several "
                        "installations."},
    [PLAN_LIMIT_WORKERS] = {"worker_numbers", "numbers for workers (65,534)",
                            "Raise the descriptors of each worker (--descriptors), or split the tenants over several "
                            "installations."},
};

/* "1,234,567" of a number that is not negative; below 10 with two decimals. */
static const char *number(double v, char out[TEXT_BYTES])
{
    char digits[TEXT_BYTES];
    size_t at = 0;

    if (v < 10 && v != (double)(int)v) {
        snprintf(out, TEXT_BYTES, "%.*f", v < 0.1 ? 4 : 2, v);
        return out;
    }
    if (v >= 1e18) {
        snprintf(out, TEXT_BYTES, "%.3g", v);
        return out;
    }
    int len = snprintf(digits, sizeof digits, "%.0f", v);
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

static const char *bytes(double v, char out[TEXT_BYTES])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t u = 0;

    while (v >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    snprintf(out, TEXT_BYTES, "%.*f %s", u && v < 100 ? 1 : 0, v, units[u]);
    return out;
}

static const char *span(double s, char out[TEXT_BYTES])
{
    if (s >= 172800)
        snprintf(out, TEXT_BYTES, "%.3g days", s / 86400);
    else if (s >= 120)
        snprintf(out, TEXT_BYTES, "%.3g min", s / 60);
    else if (s >= 1)
        snprintf(out, TEXT_BYTES, "%.3g s", s);
    else
        snprintf(out, TEXT_BYTES, "%.3g ms", s * 1000);
    return out;
}

static void show_assumptions(const struct plan_input *in, const struct plan *p, const char *measured_on)
{
    char a[TEXT_BYTES], b[TEXT_BYTES], text[2 * TEXT_BYTES + 64];

    printf("Assumptions\n");
    snprintf(text, sizeof text, "%s, %.3g %% connected: %s", number(in->devices, a), in->connected_share * 100,
             number(p->connected, b));
    printf(LINE, "devices", text);
    snprintf(text, sizeof text, "%s a day, at the peak %.3g times the mean", number(in->commands_per_day, a),
             in->peak_factor);
    printf(LINE, "commands", text);
    snprintf(text, sizeof text, "%s devices each, anybody of a tenant's %s", number(in->batch_size, a),
             number(in->tenant_devices, b));
    printf(LINE, "batches", text);
    snprintf(text, sizeof text, "within %s; a batch stays open for %s, is kept for %s", span(in->answer_s, a),
             span(in->open_days * 86400, b), span(in->retention_days * 86400, (char[TEXT_BYTES]){0}));
    printf(LINE, "devices answer", text);
    snprintf(text, sizeof text, "keepalive %s, %s reconnects a day; after a failure all come back in %s",
             span(in->keepalive_s, a), number(in->reconnects_per_day, b), span(in->storm_s, (char[TEXT_BYTES]){0}));
    printf(LINE, "connections", text);
    snprintf(text, sizeof text, "%s descriptors, %s TLS records, flush interval %s", number(in->descriptors, a),
             in->records == PLAN_LEAN ? "lean" : "OpenSSL's", span(in->flush_s, b));
    printf(LINE, "a worker", text);
    snprintf(text, sizeof text, "%s cores, %s; PostgreSQL: %s commits/s", number(in->cores_per_host, a),
             bytes(in->memory_per_host, b), number(in->commits_per_s, (char[TEXT_BYTES]){0}));
    printf(LINE, "a host", text);
    printf("  %-34s CPU %.0f %%, memory %.0f %%, descriptors %.0f %% used at the peak\n", "headroom",
           PLAN_CPU_SHARE * 100, PLAN_MEMORY_SHARE * 100, PLAN_DESCRIPTOR_SHARE * 100);
    printf(LINE, "costs measured on", measured_on);
}

static void show_rates(const struct plan *p)
{
    const struct plan_rates *r = &p->rates;
    char a[TEXT_BYTES], b[TEXT_BYTES], text[2 * TEXT_BYTES + 64];

    printf("\nLoad at the peak, a second\n");
    snprintf(text, sizeof text, "%s (mean %s)", number(r->commands, a), number(r->commands_mean, b));
    printf(LINE, "commands", text);
    snprintf(text, sizeof text, "%s, in %s block rows (%.4g a batch)", number(r->batches, a), number(r->blocks, b),
             p->blocks_per_batch);
    printf(LINE, "batches", text);
    snprintf(text, sizeof text, "%s; all at once after a failure: %s", number(r->reconnects, a),
             number(r->storm_connects, b));
    printf(LINE, "devices that come", text);
    printf(LINE, "keepalives", number(r->pings, a));
    snprintf(text, sizeof text, "%s transactions (%s flushes of workers), %s of WAL", number(p->pg_writes, a),
             number(r->flushes, b), bytes(p->wal_bytes, (char[TEXT_BYTES]){0}));
    printf(LINE, "PostgreSQL writes", text);
    printf(LINE, "scripts in Redis", number(r->scripts, a));
}

static void show_parts(const struct plan *p)
{
    char a[TEXT_BYTES], b[TEXT_BYTES];

    printf("\nFleet                               processes      busy cores    µs a command          memory\n");
    for (int i = 0; i < PLAN_PARTS; i++) {
        const struct plan_size *s = &p->size[i];
        printf("  %-30s %12s %15.2f %14.3f %15s\n", part_names[i], number(s->processes, a), s->cores, s->us_per_command,
               i == PLAN_POSTGRES ? "its caches" : bytes(s->memory, b));
    }
    printf("  workers are bounded by %s (%s a device), and need %s hosts\n", bound_names[p->worker_bound],
           bytes(p->worker_bytes_per_connection, a), number(p->worker_hosts, b));
    printf("  memory in all %s; open commands %s; PostgreSQL keeps %s\n", bytes(p->memory, a),
           number(p->open_commands, b), bytes(p->disk_bytes, (char[TEXT_BYTES]){0}));
    if (p->size[PLAN_REDIS].processes > 1)
        printf("  more than one Redis master is more than this version can use: see below\n");
}

static void show_limits(const struct plan *p)
{
    double first = p->load[p->first];

    printf("\nLimits                                  used\n");
    for (int i = 0; i < PLAN_LIMITS; i++)
        printf("  %-36s %5.*f %%%s\n", limits[i].name, p->load[i] < 0.1 ? 2 : 0, p->load[i] * 100,
               p->load[i] > 1 ? "  EXCEEDED" : "");
    if (first > 1)
        printf("\nBottleneck: %s, %.3g times what may be used.\nOne installation carries %.3g of this; there the first "
               "limit is: %s.\n",
               limits[p->first].name, first, p->room, limits[p->next].name);
    else if (p->room >= PLAN_ROOM_MAX)
        printf("\nNothing is exceeded.\n");
    else
        printf("\nNothing is exceeded. First bottleneck, with %.3g times the devices and commands: %s.\n", p->room,
               limits[p->next].name);
    if (p->room < PLAN_ROOM_MAX)
        printf("  %s\n", limits[first > 1 ? p->first : p->next].advice);
}

void plan_show(const struct plan_input *in, const struct plan *p, const char *measured_on)
{
    show_assumptions(in, p, measured_on);
    show_rates(p);
    show_parts(p);
    show_limits(p);
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

static json_t *assumptions(const struct plan_input *in)
{
    return json_pack("{sf sf sf sf sf sf sf sf sf sf sf sf sf sf sf sf sf sf ss}", "devices", in->devices,
                     "commandsPerDay", in->commands_per_day, "batchSize", in->batch_size, "tenantDevices",
                     in->tenant_devices, "peakFactor", in->peak_factor, "connectedShare", in->connected_share,
                     "answerSeconds", in->answer_s, "flushSeconds", in->flush_s, "keepaliveSeconds", in->keepalive_s,
                     "reconnectsPerDay", in->reconnects_per_day, "reconnectAllSeconds", in->storm_s, "openDays",
                     in->open_days, "retentionDays", in->retention_days, "coresPerHost", in->cores_per_host,
                     "memoryPerHost", in->memory_per_host, "descriptors", in->descriptors, "commitsLimit",
                     in->commits_per_s, "walLimit", in->wal_bytes_per_s, "tlsRecords",
                     in->records == PLAN_LEAN ? "lean" : "openssl");
}

static json_t *rates(const struct plan *p)
{
    const struct plan_rates *r = &p->rates;

    return json_pack("{sf sf sf sf sf sf sf sf sf sf sf}", "commandsMean", r->commands_mean, "commands", r->commands,
                     "batches", r->batches, "blockRows", r->blocks, "flushes", r->flushes, "scripts", r->scripts,
                     "keepalives", r->pings, "reconnects", r->reconnects, "reconnectsAll", r->storm_connects,
                     "postgresWrites", p->pg_writes, "walBytes", p->wal_bytes);
}

static json_t *parts(const struct plan *p)
{
    json_t *all = json_object();

    for (int i = 0; i < PLAN_PARTS; i++) {
        const struct plan_size *s = &p->size[i];
        json_object_set_new(all, part_keys[i],
                            json_pack("{sf sf sf sf}", "processes", s->processes, "cores", s->cores, "cpuUsPerCommand",
                                      s->us_per_command, "memoryBytes", s->memory));
    }
    return all;
}

static json_t *limits_used(const struct plan *p)
{
    json_t *all = json_object();

    for (int i = 0; i < PLAN_LIMITS; i++)
        json_object_set_new(all, limits[i].key, json_real(p->load[i]));
    return all;
}

bool plan_show_json(const struct plan_input *in, const struct plan *p, const char *measured_on)
{
    json_t *all =
        json_pack("{ss so so so sf ss sf sf sf sf so sf ss}", "measuredOn", measured_on, "assumptions", assumptions(in),
                  "perSecond", rates(p), "components", parts(p), "connected", p->connected, "workersBoundedBy",
                  bound_names[p->worker_bound], "workerHosts", p->worker_hosts, "memoryBytes", p->memory, "diskBytes",
                  p->disk_bytes, "openCommands", p->open_commands, "limits", limits_used(p), "room", p->room,
                  "firstBottleneck", limits[p->load[p->first] > 1 ? p->first : p->next].key);
    char *text = all ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;

    if (text)
        printf("%s\n", text);
    free(text);
    json_decref(all);
    return text != NULL;
}
