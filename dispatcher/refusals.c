#include "dispatcher/refusals.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/quota.h"
#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/store/db_audit.h"

#define LOOK_S 5.0

/* Of one key, for one reason. */
struct refusal {
    struct list link;
    int32_t tenant;
    int64_t key;
    const char *reason;
    char address[64];
    int64_t noted_us; /* when the last entry was written, */
    uint32_t times;   /* and what has come since */
    uint64_t devices;
};

struct refusals {
    struct ev_loop *loop;
    struct pg *pg;
    struct list all; /* those who were first come first */
    size_t count;
    ev_timer timer;
    unsigned writing;
    void (*done)(void *arg);
    void *arg;
};

static void check_done(struct refusals *r)
{
    void (*done)(void *) = r->done;
    if (!done || r->writing)
        return;
    r->done = NULL;
    done(r->arg);
}

static void on_written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct refusals *r = arg;
    (void)results, (void)count;
    r->writing--;
    if (err)
        log_warn("refusal_unwritten", "error=%s message=%s", err_name(err), log_quote(error ? error->message : ""));
    check_done(r);
}

static void write_down(struct refusals *r, struct refusal *x)
{
    char note[32];
    bool registering = !strcmp(x->reason, QUOTA_DEVICES);
    const char *one = registering ? "import" : "batch", *many = registering ? "imports" : "batches";
    snprintf(note, sizeof note, "%" PRIu32 " %s", x->times, x->times == 1 ? one : many);
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn) {
        db_audit_caller(txn, x->address);
        db_audit_add(txn, clock_wall_ms(), x->tenant, x->key, "quota_refused", x->reason, (int64_t)x->devices,
                     "refused", note);
    }
    x->noted_us = clock_mono_us();
    x->times = 0;
    x->devices = 0;
    r->writing++;
    pg_txn_submit(txn, on_written, r);
}

static void forget(struct refusals *r, struct refusal *x)
{
    list_remove(&x->link);
    r->count--;
    free(x);
}

static void on_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    struct refusals *r = container_of(t, struct refusals, timer);
    int64_t now_us = clock_mono_us();
    (void)events;
    list_for_each (l, next, &r->all) {
        struct refusal *x = container_of(l, struct refusal, link);
        if (now_us - x->noted_us < REFUSALS_MINUTE_US)
            continue;
        if (x->times)
            write_down(r, x);
        else
            forget(r, x);
    }
    if (list_empty(&r->all))
        ev_timer_stop(loop, t);
}

struct refusals *refusals_new(struct ev_loop *loop, struct pg *pg)
{
    struct refusals *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->loop = loop;
    r->pg = pg;
    list_init(&r->all);
    ev_timer_init(&r->timer, on_timer, LOOK_S, LOOK_S);
    return r;
}

void refusals_free(struct refusals **refusals)
{
    struct refusals *r = *refusals;
    *refusals = NULL;
    if (!r)
        return;
    ev_timer_stop(r->loop, &r->timer);
    list_for_each (l, next, &r->all)
        forget(r, container_of(l, struct refusal, link));
    free(r);
}

static struct refusal *find(struct refusals *r, int64_t key, const char *reason)
{
    list_for_each (l, next, &r->all) {
        struct refusal *x = container_of(l, struct refusal, link);
        if (x->key == key && strcmp(x->reason, reason) == 0)
            return x;
    }
    return NULL;
}

static void make_room(struct refusals *r)
{
    struct refusal *first = container_of(r->all.next, struct refusal, link);
    if (r->count < REFUSALS_MAX)
        return;
    if (first->times)
        write_down(r, first);
    forget(r, first);
}

/* NULL without memory. */
static struct refusal *make(struct refusals *r, int32_t tenant, int64_t key, const char *reason)
{
    make_room(r);
    struct refusal *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->tenant = tenant;
    x->key = key;
    x->reason = reason;
    list_append(&r->all, &x->link);
    r->count++;
    if (!ev_is_active(&r->timer))
        ev_timer_again(r->loop, &r->timer);
    return x;
}

void refusals_note(struct refusals *r, int32_t tenant, int64_t key, const char *address, const char *reason,
                   uint32_t devices)
{
    struct refusal *x = find(r, key, reason);
    bool first = !x;
    if (first && !(x = make(r, tenant, key, reason)))
        return;
    snprintf(x->address, sizeof x->address, "%s", address);
    x->times++;
    x->devices += devices;
    if (first)
        write_down(r, x);
}

void refusals_end(struct refusals *r, void (*done)(void *arg), void *arg)
{
    r->done = done;
    r->arg = arg;
    list_for_each (l, next, &r->all) {
        struct refusal *x = container_of(l, struct refusal, link);
        if (x->times && pg_up(r->pg))
            write_down(r, x);
    }
    check_done(r);
}
