/* The first tenant and its admin key, straight in PostgreSQL: before there is a key nobody can ask for one over gRPC.
 * Owns: nothing. May call: libpq, lib/store/api_key. Loop rule: blocks; for tools only. */
#ifndef MUSTER_STORE_DB_BOOTSTRAP_H
#define MUSTER_STORE_DB_BOOTSTRAP_H

#include "lib/base/err.h"
#include "lib/store/api_key.h"

/* Makes the tenant `name` unless there is one, and a key of the role admin for it; both are audited. `key` gets the
 * key's text. Returns ERR_OK; ERR_INVALID when the name is no name or the schema is missing; ERR_UNAVAILABLE when it
 * can't connect; the latter two with one line in `error`. */
MUST_CHECK enum err db_bootstrap(const char *conninfo, const char *name, const char *description,
                                 char key[API_KEY_TEXT_MAX], char *error, size_t error_size);

#endif
