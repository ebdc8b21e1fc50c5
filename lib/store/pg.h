/* PostgreSQL, asynchronous: a pool of pipelined connections (libpq pipeline mode) on the loop.
 * Owns: struct pg, struct pg_txn, connections, prepared statements. May call: lib/base, libpq. Knows no table:
 * statements are in the lib/store files of their subject. Loop rule: non-blocking, except pg_once_* which is for
 * start-up and tools.
 *
 * A transaction is a list of statements sent in one go with one Sync: they all commit or none does. Transactions of one
 * `lane` go over one connection in the order submitted and commit in that order. Results and parameters are binary. */
#ifndef MUSTER_STORE_PG_H
#define MUSTER_STORE_PG_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct pg;
struct pg_txn;

struct pg_options {
    const char *conninfo;     /* libpq connection string or URI; borrowed while pg_new runs */
    int connections;          /* size of the pool; lane n uses connection n % connections. 0: 4 */
    int queue_max;            /* transactions waiting or under way, beyond: ERR_LIMIT. 0: 10,000 */
    int statement_timeout_ms; /* 0: 30,000 */
    const char *application;  /* application_name, such as "muster-worker" */
};

/* Connects in the background, again after a loss with backoff 50 ms … 2 s. Returns owned, or NULL without memory. */
struct pg *pg_new(struct ev_loop *loop, const struct pg_options *options);
/* Open transactions end with ERR_CLOSED. */
void pg_free(struct pg **pg);
/* Whether at least one connection is up. */
bool pg_up(const struct pg *pg);
/* Called when pg_up changes. */
void pg_on_change(struct pg *pg, void (*fn)(void *arg, bool up), void *arg);

/* A statement, static and const: prepared once per connection under its name at first use. Placeholders $1 …; cast them
 * ("$1::bigint") so that their type is the parameter function's type. */
struct pg_stmt {
    const char *name;
    const char *sql;
};

#define PG_ANY_LANE (-1) /* whichever connection has the least to do */

/* Returns owned; NULL without memory (pg_txn_submit takes NULL and answers ERR_NOMEM by the callback). */
struct pg_txn *pg_txn_new(struct pg *pg, int lane);
void pg_txn_free(struct pg_txn **txn);
/* Begins the next statement; parameters follow in order. All copy. */
void pg_txn_add(struct pg_txn *txn, const struct pg_stmt *stmt);
void pg_put_null(struct pg_txn *txn);
void pg_put_int2(struct pg_txn *txn, int16_t v);
void pg_put_int4(struct pg_txn *txn, int32_t v);
void pg_put_int8(struct pg_txn *txn, int64_t v);
void pg_put_bool(struct pg_txn *txn, bool v);
void pg_put_text(struct pg_txn *txn, const char *s);
void pg_put_bytea(struct pg_txn *txn, const void *data, size_t n);
void pg_put_int2_array(struct pg_txn *txn, const int16_t *v, size_t n);
void pg_put_int4_array(struct pg_txn *txn, const int32_t *v, size_t n);
void pg_put_int8_array(struct pg_txn *txn, const int64_t *v, size_t n);
void pg_put_text_array(struct pg_txn *txn, const char *const *v, size_t n);
void pg_put_bytea_array(struct pg_txn *txn, const struct slice *v, size_t n);

/* What the server said: SQLSTATE (5 characters) and its message; both "" when it was no server error. Valid in the
 * callback. */
struct pg_error {
    char sqlstate[6];
    const char *message;
};
struct pg_result; /* rows of one statement; borrowed, valid in the callback */
/* `err`: ERR_OK committed; ERR_UNAVAILABLE the connection is away or was lost before the outcome was known (it may
 * have committed: repeat idempotently); ERR_INVALID the server refused it, see `error`; ERR_TIMEOUT; ERR_LIMIT;
 * ERR_NOMEM; ERR_CLOSED. `results` has one entry per statement when ERR_OK, else NULL. */
typedef void pg_done_fn(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count);
/* Takes txn. The callback comes from the loop, never from inside this call, exactly once. */
void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg);

int pg_rows(const struct pg_result *r);
bool pg_null(const struct pg_result *r, int row, int col);
/* Integers of 2, 4 or 8 bytes; 0 for NULL. */
int64_t pg_int(const struct pg_result *r, int row, int col);
bool pg_bool(const struct pg_result *r, int row, int col);
/* Text or bytea, borrowed; text is NUL-terminated behind its length. Empty for NULL. */
struct slice pg_bytes(const struct pg_result *r, int row, int col);
const char *pg_text(const struct pg_result *r, int row, int col);
/* Elements of an int4[] or int8[]: fills at most `max`, returns how many there are. */
size_t pg_int_array(const struct pg_result *r, int row, int col, int64_t *out, size_t max);
/* Calls `each` for every element of a text[] or bytea[]. */
void pg_bytes_array(const struct pg_result *r, int row, int col, void (*each)(void *arg, struct slice element),
                    void *arg);

/* Applies the migrations of schema/postgres that are not applied yet, in order, each in a transaction, under an
 * advisory lock; blocks. Also refuses a database newer than this program. Logs each; on failure one line in `error`.
 * Returns ERR_OK; ERR_UNAVAILABLE when it can't connect; ERR_INVALID when a migration fails or the database is newer.
 */
MUST_CHECK enum err pg_migrate(const char *conninfo, char *error, size_t error_size, int *applied);

/* Whether a server answers there and takes connections (PQping); blocks, for start-up and tools. */
bool pg_answers(const char *conninfo);

#endif
