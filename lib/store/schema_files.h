/* The files of schema/, built into every program: migrations and Redis scripts need no installed files.
 * Owns: nothing; the arrays are made from the .sql of schema/postgres and the .lua of schema/redis by schema/embed.py
 * at build time. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_STORE_SCHEMA_FILES_H
#define MUSTER_STORE_SCHEMA_FILES_H

#include <stddef.h>

struct schema_file {
    const char *name; /* without folder, such as "001_core.sql" */
    const char *text; /* ends with a NUL that `len` does not count */
    size_t len;
};

/* Sorted by name; each ends with a NULL name. */
extern const struct schema_file schema_migrations[];
extern const struct schema_file schema_scripts[];

#endif
