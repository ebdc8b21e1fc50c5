/* Structs shared by the files of lib/store/pg*.c; nobody else includes this.
 * Owns: the layout of transactions, connections and the pool. May call: as pg.h. Loop rule: as pg.h.
 *
 * A transaction's state is the list it stands in: none (the caller builds it), conn->waiting (not sent yet),
 * conn->under_way (sent, results not complete), pg->failed (its callback comes with the next turn). */
#ifndef MUSTER_STORE_PG_INTERNAL_H
#define MUSTER_STORE_PG_INTERNAL_H

#include <libpq-fe.h>

#include "lib/base/list.h"
#include "lib/store/pg.h"

struct pg_param {
    size_t offset; /* into txn->data */
    int len;       /* -1: NULL */
};

struct pg_call {
    const struct pg_stmt *stmt;
    int first, count; /* of txn->params */
};

struct pg_prepared;

struct pg_txn {
    struct list link;
    struct pg *pg;
    int lane;
    struct buf data; /* values of all parameters */
    struct pg_param *params;
    int param_count, param_cap;
    struct pg_call *calls;
    int call_count, call_cap;
    bool failed; /* ran out of memory while being built */
    pg_done_fn *done;
    void *arg;
    double submitted; /* loop time, seconds */
    /* once under way */
    const struct pg_stmt *prepares; /* not NULL: not a caller's, but the preparation of this statement */
    PGresult **results;             /* one per call, as they come */
    int result_count;
    PGresult *error; /* the first failure */
    enum err err;
};

enum pg_prepared_state { PG_PREPARED, PG_REFUSED };

/* A statement's name on one connection. From the moment its preparation is sent it counts as prepared, since what is
 * sent behind it comes after it; when the server refuses it, it is forgotten, and its error kept for those behind. */
struct pg_prepared {
    const struct pg_stmt *stmt;
    enum pg_prepared_state state;
    char sqlstate[6];
    char *message; /* owned; of a refusal */
};

enum pg_conn_state { PG_DOWN, PG_CONNECTING, PG_UP };

struct pg_conn {
    struct pg *pg;
    PGconn *c;
    enum pg_conn_state state;
    ev_io io;
    ev_timer timer; /* next attempt when down, limit of the attempt when connecting */
    struct list waiting, under_way;
    int load; /* transactions in both lists */
    double down_since, backoff, heard;
    unsigned first_host; /* of a connection string with several: where the next attempt begins */
    bool write_wanted, recycle;
    struct pg_prepared *prepared;
    int prepared_count, prepared_cap;
    const char **values; /* scratch for one call's parameters */
    int *lengths, *formats;
    int scratch_cap;
};

struct pg {
    struct ev_loop *loop;
    char *conninfo, *options, *application;
    struct pg_conn *conns;
    int conn_count, up_count, queue_max, queued;
    double stuck_after; /* seconds without a word from the server while it owes one */
    struct list failed;
    ev_timer soon; /* delivers `failed` */
    ev_timer tick; /* looks for what waits too long; runs while something is queued */
    void (*change)(void *arg, bool up);
    void *change_arg;
    int depth; /* callbacks on the stack */
    bool dead; /* freed inside one */
};

/* pg_txn.c: frees what a transaction holds, itself included. */
void pg_txn_destroy(struct pg_txn *txn);
/* pg.c: ends a transaction that stands in no list: calls its callback and frees it. */
void pg_finish(struct pg *pg, struct pg_txn *txn, enum err err);
/* pg.c: the same with the next turn. */
void pg_fail_soon(struct pg *pg, struct pg_txn *txn, enum err err);
/* pg.c: tells the owner when pg_up has changed. */
void pg_count_up(struct pg *pg, int delta);

/* pg_conn.c */
void pg_conn_init(struct pg_conn *conn, struct pg *pg);
void pg_conn_start(struct pg_conn *conn);
/* Sends what waits. */
void pg_conn_send(struct pg_conn *conn);
/* Closes; what was under way ends with ERR_UNAVAILABLE, what waits goes on waiting for the next connection. */
void pg_conn_lost(struct pg_conn *conn, const char *why);
/* Closes for good and frees; all lists must be empty. */
void pg_conn_close(struct pg_conn *conn);

/* Enter before and leave after anything that may call back: leave frees a pool that was freed meanwhile, and says so.
 */
static inline void pg_enter(struct pg *pg)
{
    pg->depth++;
}
bool pg_leave(struct pg *pg);

#endif
