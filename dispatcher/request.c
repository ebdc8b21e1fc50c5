#include "dispatcher/request.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/quota.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_audit.h"
#include "lib/store/db_label.h"
#include "muster/v1/admin_service.pb-c.h"

#define RETRY_MS 1000

void request_limits(struct dispatcher *d)
{
    shares_init(&d->calls,
                &(struct shares_limits){REQUESTS_MAX, REQUESTS_BYTES_MAX, REQUESTS_PATIENCE_US, REQUESTS_SPARE});
    shares_init(&d->streams, &(struct shares_limits){STREAMS_MAX, REQUESTS_BYTES_MAX, INT64_MAX, 0});
}

void request_overload_status(struct status *st)
{
    status_set(st, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "too many requests of this tenant are waiting");
    st->retry_ms = RETRY_MS;
}

static struct shares *shares_of(const struct request *r)
{
    const struct grpc_method *m = grpc_call_method(r->call);
    return m->client_streaming || m->server_streaming ? &r->d->streams : &r->d->calls;
}

static void count(struct request *r)
{
    r->d->figures.requests = r->d->calls.count;
}

/* False when it is turned away. */
static bool take_share(struct request *r)
{
    struct shares *shares = shares_of(r);
    size_t cost = REQUEST_COST + grpc_call_request_bytes(r->call);
    int64_t now_us = clock_mono_us();
    if (!shares_may(shares, (uint32_t)r->tenant, cost, now_us) ||
        !shares_add(shares, &r->share, (uint32_t)r->tenant, cost, now_us))
        return false;
    count(r);
    return true;
}

void *request_begin(struct grpc_call *call, void *service, size_t size)
{
    const struct caller *caller = grpc_call_data(call);
    struct status st = {0};
    if (caller->kind == CALL_REQUEST)
        return grpc_call_data(call);
    struct request *r = calloc(1, size);
    if (!r) {
        grpc_call_finish(call, status_set(&st, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory"));
        return NULL;
    }
    r->kind = CALL_REQUEST;
    r->d = service;
    r->call = call;
    r->caller = caller;
    r->tenant = caller->tenant;
    if (!take_share(r)) {
        free(r);
        ((struct dispatcher *)service)->figures.requests_shed++;
        request_overload_status(&st);
        grpc_call_finish(call, &st);
        return NULL;
    }
    grpc_call_set_data(call, r);
    return r;
}

/* Readers leave nothing in the audit. */
struct pg_txn *request_txn(struct request *r)
{
    struct pg_txn *txn = pg_txn_new(r->d->pg, PG_ANY_LANE);
    r->named = txn && grpc_call_method(r->call)->tag != MUSTER__V1__ROLE__ROLE_READ_ONLY;
    if (r->named)
        db_audit_caller(txn, grpc_call_peer(r->call));
    return txn;
}

static void on_results(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    (void)count;
    struct request *r = arg;
    if (err == ERR_OK)
        r->next(r, results + (r->named ? 1 : 0));
    else
        request_store_failed(r, err, error);
}

void request_query(struct request *r, struct pg_txn *txn, request_next_fn *next)
{
    if (!txn) {
        request_store_failed(r, ERR_NOMEM, NULL);
        return;
    }
    r->next = next;
    pg_txn_submit(txn, on_results, r);
}

static void finish(struct request *r, const struct status *st)
{
    struct grpc_call *call = r->call;
    shares_remove(shares_of(r), &r->share);
    count(r);
    grpc_call_set_data(call, NULL);
    grpc_call_finish(call, st); /* before what `st` may stand in is freed */
    if (r->release)
        r->release(r);
    arena_free(&r->arena);
    free(r);
}

void request_reply(struct request *r, const ProtobufCMessage *response)
{
    if (r->arena.failed) {
        request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
        return;
    }
    grpc_call_send(r->call, response);
    finish(r, NULL);
}

void request_reply_bytes(struct request *r, const struct buf *message)
{
    if (message->failed) {
        request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
        return;
    }
    grpc_call_send_bytes(r->call, buf_slice(message));
    finish(r, NULL);
}

void request_done(struct request *r)
{
    finish(r, NULL);
}

void request_fail(struct request *r, const struct status *st)
{
    finish(r, st);
}

void request_refuse(struct request *r, enum status_code code, const char *reason, const char *fmt, ...)
{
    char text[STATUS_MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct status st = {0};
    request_fail(r, status_set(&st, code, reason, "%s", text));
}

/* Classes of SQLSTATE (PostgreSQL, appendix A) that pass: connection, resources, intervention, read-only, conflicts. */
static bool passes(const char *sqlstate)
{
    return !strncmp(sqlstate, "08", 2) || !strncmp(sqlstate, "53", 2) || !strncmp(sqlstate, "57", 2) ||
           !strncmp(sqlstate, "40", 2) || !strcmp(sqlstate, "25006") || !strcmp(sqlstate, "55P03");
}

static bool beyond_quota(enum err err, const struct pg_error *error)
{
    return err == ERR_INVALID && error && !strcmp(error->sqlstate, DB_QUOTA_DEVICES_STATE);
}

void request_store_status(struct status *st, enum err err, const struct pg_error *error)
{
    bool refused = err == ERR_INVALID && error;
    if (err == ERR_LIMIT || err == ERR_NOMEM) {
        status_set(st, STATUS_UNAVAILABLE, "OVERLOADED", "too much is under way");
        st->retry_ms = RETRY_MS;
    } else if (refused && (!strcmp(error->sqlstate, "22021") || !strcmp(error->sqlstate, "22P05"))) {
        status_set(st, STATUS_INVALID_ARGUMENT, "INVALID_FIELD", "a text of the request can't be stored");
    } else if (refused && !strcmp(error->sqlstate, DB_LABEL_LIMIT)) {
        status_set(st, STATUS_FAILED_PRECONDITION, "TOO_MANY_ATTRIBUTES",
                   "the tenant's devices would have more than %d different names of attributes",
                   DB_ATTRIBUTE_NAMES_MAX);
    } else if (refused && !strcmp(error->sqlstate, DB_LABEL_ZONE)) {
        status_violation(st, "devices.attributes.time_zone", "%s is no time zone", error->message);
    } else if (beyond_quota(err, error)) {
        quota_devices_status(st, error->message);
    } else if (refused && !passes(error->sqlstate)) {
        log_error("store_refused", "sqlstate=%s message=%s", error->sqlstate, log_quote(error->message));
        status_set(st, STATUS_INTERNAL, "STORE_REFUSED", "the store refused the request");
    } else {
        status_set(st, STATUS_UNAVAILABLE, "STORE_UNAVAILABLE", "PostgreSQL is not available");
        st->retry_ms = RETRY_MS;
    }
}

void request_store_failed(struct request *r, enum err err, const struct pg_error *error)
{
    struct status st = {0};
    if (beyond_quota(err, error))
        quota_note_refused(r, QUOTA_DEVICES, r->registering);
    else
        r->d->figures.store_errors++;
    request_store_status(&st, err, error);
    request_fail(r, &st);
}

void *request_alloc(struct request *r, size_t n, size_t size)
{
    size_t bytes;
    void *p = __builtin_mul_overflow(n, size, &bytes) ? NULL : arena_alloc(&r->arena, bytes ? bytes : 1);
    if (p)
        memset(p, 0, bytes);
    else
        r->arena.failed = true;
    return p;
}
