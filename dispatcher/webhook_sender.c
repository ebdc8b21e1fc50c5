#include "dispatcher/webhook_sender.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/webhook_message.h"
#include "lib/base/clock.h"
#include "lib/base/http_client.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"

/* How soon what is new is looked for when nothing happens here. */
#define LOOK_US 250000
/* On their way at a time: together, of a tenant, of a web hook that is well. */
#define FLYING_MAX    128
#define OF_TENANT_MAX 16
#define OF_HOOK_MAX   4
/* Waiting for a web hook, before those behind stay where they are. */
#define WINDOW      1000
#define FAILURE_MAX 200 /* bytes that are kept of what went wrong */

struct flying {
    struct list link;
    struct reign *reign;
    int64_t hook, event;
    bool answered;             /* and not yet written, or being written */
    bool writing;              /* in the write under way */
    char failure[FAILURE_MAX]; /* "": it was taken */
};

struct webhook_sender {
    struct reign *reign;
    struct http_client *http; /* made when it is needed first */
    struct list flying;
    size_t count;
    size_t answered; /* of them, not yet being written */
    int64_t last_us; /* when it was last looked */
    bool busy;       /* a transaction is under way */
};

struct webhook_sender *webhook_sender_new(struct reign *r)
{
    struct webhook_sender *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->reign = r;
    list_init(&s->flying);
    return s;
}

static void forget(struct webhook_sender *s, struct flying *f)
{
    list_remove(&f->link);
    s->count--;
    free(f);
}

void webhook_sender_free(struct webhook_sender **sender)
{
    struct webhook_sender *s = *sender;
    *sender = NULL;
    if (!s)
        return;
    http_client_free(&s->http);
    while (!list_empty(&s->flying))
        forget(s, container_of(s->flying.next, struct flying, link));
    free(s);
}

static void step(struct reign *r);

/* --- sending -------------------------------------------------------------------------------------------------------
 */

static void settle(struct flying *f, const char *failure)
{
    snprintf(f->failure, sizeof f->failure, "%s", failure);
    f->answered = true;
    f->reign->webhooks->answered++;
}

static void on_answer(void *arg, int status, const char *failure)
{
    struct flying *f = arg;
    struct reign *r = f->reign;
    char text[32];
    if (status >= 200 && status < 300) {
        settle(f, "");
        r->figures->webhooks_taken++;
    } else {
        snprintf(text, sizeof text, "status %d", status);
        settle(f, status ? text : failure);
        r->figures->webhooks_failed++;
        log_info("webhook_failed", "webhook=%" PRId64 " event=%" PRId64 " why=%s", f->hook, f->event,
                 log_quote(f->failure));
    }
    step(r);
}

/* False without memory. */
static bool post(struct webhook_sender *s, struct flying *f, const struct db_webhook_task *task, const char *body)
{
    char id[WEBHOOK_ID_MAX], signature[WEBHOOK_SIGNATURE_MAX];
    char headers[3][WEBHOOK_SIGNATURE_MAX + 32];
    int64_t seconds = clock_wall_ms() / 1000;
    webhook_id(id, task);
    webhook_signature(signature, task, id, seconds, body);
    snprintf(headers[0], sizeof headers[0], "webhook-id: %s", id);
    snprintf(headers[1], sizeof headers[1], "webhook-timestamp: %" PRId64, seconds);
    snprintf(headers[2], sizeof headers[2], "webhook-signature: %s", signature);
    const char *const all[] = {"content-type: application/json", headers[0], headers[1], headers[2]};
    struct http_post p = {.url = task->url,
                          .headers = all,
                          .header_count = sizeof all / sizeof *all,
                          .body = {(const uint8_t *)body, strlen(body)},
                          .done = on_answer,
                          .arg = f};
    return http_client_post(s->http, &p);
}

static void send_one(struct webhook_sender *s, const struct db_webhook_task *task)
{
    struct flying *f = calloc(1, sizeof *f);
    if (!f)
        return; /* it is given again */
    f->reign = s->reign;
    f->hook = task->hook;
    f->event = task->event;
    list_append(&s->flying, &f->link);
    owned(f);
    s->count++;
    char *body = webhook_body(task);
    if (!body)
        settle(f, "the event can't be told");
    else if (!post(s, f, task, body))
        forget(s, f);
    free(body);
}

/* --- one step: what became of attempts is written, what is to be sent asked for --------------------------------- */

static void got_step(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    struct webhook_sender *s = r->webhooks;
    s->busy = false;
    list_for_each (l, next, &s->flying) {
        struct flying *f = container_of(l, struct flying, link);
        if (!f->writing)
            continue;
        f->writing = false;
        if (err)
            s->answered++; /* written with the next step */
        else
            forget(s, f);
    }
    if (err && db_lease_fenced(err, error)) {
        reign_fail(r, "fenced", err);
        return;
    }
    if (err) {
        if (err != ERR_UNAVAILABLE && err != ERR_CLOSED)
            log_warn("webhooks_failed", "err=%s sqlstate=%s message=%s", err_name(err), error ? error->sqlstate : "",
                     log_quote(error ? error->message : ""));
        return;
    }
    const struct pg_result *rows = results[count - 1];
    if (pg_rows(rows) && !s->http)
        s->http = http_client_new(r->loop, &r->web);
    for (int row = 0; s->http && row < pg_rows(rows); row++) {
        struct db_webhook_task task;
        db_webhook_take_read(rows, row, &task);
        send_one(s, &task);
    }
    if (s->answered)
        step(r);
}

/* Those that were answered; the others are on their way. */
static void put_answers(struct webhook_sender *s, struct pg_txn *txn)
{
    int64_t hooks[FLYING_MAX], events[FLYING_MAX];
    const char *failures[FLYING_MAX];
    size_t n = 0;
    list_for_each (l, next, &s->flying) {
        struct flying *f = container_of(l, struct flying, link);
        if (!f->answered || n == FLYING_MAX)
            continue;
        hooks[n] = f->hook;
        events[n] = f->event;
        failures[n++] = f->failure;
        f->writing = true;
    }
    s->answered = 0;
    if (n)
        db_webhook_answered(txn, hooks, events, failures, n, 50 + rand() % 100, clock_wall_ms(), s->reign->retry_ms);
}

static void put_take(struct webhook_sender *s, struct pg_txn *txn)
{
    int64_t hooks[FLYING_MAX], events[FLYING_MAX];
    size_t n = 0;
    list_for_each (l, next, &s->flying) {
        struct flying *f = container_of(l, struct flying, link);
        if (f->writing || n == FLYING_MAX)
            continue;
        hooks[n] = f->hook;
        events[n++] = f->event;
    }
    struct db_webhook_limits limits = {.life_ms = s->reign->webhook_life_ms,
                                       .window = WINDOW,
                                       .each = OF_HOOK_MAX,
                                       .tenant = OF_TENANT_MAX,
                                       .all = (int32_t)(FLYING_MAX - n)};
    db_webhook_take(txn, clock_wall_ms(), &limits, hooks, events, n);
}

static void step(struct reign *r)
{
    struct webhook_sender *s = r->webhooks;
    if (s->busy || r->failed)
        return;
    s->busy = true;
    s->last_us = clock_mono_us();
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn) {
        db_lease_fence(txn, &r->fence);
        put_answers(s, txn);
        put_take(s, txn);
    }
    pg_txn_submit(txn, got_step, reign_hold(r));
}

void webhook_sender_tick(struct reign *r)
{
    if (clock_mono_us() - r->webhooks->last_us >= LOOK_US)
        step(r);
}
