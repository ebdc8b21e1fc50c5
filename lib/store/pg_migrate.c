#include <libpq-fe.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/pg.h"
#include "lib/store/pg_hosts.h"
#include "lib/store/schema_files.h"

/* Advisory lock of all programs that migrate: "muster" in ASCII. */
#define LOCK_KEY "120347216307570"

/* Of a connection string with several. */
#define HOSTS_TRIED 8

struct migrator {
    PGconn *c;
    char *error;
    size_t error_size;
    int applied;
};

/* Whatever failed, a connection that is gone is the reason. */
static enum err fail(struct migrator *m, enum err err, const char *what, const char *why)
{
    if (PQstatus(m->c) == CONNECTION_BAD)
        err = ERR_UNAVAILABLE;
    snprintf(m->error, m->error_size, "%s: %.*s", what, (int)strcspn(why, "\n"), why);
    return err;
}

/* Runs simple SQL, several statements too; one log line's worth of error. */
static enum err run(struct migrator *m, const char *what, const char *sql)
{
    PGresult *r = PQexec(m->c, sql);
    ExecStatusType status = PQresultStatus(r);
    PQclear(r);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return ERR_OK;
    return fail(m, ERR_INVALID, what, PQerrorMessage(m->c));
}

static void checksum(char out[crypto_hash_sha256_BYTES * 2 + 1], const struct schema_file *file)
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, (const uint8_t *)file->text, file->len);
    sodium_bin2hex(out, crypto_hash_sha256_BYTES * 2 + 1, hash, sizeof hash);
}

/* Number at the front of a migration's file name. */
static int version_of(const struct schema_file *file)
{
    return atoi(file->name);
}

static enum err insert_row(struct migrator *m, const struct schema_file *file, const char *sum)
{
    char version[16], at[24];
    const char *const values[] = {version, file->name, sum, at};
    snprintf(version, sizeof version, "%d", version_of(file));
    snprintf(at, sizeof at, "%lld", (long long)clock_wall_ms());
    PGresult *r = PQexecParams(m->c, "INSERT INTO schema_migration VALUES ($1::int, $2, $3, $4::bigint)", 4, NULL,
                               values, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(r);
    PQclear(r);
    return status == PGRES_COMMAND_OK ? ERR_OK : fail(m, ERR_INVALID, file->name, PQerrorMessage(m->c));
}

static enum err apply_file(struct migrator *m, const struct schema_file *file, const char *sum)
{
    enum err err = run(m, file->name, "BEGIN");
    if (!err)
        err = run(m, file->name, file->text);
    if (!err)
        err = insert_row(m, file, sum);
    if (!err)
        err = run(m, file->name, "COMMIT");
    if (err)
        return err;
    m->applied++;
    log_info("migration_applied", "name=%s", file->name);
    return ERR_OK;
}

/* The row of the table of applied migrations that has this version, or -1. */
static int find_row(const PGresult *rows, int version)
{
    for (int i = 0; i < PQntuples(rows); i++)
        if (atoi(PQgetvalue(rows, i, 0)) == version)
            return i;
    return -1;
}

static enum err apply_all(struct migrator *m, const PGresult *rows)
{
    int newest = 0;
    for (const struct schema_file *file = schema_migrations; file->name; file++) {
        char sum[crypto_hash_sha256_BYTES * 2 + 1];
        int row = find_row(rows, version_of(file));
        newest = version_of(file);
        checksum(sum, file);
        if (row >= 0 && strcmp(PQgetvalue(rows, row, 1), sum) != 0)
            return fail(m, ERR_INVALID, file->name, "the file has changed since it was applied");
        enum err err = row >= 0 ? ERR_OK : apply_file(m, file, sum);
        if (err)
            return err;
    }
    int rows_count = PQntuples(rows);
    if (rows_count > 0 && atoi(PQgetvalue(rows, rows_count - 1, 0)) > newest)
        return fail(m, ERR_INVALID, "database", "its schema is newer than this program");
    return ERR_OK;
}

static enum err migrate(struct migrator *m)
{
    enum err err = run(m, "lock", "SET client_min_messages = warning; SELECT pg_advisory_lock(" LOCK_KEY ")");
    if (!err)
        err = run(m, "schema_migration",
                  "CREATE TABLE IF NOT EXISTS schema_migration (version integer PRIMARY KEY, name text NOT NULL,"
                  " checksum text NOT NULL, applied_ms bigint NOT NULL)");
    if (err)
        return err;
    PGresult *rows = PQexec(m->c, "SELECT version, checksum FROM schema_migration ORDER BY version");
    if (PQresultStatus(rows) == PGRES_TUPLES_OK)
        err = apply_all(m, rows);
    else
        err = fail(m, ERR_INVALID, "schema_migration", PQerrorMessage(m->c));
    PQclear(rows);
    return err;
}

/* Begins with each host of several in turn until one takes us. */
static enum err connect_first(struct migrator *m, const char *conninfo)
{
    unsigned first = 0;
    struct pg_hosts hosts;
    bool several;
    do {
        several = pg_hosts_from(&hosts, conninfo, first);
        const char *const keywords[] = {
            "connect_timeout", "fallback_application_name", "dbname", "host", "hostaddr", "port", NULL};
        const char *const values[] = {"10", "muster-migrate", conninfo, hosts.host, hosts.hostaddr, hosts.port, NULL};
        PQfinish(m->c);
        m->c = PQconnectdbParams(keywords, values, 1);
        pg_hosts_clear(&hosts);
        if (!m->c)
            return ERR_NOMEM;
    } while (PQstatus(m->c) != CONNECTION_OK && several && ++first < HOSTS_TRIED);
    if (PQstatus(m->c) == CONNECTION_OK)
        return ERR_OK;
    return fail(m, ERR_UNAVAILABLE, "connect", PQerrorMessage(m->c));
}

enum err pg_migrate(const char *conninfo, char *error, size_t error_size, int *applied)
{
    struct migrator m = {.error = error, .error_size = error_size};
    *error = 0;
    enum err err = connect_first(&m, conninfo);
    if (!err)
        err = migrate(&m);
    PQfinish(m.c); /* ends the transaction and the lock */
    if (applied)
        *applied = m.applied;
    return err;
}

bool pg_answers(const char *conninfo)
{
    return PQping(conninfo) == PQPING_OK;
}
