#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chaos/chaos.h"
#include "lib/store/state.h"

/* One look at PostgreSQL, which is well by then. */
#define SQL_S 120
/* The fleet writes its record. */
#define RECORD_S 120

static void take_devices(void *arg, const struct pg_result *rows)
{
    struct evidence *e = arg;

    for (int i = 0; i < pg_rows(rows); i++) {
        struct known_device *d = evidence_device(e);
        d->tenant = (uint32_t)pg_int(rows, i, 0);
        d->seq = (uint32_t)pg_int(rows, i, 1);
        snprintf(d->id, sizeof d->id, "%s", pg_text(rows, i, 2));
    }
}

static void take_tenants(void *arg, const struct pg_result *rows)
{
    struct chaos *c = arg;

    for (int i = 0; i < pg_rows(rows); i++)
        for (int t = 0; t < CHAOS_TENANTS; t++)
            if (strcmp(pg_text(rows, i, 1), chaos_prefix(t)) == 0)
                c->tenants[t] = c->evidence.tenants[t] = (uint32_t)pg_int(rows, i, 0);
}

static void take_batches(void *arg, const struct pg_result *rows)
{
    struct evidence *e = arg;

    for (int i = 0; i < pg_rows(rows); i++) {
        struct stored_batch *b = evidence_batch(e);
        b->id = (uint64_t)pg_int(rows, i, 0);
        b->tenant = (uint32_t)pg_int(rows, i, 1);
        snprintf(b->request, sizeof b->request, "%s", pg_text(rows, i, 2));
        b->devices = (uint32_t)pg_int(rows, i, 3);
        b->expires_ms = pg_int(rows, i, 4);
        b->canceled_ms = pg_int(rows, i, 5);
        b->closed_ms = pg_int(rows, i, 6);
    }
}

static uint8_t state_named(const char *name)
{
    for (int s = 0; s < STATE_COUNT; s++)
        if (strcmp(name, state_name((enum command_state)s)) == 0)
            return (uint8_t)s;
    return STATE_NONE;
}

static void take_commands(void *arg, const struct pg_result *rows)
{
    struct evidence *e = arg;

    for (int i = 0; i < pg_rows(rows); i++) {
        struct told_command *t = evidence_command(e);
        t->batch = (uint64_t)pg_int(rows, i, 0);
        t->tenant = (uint32_t)pg_int(rows, i, 1);
        t->seq = (uint32_t)pg_int(rows, i, 2);
        t->stored = state_named(pg_text(rows, i, 3));
    }
}

/* The function that people use, so that it is proven too; one batch at a time, for a statement's rows are held at once.
 */
static bool gather_commands(struct chaos *c)
{
    static const struct pg_stmt stmt = {
        "chaos_commands",
        "SELECT k.batch_id, b.tenant_id, k.seq, k.state FROM batch b, commands(b.id) k WHERE b.id = $1::bigint"};

    for (size_t i = 0; i < c->evidence.batch_count; i++)
        if (!chaos_sql_int8(c, &stmt, (int64_t)c->evidence.batches[i].id, SQL_S, take_commands, &c->evidence))
            return false;
    return true;
}

static bool gather_sql(struct chaos *c)
{
    static const struct pg_stmt tenants = {"chaos_tenants", "SELECT id, name FROM tenant"},
                                devices = {"chaos_devices", "SELECT tenant_id, seq, id FROM device"},
                                batches = {"chaos_batches",
                                           "SELECT id, tenant_id, request_id, device_count, expires_ms, canceled_ms, "
                                           "closed_ms FROM batch WHERE id > $1::bigint ORDER BY id"};
    struct evidence *e = &c->evidence;

    return chaos_sql(c, &tenants, SQL_S, take_tenants, c) && chaos_sql(c, &devices, SQL_S, take_devices, e) &&
           chaos_sql_int8(c, &batches, (int64_t)c->judged_batch, SQL_S, take_batches, e) && gather_commands(c);
}

static bool is_recorded(void *arg)
{
    return ((const struct chaos *)arg)->recorded;
}

static bool gather_record(struct chaos *c)
{
    char judged[DEV_PATH_BYTES];

    c->recorded = false;
    kill(c->dev.fleet.pid, SIGUSR1);
    if (!dev_process_wait_up(&c->dev.fleet, is_recorded, c, RECORD_S) ||
        !evidence_read_record(&c->evidence, c->record) || !dev_path(judged, c->dev.data, "record-judged"))
        return false;
    return rename(c->record, judged) == 0; /* the fleet writes another when it ends */
}

static bool gather_journals(struct chaos *c, unsigned round)
{
    char path[DEV_PATH_BYTES], name[32];

    for (int i = 0; i < CHAOS_TENANTS; i++) {
        snprintf(name, sizeof name, "journal-%d-%u", i, round);
        if (!dev_path(path, c->dev.data, name) || !evidence_read_journal(&c->evidence, path, i))
            return false;
    }
    return true;
}

/* Journals of a good round are of no use any more; nor is what was gathered. */
static void forget(struct chaos *c, unsigned round)
{
    char path[DEV_PATH_BYTES], name[32];

    for (int i = 0; verdict_is_good(&c->verdict) && i < CHAOS_TENANTS; i++) {
        snprintf(name, sizeof name, "journal-%d-%u", i, round);
        if (dev_path(path, c->dev.data, name))
            remove(path);
    }
    if (c->evidence.batch_count)
        c->judged_batch = c->evidence.batches[c->evidence.batch_count - 1].id;
    evidence_free(&c->evidence);
    c->evidence.first_batch = c->judged_batch + 1;
}

bool chaos_judge(struct chaos *c, unsigned round)
{
    struct verdict v = {0};

    if (!gather_journals(c, round) || !gather_sql(c) || !gather_record(c))
        return false;
    evidence_sort(&c->evidence);
    if (!chaos_gather_rpc(c) || !chaos_look_at_redis(c))
        return false;
    verdict_judge(&c->evidence, &v);
    verdict_add(&c->verdict, &v);
    chaos_say(c,
              "judged %" PRIu64 " batches, %" PRIu64 " commands, %" PRIu64 " executed, %" PRIu64
              " received again; everybody's word agrees: %s",
              v.batches, v.commands, v.executed, v.repeated, verdict_is_good(&v) ? "yes" : "NO");
    forget(c, round);
    return true;
}
