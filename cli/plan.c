/* muster plan: how large an installation a fleet needs, by the capacity model. Speaks to no server. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/plan_model.h"
#include "cli/plan_show.h"

#define GIB          (1024.0 * 1024 * 1024)
#define DAY_MS       86400000
#define DEVICES_MAX  1000000000000 /* whatever is larger is a typing error */
#define COMMANDS_MAX 1000000000000000
#define TENANT_MAX   2147483647 /* seq is an int32 */

struct plan_options {
    int64_t devices, commands, batch, tenant, cores, memory, descriptors, reconnects, commits, wal_mb, workers;
    int64_t answer_ms, flush_ms, keepalive_ms, storm_ms, open_ms, keep_ms;
    const char *peak, *share, *records;
};

static double decimal(const struct invocation *inv, const char *flag, const char *text, double min, double max)
{
    char *end;

    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end || errno || !(v >= min && v <= max))
        args_refuse(inv, "--%s: \"%s\" is not a number from %g to %g", flag, text, min, max);
    return v;
}

static enum plan_records records(const struct invocation *inv, const char *text)
{
    if (strcmp(text, "openssl") == 0)
        return PLAN_OPENSSL;
    if (strcmp(text, "lean") != 0)
        args_refuse(inv, "--tls-records %s: is none of openssl, lean", text);
    return PLAN_LEAN;
}

static struct plan_input take(const struct invocation *inv, const struct plan_options *o)
{
    if (o->devices < 0 || o->commands < 0)
        args_refuse(inv, "needs --devices and --commands-per-day (%s --help says more)", inv->command);
    return (struct plan_input){
        .devices = (double)o->devices,
        .commands_per_day = (double)o->commands,
        .batch_size = (double)o->batch,
        .tenant_devices = (double)o->tenant,
        .peak_factor = decimal(inv, "peak-factor", o->peak, 1, 1e6),
        .connected_share = decimal(inv, "connected-share", o->share, 0, 1),
        .answer_s = (double)o->answer_ms / 1e3,
        .flush_s = (double)o->flush_ms / 1e3,
        .keepalive_s = (double)o->keepalive_ms / 1e3,
        .reconnects_per_day = (double)o->reconnects,
        .storm_s = (double)o->storm_ms / 1e3,
        .open_days = (double)o->open_ms / DAY_MS,
        .retention_days = (double)o->keep_ms / DAY_MS,
        .cores_per_host = (double)o->cores,
        .memory_per_host = (double)o->memory * GIB,
        .descriptors = (double)o->descriptors,
        .commits_per_s = o->commits ? (double)o->commits : plan_figures.pg_commits_per_s,
        .wal_bytes_per_s = (double)o->wal_mb * 1e6,
        .workers = (double)o->workers,
        .records = records(inv, o->records),
    };
}

static int show(const struct invocation *inv, const struct plan_options *o)
{
    struct plan_input in = take(inv, o);
    struct plan plan;
    const char *fault = plan_input_fault(&in);

    if (fault)
        args_refuse(inv, "%s", fault);
    plan_make(&in, &plan_figures, &plan);
    if (!inv->common.json)
        plan_show(&in, &plan, plan_measured_on);
    else if (!plan_show_json(&in, &plan, plan_measured_on))
        return EXIT_NOT_ALL;
    return EXIT_DONE;
}

int plan_run(struct invocation *inv)
{
    struct plan_options o = {.devices = -1,
                             .commands = -1,
                             .batch = 1000,
                             .tenant = 100000,
                             .cores = 16,
                             .memory = 64,
                             .descriptors = 20000,
                             .reconnects = 4,
                             .wal_mb = 100,
                             .answer_ms = 2000,
                             .flush_ms = 5,
                             .keepalive_ms = 300000,
                             .storm_ms = 600000,
                             .open_ms = 7ll * DAY_MS,
                             .keep_ms = 30ll * DAY_MS,
                             .peak = "10",
                             .share = "0.5",
                             .records = "openssl"};
    const struct arg_flag flags[] = {
        {"devices", ARG_INT, &o.devices, "N", "registered devices", 0, DEVICES_MAX},
        {"commands-per-day", ARG_INT, &o.commands, "M", "to all devices together", 0, COMMANDS_MAX},
        {"batch-size", ARG_INT, &o.batch, "N", "devices of a batch (default 1000)", 1, DEVICES_MAX},
        {"tenant-devices", ARG_INT, &o.tenant, "N", "devices of a tenant (default 100000)", 1, TENANT_MAX},
        {"peak-factor", ARG_TEXT, &o.peak, "X", "commands in the busiest second over the mean (default 10)", 0, 0},
        {"connected-share", ARG_TEXT, &o.share, "X", "of the devices, 0 to 1 (default 0.5)", 0, 0},
        {"answer-time", ARG_DURATION, &o.answer_ms, "TIME", "within which a batch's devices answer (default 2s)", 1,
         DAY_MS},
        {"flush-interval", ARG_DURATION, &o.flush_ms, "TIME", "of the workers (default 5ms)", 1, 10000},
        {"tls-records", ARG_TEXT, &o.records, "KIND", "openssl (default) or lean", 0, 0},
        {"keepalive", ARG_DURATION, &o.keepalive_ms, "TIME", "of the devices (default 300s)", 1000, 65535000},
        {"reconnects-per-day", ARG_INT, &o.reconnects, "N", "of a device (default 4)", 0, 100000},
        {"reconnect-all", ARG_DURATION, &o.storm_ms, "TIME", "the whole fleet is to be back within (default 10m)", 1000,
         DAY_MS},
        {"open-for", ARG_DURATION, &o.open_ms, "TIME", "until a batch's last device has answered (default 7d)", 0,
         40ll * DAY_MS},
        {"keep-for", ARG_DURATION, &o.keep_ms, "TIME", "how long outcomes stay in PostgreSQL (default 30d)", 0,
         36500ll * DAY_MS},
        {"cores-per-host", ARG_INT, &o.cores, "N", "(default 16)", 1, 4096},
        {"memory-per-host", ARG_INT, &o.memory, "GIB", "(default 64)", 1, 1000000},
        {"descriptors", ARG_INT, &o.descriptors, "N", "a worker may open (default 20000)", 64, 1000000000},
        {"commits-limit", ARG_INT, &o.commits, "N", "PostgreSQL's durable transactions a second (default: measured)", 1,
         1000000000},
        {"wal-limit", ARG_INT, &o.wal_mb, "MB", "WAL a second its disk bears, 10^6 bytes (default 100)", 1, 1000000},
        {"workers", ARG_INT, &o.workers, "N", "so many, not as many as are needed", 1, 1000000000},
        {0},
    };
    struct args a = {.positional = "",
                     .flags = flags,
                     .notes = "Foretells from costs that were measured (bench/model.json). It speaks to no server and "
                              "knows nothing of\nyour network, your disks or your hosts but what the flags say."};

    args_parse(inv, &a);
    return show(inv, &o);
}
