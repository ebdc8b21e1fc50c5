/* IssueCredentials: tokens with which devices connect; declared in devices.h. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/devices.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/revoke.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/store/db_audit.h"
#include "lib/store/db_device.h"
#include "proto/credential.h"

#define CREDENTIALS_MAX         10000u
#define CREDENTIAL_LIFE_DEFAULT (365 * DAY_MS)

struct issue {
    struct request r;
    const Muster__V1__IssueCredentialsRequest *in;
    int64_t life_ms, now_ms;
    uint32_t key_id;
    uint8_t secret[CREDENTIAL_SECRET_BYTES];
    int32_t *seqs;      /* in the order asked for */
    int64_t *issued_ms; /* the same: no earlier than what was revoked */
};

static Muster__V1__Credential *sign(struct issue *s, size_t i)
{
    Muster__V1__Credential *c = request_alloc(&s->r, 1, sizeof *c);
    char *token = request_alloc(&s->r, 1, CREDENTIAL_TOKEN_MAX);
    if (!c || !token)
        return NULL;
    struct credential fields = {.key_id = s->key_id,
                                .tenant = (uint32_t)s->r.tenant,
                                .seq = (uint32_t)s->seqs[i],
                                .issued_ms = s->issued_ms[i],
                                .expires_ms = s->issued_ms[i] + s->life_ms};
    credential_sign(token, &fields, s->in->device_ids[i], s->secret);
    muster__v1__credential__init(c);
    c->device_id = s->in->device_ids[i];
    c->token = token;
    c->expires_at = present_time(&s->r.arena, fields.expires_ms);
    return c;
}

static void reply(struct issue *s)
{
    Muster__V1__IssueCredentialsResponse out = MUSTER__V1__ISSUE_CREDENTIALS_RESPONSE__INIT;
    out.n_credentials = s->in->n_device_ids;
    out.credentials = request_alloc(&s->r, out.n_credentials, sizeof *out.credentials);
    for (size_t i = 0; out.credentials && i < out.n_credentials; i++)
        out.credentials[i] = sign(s, i);
    sodium_memzero(s->secret, sizeof s->secret);
    request_reply(&s->r, &out.base);
}

static int compare_entries(const void *a, const void *b)
{
    uint32_t x = ((const struct revoke_entry *)a)->seq, y = ((const struct revoke_entry *)b)->seq;
    return x < y ? -1 : x > y;
}

static void on_revoked(struct request *r, const struct pg_result *const *results)
{
    struct issue *s = (struct issue *)r;
    size_t n = (size_t)pg_rows(results[0]);
    struct revoke_entry *entries = request_alloc(r, n, sizeof *entries);
    for (size_t i = 0; entries && i < n; i++)
        entries[i] = (struct revoke_entry){(uint32_t)pg_int(results[0], (int)i, 0), pg_int(results[0], (int)i, 1)};
    if (!entries) {
        request_store_failed(r, ERR_NOMEM, NULL);
        return;
    }
    qsort(entries, n, sizeof *entries, compare_entries);
    for (size_t i = 0; i < s->in->n_device_ids; i++) {
        struct revoke_entry key = {.seq = (uint32_t)s->seqs[i]};
        struct revoke_entry *e = bsearch(&key, entries, n, sizeof *entries, compare_entries);
        if (e && s->issued_ms[i] < e->issued_before_ms)
            s->issued_ms[i] = e->issued_before_ms;
    }
    revoke_tell_workers(r->d, r->tenant, entries, n);
    reply(s);
}

static void on_noted(struct request *r, const struct pg_result *const *results)
{
    (void)results;
    reply((struct issue *)r);
}

/* Results: the signing key made if need be, the key, a row per device. */
static void on_devices(struct request *r, const struct pg_result *const *results)
{
    struct issue *s = (struct issue *)r;
    struct slice secret = pg_rows(results[1]) ? pg_bytes(results[1], 0, 1) : (struct slice){0};
    size_t n = s->in->n_device_ids;
    s->seqs = request_alloc(r, n, sizeof *s->seqs);
    s->issued_ms = request_alloc(r, n, sizeof *s->issued_ms);
    if (!s->seqs || !s->issued_ms || secret.len != sizeof s->secret || (size_t)pg_rows(results[2]) != n) {
        request_store_failed(r, ERR_NOMEM, NULL);
        return;
    }
    s->key_id = (uint32_t)pg_int(results[1], 0, 0);
    memcpy(s->secret, secret.data, sizeof s->secret);
    for (size_t i = 0; i < n; i++) {
        if (pg_null(results[2], (int)i, 0)) {
            request_refuse(r, STATUS_NOT_FOUND, "DEVICE_NOT_FOUND", "there is no device %s", s->in->device_ids[i]);
            return;
        }
        int64_t not_before = pg_int(results[2], (int)i, 1);
        s->seqs[i] = (int32_t)pg_int(results[2], (int)i, 0);
        s->issued_ms[i] = not_before > s->now_ms ? not_before : s->now_ms;
    }
    struct pg_txn *txn = request_txn(r);
    if (s->in->revoke_earlier)
        db_device_revoke(txn, r->tenant, s->seqs, n, s->now_ms, r->caller->key);
    db_audit_add(txn, s->now_ms, r->tenant, r->caller->key, "issue_credentials", s->in->device_ids[0], (int64_t)n, "",
                 "");
    request_query(r, txn, s->in->revoke_earlier ? on_revoked : on_noted);
}

void issue_credentials(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct issue *s = request_begin(call, service, sizeof *s);
    if (!s)
        return;
    struct status st = {0};
    grpc_call_take_request(call);
    s->in = (const Muster__V1__IssueCredentialsRequest *)request;
    s->now_ms = clock_wall_ms();
    s->life_ms = CREDENTIAL_LIFE_DEFAULT;
    validate_ids(&st, "device_ids", s->in->device_ids, s->in->n_device_ids, 1, CREDENTIALS_MAX);
    const Google__Protobuf__Duration *life = s->in->lifetime;
    if (life && (!validate_duration(&s->life_ms, life->seconds, life->nanos) || s->life_ms < CREDENTIAL_LIFE_MIN_MS ||
                 s->life_ms > CREDENTIAL_LIFE_MAX_MS))
        status_violation(&st, "lifetime", "must be 1 minute to 10 years");
    if (st.code != STATUS_OK) {
        request_fail(&s->r, &st);
        return;
    }
    uint8_t fresh[CREDENTIAL_SECRET_BYTES];
    randombytes_buf(fresh, sizeof fresh);
    struct pg_txn *txn = request_txn(&s->r);
    db_signing_key_ensure(txn, fresh, s->now_ms);
    db_signing_key_get(txn);
    db_device_tokens(txn, s->r.tenant, (const char *const *)s->in->device_ids, s->in->n_device_ids);
    sodium_memzero(fresh, sizeof fresh);
    request_query(&s->r, txn, on_devices);
}
