#include "dispatcher/groups.h"

#include "dispatcher/devices.h"
#include "dispatcher/filter_find.h"
#include "dispatcher/page_token.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/base/clock.h"
#include "lib/store/db_device.h"

/* CreateGroup, UpdateGroup, DeleteGroup. */
struct one_group {
    struct request r;
    const char *name;  /* of the request taken */
    const char *field; /* where unknown ids stood */
};

static struct one_group *one_group(struct grpc_call *call, void *service, const char *name, const char *field)
{
    struct one_group *g = request_begin(call, service, sizeof *g);
    if (!g)
        return NULL;
    grpc_call_take_request(call);
    g->name = name;
    g->field = field;
    return g;
}

struct unknown {
    struct status *st;
    const char *field;
};

static void add_unknown(void *arg, struct slice id)
{
    struct unknown *u = arg;
    status_violation(u->st, u->field, "%.*s is not registered", (int)id.len, (const char *)id.data);
}

/* True when ids were unknown: the call is refused then. */
static bool unknown_refused(struct one_group *g, const struct pg_result *r, int col)
{
    struct status st = {0};
    struct unknown u = {&st, g->field};
    pg_bytes_array(r, 0, col, add_unknown, &u);
    if (st.code == STATUS_OK)
        return false;
    st.reason = "UNKNOWN_DEVICES";
    request_fail(&g->r, &st);
    return true;
}

static Muster__V1__Group *changed(struct one_group *g, const struct pg_result *r, int col)
{
    struct db_group row = {g->name, (uint32_t)pg_int(r, 0, col), pg_int(r, 0, col + 1), ""};
    return present_group(&g->r.arena, &row);
}

/* Row: made, devices, created_ms, unknown. */
static void on_created(struct request *r, const struct pg_result *const *results)
{
    struct one_group *g = (struct one_group *)r;
    if (!pg_bool(results[0], 0, 0)) {
        request_refuse(r, STATUS_ALREADY_EXISTS, "GROUP_EXISTS", "there is a group %s already", g->name);
    } else if (!unknown_refused(g, results[0], 3)) {
        Muster__V1__CreateGroupResponse out = MUSTER__V1__CREATE_GROUP_RESPONSE__INIT;
        out.group = changed(g, results[0], 1);
        devices_changed(r->d, r->tenant);
        request_reply(r, &out.base);
    }
}

/* Row: the group. */
static void on_filter_created(struct request *r, const struct pg_result *const *results)
{
    struct one_group *g = (struct one_group *)r;
    struct db_group row;
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_ALREADY_EXISTS, "GROUP_EXISTS", "there is a group %s already", g->name);
        return;
    }
    db_group_read(results[0], 0, &row);
    Muster__V1__CreateGroupResponse out = MUSTER__V1__CREATE_GROUP_RESPONSE__INIT;
    out.group = present_group(&r->arena, &row);
    devices_changed(r->d, r->tenant);
    request_reply(r, &out.base);
}

void create_group(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__CreateGroupRequest *in = (const Muster__V1__CreateGroupRequest *)request;
    struct one_group *g = one_group(call, service, in->name, "device_ids");
    if (!g)
        return;
    struct status st = {0};
    validate_id(&st, "name", in->name);
    validate_ids(&st, "device_ids", in->device_ids, in->n_device_ids, 0, DEVICE_IDS_MAX);
    if (*in->filter)
        filter_find_check(&st, "filter", in->filter);
    if (*in->filter && in->n_device_ids)
        status_violation(&st, "device_ids", "do not go with a filter");
    if (st.code != STATUS_OK) {
        request_fail(&g->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&g->r);
    if (*in->filter) {
        db_group_create_filter(txn, g->r.tenant, in->name, in->filter, clock_wall_ms(), g->r.caller->key);
        request_query(&g->r, txn, on_filter_created);
        return;
    }
    db_group_create(txn, g->r.tenant, in->name, (const char *const *)in->device_ids, in->n_device_ids, clock_wall_ms(),
                    g->r.caller->key);
    request_query(&g->r, txn, on_created);
}

static void not_found(struct one_group *g)
{
    request_refuse(&g->r, STATUS_NOT_FOUND, "GROUP_NOT_FOUND", "there is no group %s", g->name);
}

/* Nothing was changed: there is no such group, or it is of the other kind. */
static void not_changed(struct one_group *g, const struct pg_result *group)
{
    struct db_group row;
    if (!pg_rows(group)) {
        not_found(g);
        return;
    }
    db_group_read(group, 0, &row);
    if (*row.filter)
        request_refuse(&g->r, STATUS_FAILED_PRECONDITION, "GROUP_HAS_FILTER",
                       "the members of group %s are those its filter matches", g->name);
    else
        request_refuse(&g->r, STATUS_FAILED_PRECONDITION, "GROUP_HAS_MEMBERS", "group %s has a list of members",
                       g->name);
}

/* Results: the group as changed; the group. */
static void on_filter_updated(struct request *r, const struct pg_result *const *results)
{
    struct one_group *g = (struct one_group *)r;
    struct db_group row;
    if (!pg_rows(results[0])) {
        not_changed(g, results[1]);
        return;
    }
    db_group_read(results[0], 0, &row);
    Muster__V1__UpdateGroupResponse out = MUSTER__V1__UPDATE_GROUP_RESPONSE__INIT;
    out.group = present_group(&r->arena, &row);
    devices_changed(r->d, r->tenant);
    request_reply(r, &out.base);
}

/* Results: devices, created_ms, unknown; the group. */
static void on_updated(struct request *r, const struct pg_result *const *results)
{
    struct one_group *g = (struct one_group *)r;
    if (!pg_rows(results[0])) {
        not_changed(g, results[1]);
    } else if (!unknown_refused(g, results[0], 2)) {
        Muster__V1__UpdateGroupResponse out = MUSTER__V1__UPDATE_GROUP_RESPONSE__INIT;
        out.group = changed(g, results[0], 0);
        devices_changed(r->d, r->tenant);
        request_reply(r, &out.base);
    }
}

void update_group(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__UpdateGroupRequest *in = (const Muster__V1__UpdateGroupRequest *)request;
    struct one_group *g = one_group(call, service, in->name, "add_device_ids");
    if (!g)
        return;
    struct status st = {0};
    validate_id(&st, "name", in->name);
    validate_ids(&st, "add_device_ids", in->add_device_ids, in->n_add_device_ids, 0, DEVICE_IDS_MAX);
    validate_ids(&st, "remove_device_ids", in->remove_device_ids, in->n_remove_device_ids, 0, DEVICE_IDS_MAX);
    if (*in->filter)
        filter_find_check(&st, "filter", in->filter);
    if (*in->filter && (in->n_add_device_ids || in->n_remove_device_ids))
        status_violation(&st, "filter", "does not go with devices to add or remove");
    if (st.code != STATUS_OK) {
        request_fail(&g->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&g->r);
    if (*in->filter) {
        db_group_change_filter(txn, g->r.tenant, in->name, in->filter, clock_wall_ms(), g->r.caller->key);
        db_group_get(txn, g->r.tenant, in->name);
        request_query(&g->r, txn, on_filter_updated);
        return;
    }
    db_group_change(txn, g->r.tenant, in->name, (const char *const *)in->add_device_ids, in->n_add_device_ids,
                    (const char *const *)in->remove_device_ids, in->n_remove_device_ids, clock_wall_ms(),
                    g->r.caller->key);
    db_group_get(txn, g->r.tenant, in->name);
    request_query(&g->r, txn, on_updated);
}

static void on_deleted(struct request *r, const struct pg_result *const *results)
{
    struct one_group *g = (struct one_group *)r;
    if (!pg_rows(results[0])) {
        not_found(g);
        return;
    }
    Muster__V1__DeleteGroupResponse out = MUSTER__V1__DELETE_GROUP_RESPONSE__INIT;
    devices_changed(r->d, r->tenant);
    request_reply(r, &out.base);
}

void delete_group(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__DeleteGroupRequest *in = (const Muster__V1__DeleteGroupRequest *)request;
    struct one_group *g = one_group(call, service, in->name, NULL);
    if (!g)
        return;
    struct status st = {0};
    validate_id(&st, "name", in->name);
    if (st.code != STATUS_OK) {
        request_fail(&g->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&g->r);
    db_group_delete(txn, g->r.tenant, in->name, clock_wall_ms(), g->r.caller->key);
    request_query(&g->r, txn, on_deleted);
}

struct group_list {
    struct request r;
    uint32_t limit;
    struct page_filter filter;
};

static void on_list(struct request *r, const struct pg_result *const *results)
{
    struct group_list *l = (struct group_list *)r;
    size_t rows = (size_t)pg_rows(results[0]), n = rows < l->limit ? rows : l->limit;
    Muster__V1__ListGroupsResponse out = MUSTER__V1__LIST_GROUPS_RESPONSE__INIT;
    Muster__V1__Group **list = request_alloc(r, n, sizeof *list);
    char token[PAGE_TOKEN_MAX];
    struct db_group row = {0};
    for (size_t i = 0; list && i < n; i++) {
        db_group_read(results[0], (int)i, &row);
        list[i] = present_group(&r->arena, &row);
    }
    if (rows > n && n) {
        page_token_write(token, &l->filter, 0, row.name);
        out.next_page_token = token;
    }
    out.groups = list;
    out.n_groups = n;
    request_reply(r, &out.base);
}

void list_groups(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListGroupsRequest *in = (const Muster__V1__ListGroupsRequest *)request;
    struct group_list *l = request_begin(call, service, sizeof *l);
    if (!l)
        return;
    struct status st = {0};
    struct page_token token;
    l->filter = page_filter_new(grpc_call_method(call)->path, l->r.tenant);
    l->limit = validate_page_size(&st, in->page_size, 100, 1000);
    page_token_read(&token, &st, &l->filter, "page_token", in->page_token, 0);
    if (st.code != STATUS_OK) {
        request_fail(&l->r, &st);
        return;
    }
    struct pg_txn *txn = request_txn(&l->r);
    db_group_list(txn, l->r.tenant, token.after_name, (int32_t)l->limit + 1);
    request_query(&l->r, txn, on_list);
}
