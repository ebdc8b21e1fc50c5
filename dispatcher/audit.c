#include "dispatcher/audit.h"

#include <inttypes.h>
#include <string.h>

#include "dispatcher/page_token.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_audit.h"

#define ACTION_MAX 64u
/* Rows that one VerifyAudit looks at: a tenth of a second of PostgreSQL's work, where each is of a single call. */
#define VERIFY_ROWS 10000
#define HASH_BYTES  32u
/* What the place in a page token means. Tokens of the time when it was something else are refused. */
#define CURSOR "links"

struct audit_list {
    struct request r;
    uint32_t limit;
    struct page_filter filter;
};

struct audit_verify {
    struct request r;
    int64_t noted;
};

/* --- whose -------------------------------------------------------------------------------------------------------- */

/* What is asked for, or why it may not be. */
static struct db_audit_scope allowed_scope(struct status *st, const struct caller *caller,
                                           const Muster__V1__AuditScope *in, bool all_ok)
{
    struct db_audit_scope out = {DB_AUDIT_TENANT, caller->tenant, NULL};
    Muster__V1__AuditScope__KindCase kind = in ? in->kind_case : MUSTER__V1__AUDIT_SCOPE__KIND__NOT_SET;
    bool admin = caller->role == MUSTER__V1__ROLE__ROLE_ADMIN;
    if (caller->role == MUSTER__V1__ROLE__ROLE_READ_ONLY) {
        status_set(st, STATUS_PERMISSION_DENIED, "ROLE_INSUFFICIENT", "the audit needs more than the role read-only");
        return out;
    }
    switch (kind) {
    case MUSTER__V1__AUDIT_SCOPE__KIND_TENANT:
        validate_tenant_name(st, "scope.tenant", in->tenant);
        out.name = in->tenant;
        break;
    case MUSTER__V1__AUDIT_SCOPE__KIND_INSTALLATION:
        if (!in->installation)
            status_violation(st, "scope.installation", "must be true when it is set");
        out.whose = DB_AUDIT_INSTALLATION;
        break;
    case MUSTER__V1__AUDIT_SCOPE__KIND_ALL:
        if (!in->all || !all_ok)
            status_violation(st, "scope.all", all_ok ? "must be true when it is set" : "can't be asked for here");
        out.whose = DB_AUDIT_ALL;
        break;
    default:
        return out;
    }
    if (st->code == STATUS_OK && !admin)
        status_set(st, STATUS_PERMISSION_DENIED, "ROLE_INSUFFICIENT",
                   "what is not the key's own tenant needs the role admin");
    return out;
}

static struct db_audit_scope read_scope(struct status *st, struct request *r, const Muster__V1__AuditScope *in,
                                        bool all_ok)
{
    struct db_audit_scope out = allowed_scope(st, r->caller, in, all_ok);
    if (st->code == STATUS_PERMISSION_DENIED)
        auth_denied(r->d, r->call, r->caller);
    return out;
}

/* --- listing ------------------------------------------------------------------------------------------------------ */

static char *copy(struct arena *a, const char *text)
{
    char *p = arena_copy(a, text, strlen(text));
    return p ? p : (char *)"";
}

/* NULL without memory. */
static Muster__V1__AuditEntry *present_entry(struct arena *a, const struct db_audit *row)
{
    Muster__V1__AuditEntry *e = arena_alloc(a, sizeof *e);
    if (!e)
        return NULL;
    muster__v1__audit_entry__init(e);
    e->number = row->number;
    e->place = (uint32_t)row->place;
    e->tenant = copy(a, row->tenant);
    e->at = present_time(a, row->at_ms);
    e->key_id = row->key;
    e->role = (Muster__V1__Role)row->role;
    e->address = copy(a, row->address);
    e->action = copy(a, row->action);
    e->detail = copy(a, row->detail);
    e->note = copy(a, row->note);
    e->tenant_number = row->tenant_number;
    if (row->devices >= 0) {
        e->concerns_case = MUSTER__V1__AUDIT_ENTRY__CONCERNS_DEVICES;
        e->devices = (uint32_t)row->devices;
    }
    e->outcome = copy(a, row->outcome);
    e->hash.data = (uint8_t *)arena_copy(a, row->hash.data, row->hash.len);
    e->hash.len = e->hash.data ? row->hash.len : 0;
    return e;
}

static void on_entries(struct request *r, const struct pg_result *const *results)
{
    struct audit_list *l = (struct audit_list *)r;
    size_t rows = (size_t)pg_rows(results[0]), n = rows < l->limit ? rows : l->limit;
    Muster__V1__ListAuditResponse out = MUSTER__V1__LIST_AUDIT_RESPONSE__INIT;
    Muster__V1__AuditEntry **list = request_alloc(r, n, sizeof *list);
    char token[PAGE_TOKEN_MAX];
    struct db_audit row = {0};
    for (size_t i = 0; list && i < n; i++) {
        db_audit_read(results[0], (int)i, &row);
        list[i] = present_entry(&r->arena, &row);
    }
    if (rows > n && n) {
        page_token_write(token, &l->filter, row.id, NULL);
        out.next_page_token = token;
    }
    out.entries = list;
    out.n_entries = n;
    request_reply(r, &out.base);
}

static int64_t read_time(struct status *st, const char *field, const Google__Protobuf__Timestamp *t, int64_t none)
{
    int64_t ms = none;
    if (t && !validate_timestamp(&ms, t))
        status_violation(st, field, "is no time");
    return ms;
}

void list_audit(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListAuditRequest *in = (const Muster__V1__ListAuditRequest *)request;
    struct audit_list *l = request_begin(call, service, sizeof *l);
    if (!l)
        return;
    struct status st = {0};
    struct page_token token;
    struct db_audit_scope scope = read_scope(&st, &l->r, in->scope, true);
    struct db_audit_filter f = {.batch = in->batch_id, .key = in->key_id, .action = in->action};
    validate_text(&st, "action", in->action, 0, ACTION_MAX);
    f.since_ms = read_time(&st, "since", in->since, INT64_MIN);
    f.until_ms = read_time(&st, "until", in->until, INT64_MAX);
    l->filter = page_filter_new(grpc_call_method(call)->path, l->r.tenant);
    page_filter_add_int(&l->filter, scope.whose);
    page_filter_add(&l->filter, CURSOR, sizeof CURSOR);
    if (scope.name)
        page_filter_add(&l->filter, scope.name, strlen(scope.name));
    page_filter_add_int(&l->filter, f.batch);
    page_filter_add_int(&l->filter, f.key);
    page_filter_add(&l->filter, f.action, strlen(f.action));
    page_filter_add_int(&l->filter, f.since_ms);
    page_filter_add_int(&l->filter, f.until_ms);
    l->limit = validate_page_size(&st, in->page_size, 100, 1000);
    page_token_read(&token, &st, &l->filter, "page_token", in->page_token, INT64_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&l->r, &st);
        return;
    }
    f.before = token.after;
    struct pg_txn *txn = request_txn(&l->r);
    db_audit_list(txn, &scope, &f, (int32_t)l->limit + 1);
    request_query(&l->r, txn, on_entries);
}

/* --- verifying ---------------------------------------------------------------------------------------------------- */

static void on_verdict(struct request *r, const struct pg_result *const *results)
{
    struct audit_verify *v = (struct audit_verify *)r;
    Muster__V1__VerifyAuditResponse out = MUSTER__V1__VERIFY_AUDIT_RESPONSE__INIT;
    struct db_audit_verdict row;
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_NOT_FOUND, "TENANT_NOT_FOUND", "there is no such tenant");
        return;
    }
    db_audit_verify_read(results[0], 0, &row);
    out.checked = (uint64_t)row.looked;
    out.number = row.good;
    out.hash = (ProtobufCBinaryData){row.hash.len, (uint8_t *)(uintptr_t)row.hash.data};
    out.more = !row.at_end && !*row.wrong && row.as_noted;
    if (*row.wrong) {
        out.broken = row.good + 1;
        out.wrong = (char *)(uintptr_t)row.wrong;
    } else if (!row.as_noted) {
        out.broken = v->noted;
        out.wrong = (char *)"not the one noted";
    }
    request_reply(r, &out.base);
}

void verify_audit(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__VerifyAuditRequest *in = (const Muster__V1__VerifyAuditRequest *)request;
    struct audit_verify *v = request_begin(call, service, sizeof *v);
    if (!v)
        return;
    struct status st = {0};
    struct db_audit_scope scope = read_scope(&st, &v->r, in->scope, false);
    if (in->after < 0)
        status_violation(&st, "after", "must not be negative");
    if (in->expect_number < 0)
        status_violation(&st, "expect_number", "must not be negative");
    if (in->expect_hash.len != (in->expect_number ? HASH_BYTES : 0))
        status_violation(&st, "expect_hash", "must be %u bytes, with expect_number", HASH_BYTES);
    if (st.code != STATUS_OK) {
        request_fail(&v->r, &st);
        return;
    }
    v->noted = in->expect_number;
    struct pg_txn *txn = request_txn(&v->r);
    db_audit_verify(txn, &scope, in->after, VERIFY_ROWS, in->expect_number,
                    (struct slice){in->expect_hash.data, in->expect_hash.len});
    request_query(&v->r, txn, on_verdict);
}

/* --- noting ------------------------------------------------------------------------------------------------------- */

static void on_noted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    (void)arg, (void)error, (void)results, (void)count;
    if (err)
        log_warn("audit_unwritten", "error=%s", err_name(err));
}

void audit_note(struct dispatcher *d, const struct grpc_call *call, const struct caller *caller, const char *action,
                const char *detail, const char *outcome, const char *note)
{
    struct pg_txn *txn = pg_txn_new(d->pg, PG_ANY_LANE);
    if (txn) {
        db_audit_caller(txn, grpc_call_peer(call));
        db_audit_add(txn, clock_wall_ms(), caller->tenant, caller->key, action, detail, -1, outcome, note);
    }
    pg_txn_submit(txn, on_noted, NULL);
}
