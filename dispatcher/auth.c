#include "dispatcher/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "dispatcher/audit.h"
#include "dispatcher/request.h"
#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/store/api_key.h"
#include "lib/store/db_tenant.h"
#include "muster/v1/admin_service.pb-c.h"

#define FRESH_US  1000000
#define DENIED_US 1000000
#define BUCKETS   1024u
#define UNKNOWN   1024u /* numbers that are no key, one place each: a flood of them only replaces one another */

/* A key that is in PostgreSQL; bounded by how many the administrators have made. */
struct key_entry {
    struct list link;
    struct caller caller;
    uint8_t hash[API_KEY_HASH_BYTES];
    bool revoked;
    int64_t asked_us;
    int64_t denied_us; /* when it was last noted that its role did not do, */
    unsigned denied;   /* and how often that was so since */
};

struct auth {
    struct list buckets[BUCKETS];
    struct {
        int64_t id, asked_us;
    } unknown[UNKNOWN];
};

/* A call that waits for PostgreSQL. */
struct admission {
    struct dispatcher *d;
    struct grpc_call *call;
    int64_t id, asked_us;
    uint8_t hash[API_KEY_HASH_BYTES];
};

struct auth *auth_new(void)
{
    struct auth *auth = calloc(1, sizeof *auth);
    for (unsigned i = 0; auth && i < BUCKETS; i++)
        list_init(&auth->buckets[i]);
    return auth;
}

void auth_free(struct auth **auth)
{
    for (unsigned i = 0; *auth && i < BUCKETS; i++) {
        struct list *l;
        while ((l = list_pop(&(*auth)->buckets[i])))
            free(container_of(l, struct key_entry, link));
    }
    free(*auth);
    *auth = NULL;
}

static struct key_entry *find(struct auth *auth, int64_t id)
{
    list_for_each (l, next, &auth->buckets[(uint64_t)id % BUCKETS]) {
        struct key_entry *e = container_of(l, struct key_entry, link);
        if (e->caller.key == id)
            return e;
    }
    return NULL;
}

static void refuse(struct dispatcher *d, struct grpc_call *call, enum status_code code, const char *reason,
                   const char *why)
{
    struct status st = {0};
    d->figures.auth_refused++;
    grpc_call_finish(call, status_set(&st, code, reason, "%s", why));
}

/* Admins may all, operators what readers may; approvers read, and approve, which operators may not. */
static bool allows(int role, int needed)
{
    if (role == MUSTER__V1__ROLE__ROLE_APPROVER)
        return needed == MUSTER__V1__ROLE__ROLE_APPROVER || needed == MUSTER__V1__ROLE__ROLE_READ_ONLY;
    if (needed == MUSTER__V1__ROLE__ROLE_APPROVER)
        return role == MUSTER__V1__ROLE__ROLE_ADMIN;
    return role <= needed;
}

/* In the audit, once a second for a key. */
static void note_denied(struct dispatcher *d, const struct grpc_call *call, struct key_entry *e)
{
    int64_t now = clock_mono_us();
    e->denied++;
    if (e->denied_us && now - e->denied_us < DENIED_US)
        return;
    char note[48] = "";
    if (e->denied > 1)
        snprintf(note, sizeof note, "%u calls since the entry before", e->denied);
    audit_note(d, call, &e->caller, "denied", grpc_call_method(call)->path, "ROLE_INSUFFICIENT", note);
    e->denied_us = now;
    e->denied = 0;
}

void auth_denied(struct dispatcher *d, const struct grpc_call *call, const struct caller *caller)
{
    struct key_entry *e = find(d->auth, caller->key);
    if (e)
        note_denied(d, call, e);
}

/* Decides with what is known of the key. Returns true when the call may go on; else it has been finished. */
static bool decide(struct dispatcher *d, struct grpc_call *call, struct key_entry *e, const uint8_t *hash)
{
    if (!e || !api_key_hash_equal(e->hash, hash) || e->revoked) {
        refuse(d, call, STATUS_UNAUTHENTICATED, "API_KEY_INVALID", "the API key is unknown or revoked");
        return false;
    }
    if (!allows(e->caller.role, grpc_call_method(call)->tag)) {
        note_denied(d, call, e);
        refuse(d, call, STATUS_PERMISSION_DENIED, "ROLE_INSUFFICIENT", "the API key's role does not allow this method");
        return false;
    }
    grpc_call_set_data(call, (void *)(uintptr_t)&e->caller);
    return true;
}

/* NULL without memory. */
static struct key_entry *remember(struct auth *auth, const struct db_key *key, uint32_t guarded, int64_t asked_us)
{
    struct key_entry *e = find(auth, key->id);
    if (!e) {
        e = calloc(1, sizeof *e);
        if (!e)
            return NULL;
        e->caller = (struct caller){CALL_CALLER, key->id, key->tenant, key->role, guarded};
        list_append(&auth->buckets[(uint64_t)key->id % BUCKETS], &e->link);
    }
    if (asked_us >= e->asked_us) {
        memcpy(e->hash, key->hash.data, sizeof e->hash);
        e->revoked = key->revoked_ms != 0;
        e->caller.guarded = guarded;
        e->asked_us = asked_us;
    }
    return e;
}

static void on_key(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                   size_t count)
{
    (void)count;
    struct admission *a = arg;
    struct auth *auth = a->d->auth;
    if (err != ERR_OK) {
        struct status st = {0};
        request_store_status(&st, err, error);
        grpc_call_finish(a->call, &st);
    } else if (pg_rows(results[0]) == 0) {
        auth->unknown[(uint64_t)a->id % UNKNOWN].id = a->id;
        auth->unknown[(uint64_t)a->id % UNKNOWN].asked_us = a->asked_us;
        decide(a->d, a->call, NULL, a->hash);
    } else {
        struct db_key key;
        db_key_read(results[0], 0, &key);
        struct key_entry *e = key.hash.len == API_KEY_HASH_BYTES
                                  ? remember(auth, &key, db_key_guarded(results[0], 0), a->asked_us)
                                  : NULL;
        if (decide(a->d, a->call, e, a->hash))
            grpc_call_accept(a->call);
    }
    free(a);
}

static void ask(struct dispatcher *d, struct grpc_call *call, int64_t id, const uint8_t *hash, int64_t now)
{
    struct admission *a = calloc(1, sizeof *a);
    struct pg_txn *txn = pg_txn_new(d->pg, PG_ANY_LANE);
    if (!a || !txn) {
        free(a);
        pg_txn_free(&txn);
        refuse(d, call, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
        return;
    }
    *a = (struct admission){.d = d, .call = call, .id = id, .asked_us = now};
    memcpy(a->hash, hash, sizeof a->hash);
    d->figures.auth_lookups++;
    db_key_get(txn, id);
    pg_txn_submit(txn, on_key, a);
}

bool auth_admit(struct grpc_call *call, void *service)
{
    struct dispatcher *d = service;
    const char *value = grpc_call_metadata(call, "authorization", NULL);
    uint8_t secret[API_KEY_SECRET_BYTES], hash[API_KEY_HASH_BYTES];
    int64_t id, now = clock_mono_us();
    if (!value) {
        refuse(d, call, STATUS_UNAUTHENTICATED, "API_KEY_MISSING", "send an API key as authorization: Bearer <key>");
        return false;
    }
    if (strncasecmp(value, "Bearer ", 7) != 0 || !api_key_read(value + 7, &id, secret)) {
        refuse(d, call, STATUS_UNAUTHENTICATED, "API_KEY_INVALID", "the authorization is no API key");
        return false;
    }
    api_key_hash(hash, secret);
    struct key_entry *e = find(d->auth, id);
    if (e && now - e->asked_us < FRESH_US)
        return decide(d, call, e, hash);
    uint64_t place = (uint64_t)id % UNKNOWN;
    if (d->auth->unknown[place].id == id && now - d->auth->unknown[place].asked_us < FRESH_US)
        return decide(d, call, NULL, hash);
    ask(d, call, id, hash, now);
    return false;
}
