#include "lib/store/db_bootstrap.h"

#include <libpq-fe.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

#define NAME_MAX_BYTES 128

/* One statement: all or nothing. The hash comes as hex. */
static const char SQL[] =
    "WITH made AS (INSERT INTO tenant (name, created_ms) VALUES ($1, $2::bigint) ON CONFLICT (name) DO NOTHING"
    " RETURNING id),"
    " t AS (SELECT id FROM made UNION ALL SELECT id FROM tenant WHERE name = $1 LIMIT 1),"
    " k AS (INSERT INTO api_key (tenant_id, role, secret_hash, description, created_ms)"
    " SELECT t.id, 1, decode($3, 'hex'), $4, $2::bigint FROM t RETURNING id, tenant_id),"
    " a AS (INSERT INTO audit (at_ms, tenant_id, action, detail)"
    " SELECT $2::bigint, k.tenant_id, 'bootstrap', k.id::text FROM k)"
    " SELECT id FROM k";

static bool is_name(const char *s)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(s);

    return len >= 1 && len <= NAME_MAX_BYTES && strspn(s, allowed) == len;
}

static enum err insert(PGconn *c, const char *name, const char *description, char key[API_KEY_TEXT_MAX], char *error,
                       size_t error_size)
{
    uint8_t secret[API_KEY_SECRET_BYTES], hash[API_KEY_HASH_BYTES];
    char hex[API_KEY_HASH_BYTES * 2 + 1], now[24];

    api_key_make(secret);
    api_key_hash(hash, secret);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    snprintf(now, sizeof now, "%lld", (long long)clock_wall_ms());
    const char *const values[] = {name, now, hex, description};
    PGresult *r = PQexecParams(c, SQL, 4, NULL, values, NULL, NULL, 0);
    enum err err = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 1 ? ERR_OK : ERR_INVALID;
    if (!err)
        api_key_write(key, strtoll(PQgetvalue(r, 0, 0), NULL, 10), secret);
    else
        snprintf(error, error_size, "%.*s", (int)strcspn(PQerrorMessage(c), "\n"), PQerrorMessage(c));
    sodium_memzero(secret, sizeof secret);
    PQclear(r);
    return err;
}

enum err db_bootstrap(const char *conninfo, const char *name, const char *description, char key[API_KEY_TEXT_MAX],
                      char *error, size_t error_size)
{
    if (!is_name(name)) {
        snprintf(error, error_size, "\"%.64s\" is no tenant name: 1 to %d of A-Z a-z 0-9 . _ -", name, NAME_MAX_BYTES);
        return ERR_INVALID;
    }
    if (sodium_init() < 0) {
        snprintf(error, error_size, "no source of random numbers");
        return ERR_IO;
    }
    PGconn *c = PQconnectdb(conninfo);
    enum err err;
    if (PQstatus(c) == CONNECTION_OK) {
        err = insert(c, name, description, key, error, error_size);
    } else {
        snprintf(error, error_size, "%.*s", (int)strcspn(PQerrorMessage(c), "\n"), PQerrorMessage(c));
        err = ERR_UNAVAILABLE;
    }
    PQfinish(c);
    return err;
}
