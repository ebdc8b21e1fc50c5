#include "dispatcher/service_admin.h"

#include <inttypes.h>
#include <sodium.h>
#include <string.h>

#include "dispatcher/audit.h"
#include "dispatcher/guard_policy.h"
#include "dispatcher/page_token.h"
#include "dispatcher/present.h"
#include "dispatcher/quota.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "dispatcher/verify.h"
#include "lib/base/clock.h"
#include "lib/store/api_key.h"
#include "lib/store/db_tenant.h"

/* CreateTenant, CreateApiKey, RevokeApiKey. */
struct admin {
    struct request r;
    const char *tenant; /* of the request taken */
    int64_t key;
    uint8_t secret[API_KEY_SECRET_BYTES];
};

/* ListTenants, ListApiKeys. */
struct admin_list {
    struct request r;
    uint32_t limit;
    struct page_filter filter;
};

static void tenant_not_found(struct request *r)
{
    request_refuse(r, STATUS_NOT_FOUND, "TENANT_NOT_FOUND", "there is no such tenant");
}

static void on_tenant_created(struct request *r, const struct pg_result *const *results)
{
    struct admin *a = (struct admin *)r;
    struct db_tenant row;
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_ALREADY_EXISTS, "TENANT_EXISTS", "there is a tenant %s already", a->tenant);
        return;
    }
    db_tenant_read(results[0], 0, &row);
    Muster__V1__CreateTenantResponse out = MUSTER__V1__CREATE_TENANT_RESPONSE__INIT;
    out.tenant = present_tenant(&r->arena, &row);
    request_reply(r, &out.base);
}

static void create_tenant(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__CreateTenantRequest *in = (const Muster__V1__CreateTenantRequest *)request;
    struct admin *a = request_begin(call, service, sizeof *a);
    if (!a)
        return;
    struct status st = {0};
    grpc_call_take_request(call);
    a->tenant = in->name;
    validate_tenant_name(&st, "name", in->name);
    if (st.code != STATUS_OK) {
        request_fail(&a->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&a->r);
    db_tenant_create(txn, in->name, clock_wall_ms(), a->r.caller->key);
    request_query(&a->r, txn, on_tenant_created);
}

static void on_tenants(struct request *r, const struct pg_result *const *results)
{
    struct admin_list *l = (struct admin_list *)r;
    size_t rows = (size_t)pg_rows(results[0]), n = rows < l->limit ? rows : l->limit;
    Muster__V1__ListTenantsResponse out = MUSTER__V1__LIST_TENANTS_RESPONSE__INIT;
    Muster__V1__Tenant **list = request_alloc(r, n, sizeof *list);
    char token[PAGE_TOKEN_MAX];
    struct db_tenant row = {0};
    for (size_t i = 0; list && i < n; i++) {
        db_tenant_read(results[0], (int)i, &row);
        list[i] = present_tenant(&r->arena, &row);
    }
    if (rows > n && n) {
        page_token_write(token, &l->filter, 0, row.name);
        out.next_page_token = token;
    }
    out.tenants = list;
    out.n_tenants = n;
    request_reply(r, &out.base);
}

static void list_tenants(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListTenantsRequest *in = (const Muster__V1__ListTenantsRequest *)request;
    struct admin_list *l = request_begin(call, service, sizeof *l);
    if (!l)
        return;
    struct status st = {0};
    struct page_token token;
    l->filter = page_filter_new(grpc_call_method(call)->path, 0);
    l->limit = validate_page_size(&st, in->page_size, 100, 1000);
    page_token_read(&token, &st, &l->filter, "page_token", in->page_token, 0);
    if (st.code != STATUS_OK) {
        request_fail(&l->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&l->r);
    db_tenant_list(txn, token.after_name, (int32_t)l->limit + 1);
    request_query(&l->r, txn, on_tenants);
}

static void on_key_created(struct request *r, const struct pg_result *const *results)
{
    struct admin *a = (struct admin *)r;
    struct db_key row;
    if (!pg_rows(results[0])) {
        sodium_memzero(a->secret, sizeof a->secret);
        tenant_not_found(r);
        return;
    }
    char text[API_KEY_TEXT_MAX];
    db_key_read(results[0], 0, &row);
    api_key_write(text, row.id, a->secret);
    sodium_memzero(a->secret, sizeof a->secret);
    Muster__V1__CreateApiKeyResponse out = MUSTER__V1__CREATE_API_KEY_RESPONSE__INIT;
    out.key = present_key(&r->arena, &row);
    out.secret = text;
    request_reply(r, &out.base);
    sodium_memzero(text, sizeof text);
}

static void create_api_key(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__CreateApiKeyRequest *in = (const Muster__V1__CreateApiKeyRequest *)request;
    struct admin *a = request_begin(call, service, sizeof *a);
    if (!a)
        return;
    struct status st = {0};
    validate_tenant_name(&st, "tenant", in->tenant);
    validate_enum(&st, "role", &muster__v1__role__descriptor, (int)in->role, false);
    validate_text(&st, "description", in->description, 0, KEY_DESCRIPTION_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&a->r, &st);
        return;
    }
    uint8_t hash[API_KEY_HASH_BYTES];
    api_key_make(a->secret);
    api_key_hash(hash, a->secret);
    struct pg_txn *txn = request_txn(&a->r);
    db_key_create(txn, in->tenant, (int)in->role, hash, in->description, clock_wall_ms(), a->r.caller->key);
    request_query(&a->r, txn, on_key_created);
}

/* Results: the tenant, its keys. */
static void on_keys(struct request *r, const struct pg_result *const *results)
{
    struct admin_list *l = (struct admin_list *)r;
    if (!pg_rows(results[0])) {
        tenant_not_found(r);
        return;
    }
    size_t rows = (size_t)pg_rows(results[1]), n = rows < l->limit ? rows : l->limit;
    Muster__V1__ListApiKeysResponse out = MUSTER__V1__LIST_API_KEYS_RESPONSE__INIT;
    Muster__V1__ApiKey **list = request_alloc(r, n, sizeof *list);
    char token[PAGE_TOKEN_MAX];
    struct db_key row = {0};
    for (size_t i = 0; list && i < n; i++) {
        db_key_read(results[1], (int)i, &row);
        list[i] = present_key(&r->arena, &row);
    }
    if (rows > n && n) {
        page_token_write(token, &l->filter, row.id, NULL);
        out.next_page_token = token;
    }
    out.keys = list;
    out.n_keys = n;
    request_reply(r, &out.base);
}

static void list_api_keys(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListApiKeysRequest *in = (const Muster__V1__ListApiKeysRequest *)request;
    struct admin_list *l = request_begin(call, service, sizeof *l);
    if (!l)
        return;
    struct status st = {0};
    struct page_token token;
    validate_tenant_name(&st, "tenant", in->tenant);
    l->filter = page_filter_new(grpc_call_method(call)->path, 0);
    page_filter_add(&l->filter, in->tenant, strlen(in->tenant));
    l->limit = validate_page_size(&st, in->page_size, 100, 1000);
    page_token_read(&token, &st, &l->filter, "page_token", in->page_token, 0);
    if (st.code != STATUS_OK) {
        request_fail(&l->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&l->r);
    db_tenant_get(txn, in->tenant);
    db_key_list(txn, in->tenant, token.after, (int32_t)l->limit + 1);
    request_query(&l->r, txn, on_keys);
}

static void on_key_revoked(struct request *r, const struct pg_result *const *results)
{
    struct admin *a = (struct admin *)r;
    struct db_key row;
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_NOT_FOUND, "KEY_NOT_FOUND", "there is no key %" PRId64, a->key);
        return;
    }
    db_key_read(results[0], 0, &row);
    Muster__V1__RevokeApiKeyResponse out = MUSTER__V1__REVOKE_API_KEY_RESPONSE__INIT;
    out.key = present_key(&r->arena, &row);
    request_reply(r, &out.base);
}

static void revoke_api_key(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct admin *a = request_begin(call, service, sizeof *a);
    if (!a)
        return;
    struct status st = {0};
    a->key = ((const Muster__V1__RevokeApiKeyRequest *)request)->key_id;
    validate_number(&st, "key_id", a->key);
    if (st.code != STATUS_OK) {
        request_fail(&a->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&a->r);
    db_key_revoke(txn, a->key, clock_wall_ms(), a->r.caller->key);
    request_query(&a->r, txn, on_key_revoked);
}

#define METHOD_OF(name, lower, role, handler)                                                                          \
    {                                                                                                                  \
        .path = "/muster.v1.AdminService/" name, .request = &muster__v1__##lower##_request__descriptor,                \
        .response = &muster__v1__##lower##_response__descriptor, .tag = role, .message = handler                       \
    }
#define METHOD(name, lower, handler)      METHOD_OF(name, lower, MUSTER__V1__ROLE__ROLE_ADMIN, handler)
#define READ_METHOD(name, lower, handler) METHOD_OF(name, lower, MUSTER__V1__ROLE__ROLE_READ_ONLY, handler)

const struct grpc_method service_admin_methods[] = {
    METHOD("CreateTenant", create_tenant, create_tenant),
    METHOD("ListTenants", list_tenants, list_tenants),
    METHOD("CreateApiKey", create_api_key, create_api_key),
    METHOD("ListApiKeys", list_api_keys, list_api_keys),
    METHOD("RevokeApiKey", revoke_api_key, revoke_api_key),
    {.path = "/muster.v1.AdminService/Verify",
     .request = &muster__v1__verify_request__descriptor,
     .response = &muster__v1__verify_response__descriptor,
     .server_streaming = true,
     .tag = MUSTER__V1__ROLE__ROLE_ADMIN,
     .message = verify_run,
     .cancelled = verify_cancelled},
    METHOD("GetGuardPolicy", get_guard_policy, get_guard_policy),
    METHOD("SetGuardPolicy", set_guard_policy, set_guard_policy),
    METHOD("GetQuota", get_quota, get_quota),
    METHOD("SetQuota", set_quota, set_quota),
    READ_METHOD("ListAudit", list_audit, list_audit),
    READ_METHOD("VerifyAudit", verify_audit, verify_audit),
    {0},
};
