/* Structs shared by the files of lib/store/redis*.c; nobody else includes this.
 * Owns: the layout of the connection. May call: as redis.h. Loop rule: as redis.h. */
#ifndef MUSTER_STORE_REDIS_INTERNAL_H
#define MUSTER_STORE_REDIS_INTERNAL_H

#include "lib/store/redis.h"

#define SCRIPT_HASH 40 /* SHA-1 in hex */

struct redis_address {
    char *host; /* NULL for a unix socket */
    char *path;
    int port, db;
    char *user, *password; /* NULL for none */
};
/* False, with a line in the log, when `url` is none. */
MUST_CHECK bool redis_address_parse(struct redis_address *a, const char *url);
void redis_address_free(struct redis_address *a);

struct redis_script {
    const char *name; /* borrowed; without ".lua" */
    size_t name_len;
    struct buf text; /* what comes before all scripts, then the file */
    char hash[SCRIPT_HASH + 1];
    bool loading; /* a SCRIPT LOAD is under way */
};
struct redis_scripts {
    struct redis_script *v;
    int count;
};
/* Makes the texts of schema/redis and their hashes. */
MUST_CHECK bool redis_scripts_make(struct redis_scripts *s);
void redis_scripts_free(struct redis_scripts *s);
struct redis_script *redis_scripts_find(const struct redis_scripts *s, const char *name);

/* Appends a command as an array of bulk strings (RESP2). */
void redis_put_command(struct buf *out, int argc, const struct slice *argv);

#endif
