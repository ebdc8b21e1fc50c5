/* One call being handled: the one shape of all handlers.
 * Owns: struct request. May call: lib/store, lib/base. Loop rule: non-blocking.
 *
 * A handler's state is a struct that begins with a struct request. It is made by request_begin when the message comes,
 * goes from step to step with request_query, and ends with exactly one of request_reply, request_done, request_fail and
 * request_refuse, which free it. Errors of PostgreSQL end it without a word of the handler's: what is not in the arena
 * is freed by `release`. */
#ifndef MUSTER_DISPATCHER_REQUEST_H
#define MUSTER_DISPATCHER_REQUEST_H

#include "dispatcher/auth.h"
#include "dispatcher/dispatcher.h"
#include "lib/base/arena.h"
#include "lib/base/grpc_server.h"
#include "lib/store/pg.h"

struct request;
/* `results` has one entry per statement; borrowed for the call. */
typedef void request_next_fn(struct request *r, const struct pg_result *const *results);

struct request {
    enum call_data_kind kind; /* CALL_REQUEST */
    struct dispatcher *d;
    struct grpc_call *call;
    const struct caller *caller;
    int32_t tenant;     /* the caller's */
    struct arena arena; /* memory that lives as long as the request */
    /* NULL, or what frees the handler's memory that is not in the arena: called once, however the request ends. */
    void (*release)(struct request *r);
    struct share share;
    request_next_fn *next;
    bool named;           /* the transaction begins with a statement of its own: who calls */
    uint32_t registering; /* devices that it would register: what is told of it when a quota refuses them */
};

/* Requests being handled, and bytes of their messages, decoded; beyond, tenants with an equal share or more are turned
 * away. What waits for PostgreSQL is among them: its queue takes 10,000 transactions. */
#define REQUESTS_MAX       4096
#define REQUESTS_BYTES_MAX (512u * 1024 * 1024)
/* When a tenant's requests take longer than this, they are not to become more than so many. */
#define REQUESTS_PATIENCE_US 3000000
#define REQUESTS_SPARE       256
/* Watches, exports, imports: each holds its own little buffer. */
#define STREAMS_MAX 16384
/* What each is charged beside its message. */
#define REQUEST_COST 4096

/* Makes d->calls and d->streams. */
void request_limits(struct dispatcher *d);
/* Returns the request of this call, made with `size` bytes (zeroed) when it is the first time; NULL when it could not
 * be made or is turned away: the call is finished then. */
void *request_begin(struct grpc_call *call, void *service, size_t size);
/* A transaction for request_query, and for that alone; may be NULL, which all takers take. What it notes in the audit
 * bears the caller's address. */
struct pg_txn *request_txn(struct request *r);
/* Takes txn, and goes on in `next` when it is committed. One at a time. */
void request_query(struct request *r, struct pg_txn *txn, request_next_fn *next);

void request_reply(struct request *r, const ProtobufCMessage *response);
/* The same with a message that is encoded already; OVERLOADED when making it has failed. Borrows. */
void request_reply_bytes(struct request *r, const struct buf *message);
/* OK without (another) message. */
void request_done(struct request *r);
/* `st` may stand in the handler's state. */
void request_fail(struct request *r, const struct status *st);
void request_refuse(struct request *r, enum status_code code, const char *reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* request_fail with what a failed store means to the caller. */
void request_store_failed(struct request *r, enum err err, const struct pg_error *error);
/* Too much of this tenant's is under way: RESOURCE_EXHAUSTED with a time to come again. */
void request_overload_status(struct status *st);
/* What a failed store means, as a status: away → UNAVAILABLE with the reason STORE_UNAVAILABLE, full → OVERLOADED.
 * `error` may be NULL.
 */
void request_store_status(struct status *st, enum err err, const struct pg_error *error);

/* Zeroed memory of the request for `n` things; NULL (and arena.failed) without memory. */
void *request_alloc(struct request *r, size_t n, size_t size);

#endif
