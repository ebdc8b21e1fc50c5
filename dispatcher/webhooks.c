#include "dispatcher/webhooks.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "dispatcher/page_token.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "dispatcher/webhook_message.h"
#include "lib/base/clock.h"
#include "lib/base/http_client.h"
#include "lib/store/db_event.h"
#include "muster/v1/event_service.pb-c.h"

#define WEBHOOKS_MAX    16 /* of a tenant */
#define URL_MAX         1024u
#define DESCRIPTION_MAX 256u
#define REPLAY_MAX      1000u
#define KINDS_MAX       63u

struct webhook_call {
    struct request r;
    int64_t id;
    uint8_t secret[WEBHOOK_SECRET_BYTES];
    uint32_t limit;
    struct page_filter filter;
};

static void not_found(struct request *r)
{
    request_refuse(r, STATUS_NOT_FOUND, "WEBHOOK_NOT_FOUND", "there is no web hook %" PRId64,
                   ((struct webhook_call *)r)->id);
}

static char *copy(struct arena *a, const char *text)
{
    char *p = arena_copy(a, text, strlen(text));
    return p ? p : (char *)"";
}

/* NULL without memory. */
static Muster__V1__Webhook *present(struct request *r, const struct db_webhook *row)
{
    Muster__V1__Webhook *w = request_alloc(r, 1, sizeof *w);
    Muster__V1__EventKind *kinds = request_alloc(r, KINDS_MAX, sizeof *kinds);
    if (!w || !kinds)
        return NULL;
    muster__v1__webhook__init(w);
    w->id = row->id;
    w->url = copy(&r->arena, row->url);
    w->kinds = kinds;
    for (unsigned i = 0; i < KINDS_MAX; i++)
        if (row->kinds >> i & 1)
            kinds[w->n_kinds++] = (Muster__V1__EventKind)i;
    w->description = copy(&r->arena, row->description);
    w->created_at = present_time(&r->arena, row->created_ms);
    w->waiting = (uint32_t)row->waiting;
    w->dead = (uint32_t)row->dead;
    w->succeeded_at = present_time(&r->arena, row->succeeded_ms);
    w->failure = copy(&r->arena, row->failure);
    return w;
}

/* --- making --------------------------------------------------------------------------------------------------------
 */

static void on_created(struct request *r, const struct pg_result *const *results)
{
    struct webhook_call *c = (struct webhook_call *)r;
    struct db_webhook row;
    char text[WEBHOOK_SECRET_MAX];
    if (!pg_rows(results[0])) {
        sodium_memzero(c->secret, sizeof c->secret);
        request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "TOO_MANY_WEBHOOKS", "the tenant has %d web hooks already",
                       WEBHOOKS_MAX);
        return;
    }
    db_webhook_read(results[0], 0, &row);
    webhook_secret(text, c->secret);
    sodium_memzero(c->secret, sizeof c->secret);
    Muster__V1__CreateWebhookResponse out = MUSTER__V1__CREATE_WEBHOOK_RESPONSE__INIT;
    out.webhook = present(r, &row);
    out.secret = text;
    request_reply(r, &out.base);
    sodium_memzero(text, sizeof text);
}

static uint64_t read_kinds(struct status *st, const Muster__V1__EventKind *kinds, size_t n)
{
    uint64_t mask = 0;
    if (n > KINDS_MAX)
        status_violation(st, "kinds", "has %zu entries, allowed are %u", n, KINDS_MAX);
    for (size_t i = 0; i < n && i < KINDS_MAX; i++) {
        char field[32];
        snprintf(field, sizeof field, "kinds[%zu]", i);
        validate_enum(st, field, &muster__v1__event_kind__descriptor, (int)kinds[i], false);
        if ((unsigned)kinds[i] < KINDS_MAX)
            mask |= 1ull << (unsigned)kinds[i];
    }
    return mask;
}

static void check_url(struct status *st, const char *url)
{
    validate_text(st, "url", url, 1, URL_MAX);
    bool plain = true;
    for (const char *p = url; *p; p++)
        plain = plain && *p > ' ' && *p < 127;
    if (!plain || !http_url_ok(url))
        status_violation(st, "url", "must be an https URL, without user and fragment");
}

void create_webhook(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__CreateWebhookRequest *in = (const Muster__V1__CreateWebhookRequest *)request;
    struct webhook_call *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    check_url(&st, in->url);
    uint64_t kinds = read_kinds(&st, in->kinds, in->n_kinds);
    validate_text(&st, "description", in->description, 0, DESCRIPTION_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    randombytes_buf(c->secret, sizeof c->secret);
    struct pg_txn *txn = request_txn(&c->r);
    db_webhook_create(txn, c->r.tenant, in->url, kinds, in->description, c->secret, WEBHOOKS_MAX, c->r.caller->key,
                      clock_wall_ms());
    request_query(&c->r, txn, on_created);
}

static void on_rotated(struct request *r, const struct pg_result *const *results)
{
    struct webhook_call *c = (struct webhook_call *)r;
    char text[WEBHOOK_SECRET_MAX];
    webhook_secret(text, c->secret);
    sodium_memzero(c->secret, sizeof c->secret);
    if (pg_rows(results[0])) {
        Muster__V1__RotateWebhookSecretResponse out = MUSTER__V1__ROTATE_WEBHOOK_SECRET_RESPONSE__INIT;
        out.secret = text;
        request_reply(r, &out.base);
    } else {
        not_found(r);
    }
    sodium_memzero(text, sizeof text);
}

/* A call about the web hook of this number; NULL when it was refused. */
static struct webhook_call *about(struct grpc_call *call, void *service, int64_t id)
{
    struct webhook_call *c = request_begin(call, service, sizeof *c);
    struct status st = {0};
    if (!c)
        return NULL;
    c->id = id;
    validate_number(&st, "webhook_id", id);
    if (st.code == STATUS_OK)
        return c;
    request_fail(&c->r, &st);
    return NULL;
}

void rotate_webhook_secret(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct webhook_call *c =
        about(call, service, ((const Muster__V1__RotateWebhookSecretRequest *)request)->webhook_id);
    if (!c)
        return;
    randombytes_buf(c->secret, sizeof c->secret);
    struct pg_txn *txn = request_txn(&c->r);
    db_webhook_rotate(txn, c->r.tenant, c->id, c->secret, c->r.caller->key, clock_wall_ms());
    request_query(&c->r, txn, on_rotated);
}

/* --- looking after them ---------------------------------------------------------------------------------------------
 */

static void on_list(struct request *r, const struct pg_result *const *results)
{
    Muster__V1__ListWebhooksResponse out = MUSTER__V1__LIST_WEBHOOKS_RESPONSE__INIT;
    size_t n = (size_t)pg_rows(results[0]);
    out.webhooks = request_alloc(r, n, sizeof *out.webhooks);
    for (size_t i = 0; out.webhooks && i < n; i++) {
        struct db_webhook row;
        db_webhook_read(results[0], (int)i, &row);
        out.webhooks[out.n_webhooks++] = present(r, &row);
    }
    request_reply(r, &out.base);
}

void list_webhooks(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct webhook_call *c = request_begin(call, service, sizeof *c);
    (void)request;
    if (!c)
        return;
    struct pg_txn *txn = request_txn(&c->r);
    db_webhook_list(txn, c->r.tenant);
    request_query(&c->r, txn, on_list);
}

static void on_deleted(struct request *r, const struct pg_result *const *results)
{
    Muster__V1__DeleteWebhookResponse out = MUSTER__V1__DELETE_WEBHOOK_RESPONSE__INIT;
    if (pg_rows(results[0]))
        request_reply(r, &out.base);
    else
        not_found(r);
}

void delete_webhook(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct webhook_call *c = about(call, service, ((const Muster__V1__DeleteWebhookRequest *)request)->webhook_id);
    if (!c)
        return;
    struct pg_txn *txn = request_txn(&c->r);
    db_webhook_delete(txn, c->r.tenant, c->id, c->r.caller->key, clock_wall_ms());
    request_query(&c->r, txn, on_deleted);
}

static void on_tested(struct request *r, const struct pg_result *const *results)
{
    Muster__V1__TestWebhookResponse out = MUSTER__V1__TEST_WEBHOOK_RESPONSE__INIT;
    if (pg_rows(results[0]))
        request_reply(r, &out.base);
    else
        not_found(r);
}

void test_webhook(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct webhook_call *c = about(call, service, ((const Muster__V1__TestWebhookRequest *)request)->webhook_id);
    if (!c)
        return;
    struct pg_txn *txn = request_txn(&c->r);
    db_webhook_test(txn, c->r.tenant, c->id, c->r.caller->key, clock_wall_ms());
    request_query(&c->r, txn, on_tested);
}

/* NULL without memory. */
static Muster__V1__DeadEvent *present_dead(struct request *r, const struct db_webhook_dead *row)
{
    Muster__V1__DeadEvent *e = request_alloc(r, 1, sizeof *e);
    struct db_event event;
    if (!e)
        return NULL;
    muster__v1__dead_event__init(e);
    e->event_id = row->event;
    if (db_event_read(row->text, &event)) {
        e->kind = (Muster__V1__EventKind)event.kind;
        e->batch_id = event.batch;
    }
    e->attempts = (uint32_t)row->attempts;
    e->failure = copy(&r->arena, row->failure);
    e->died_at = present_time(&r->arena, row->died_ms);
    return e;
}

static void on_dead(struct request *r, const struct pg_result *const *results)
{
    struct webhook_call *c = (struct webhook_call *)r;
    size_t rows = (size_t)pg_rows(results[0]), n = rows < c->limit ? rows : c->limit;
    Muster__V1__ListDeadEventsResponse out = MUSTER__V1__LIST_DEAD_EVENTS_RESPONSE__INIT;
    struct db_webhook_dead row = {0};
    char token[PAGE_TOKEN_MAX];
    out.events = request_alloc(r, n, sizeof *out.events);
    for (size_t i = 0; out.events && i < n; i++) {
        db_webhook_dead_read(results[0], (int)i, &row);
        out.events[out.n_events++] = present_dead(r, &row);
    }
    if (rows > n && n) {
        page_token_write(token, &c->filter, row.event, NULL);
        out.next_page_token = token;
    }
    request_reply(r, &out.base);
}

void list_dead_events(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListDeadEventsRequest *in = (const Muster__V1__ListDeadEventsRequest *)request;
    struct webhook_call *c = about(call, service, in->webhook_id);
    if (!c)
        return;
    struct status st = {0};
    struct page_token token;
    c->filter = page_filter_new(grpc_call_method(call)->path, c->r.tenant);
    page_filter_add_int(&c->filter, c->id);
    c->limit = validate_page_size(&st, in->page_size, 100, 1000);
    page_token_read(&token, &st, &c->filter, "page_token", in->page_token, 0);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&c->r);
    db_webhook_dead(txn, c->r.tenant, c->id, token.after, (int32_t)c->limit + 1);
    request_query(&c->r, txn, on_dead);
}

static void on_replayed(struct request *r, const struct pg_result *const *results)
{
    Muster__V1__ReplayDeadEventsResponse out = MUSTER__V1__REPLAY_DEAD_EVENTS_RESPONSE__INIT;
    if (!pg_rows(results[0])) {
        not_found(r);
        return;
    }
    out.count = (uint32_t)pg_int(results[0], 0, 0);
    request_reply(r, &out.base);
}

void replay_dead_events(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ReplayDeadEventsRequest *in = (const Muster__V1__ReplayDeadEventsRequest *)request;
    struct webhook_call *c = about(call, service, in->webhook_id);
    if (!c)
        return;
    struct status st = {0};
    if (in->n_event_ids > REPLAY_MAX)
        status_violation(&st, "event_ids", "has %zu entries, allowed are %u", in->n_event_ids, REPLAY_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&c->r);
    db_webhook_replay(txn, c->r.tenant, c->id, in->event_ids, in->n_event_ids, clock_wall_ms(), c->r.d->webhook_life_ms,
                      c->r.caller->key);
    request_query(&c->r, txn, on_replayed);
}
