/* muster tenant create, muster tenant list. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/pager.h"
#include "cli/show.h"
#include "muster/v1/admin_service.pb-c.h"

static void show_created(const ProtobufCMessage *answer)
{
    const Muster__V1__CreateTenantResponse *r = (const Muster__V1__CreateTenantResponse *)answer;

    printf("tenant %s\n", r->tenant->name);
}

int tenant_create(struct invocation *inv)
{
    struct args a = {.positional = "NAME", .min = 1, .max = 1};
    Muster__V1__CreateTenantRequest request = MUSTER__V1__CREATE_TENANT_REQUEST__INIT;

    args_parse(inv, &a);
    request.name = (char *)a.words.items[0];
    return call_once(inv, "AdminService/CreateTenant", &request.base, &muster__v1__create_tenant_response__descriptor,
                     show_created);
}

static void show_tenants(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListTenantsResponse *r = (const Muster__V1__ListTenantsResponse *)answer;
    char at[SHOW_TIME_BYTES];

    if (first)
        printf("%-32s %10s  %s\n", "TENANT", "DEVICES", "CREATED");
    for (size_t i = 0; i < r->n_tenants; i++)
        printf("%-32s %10" PRIu32 "  %s\n", r->tenants[i]->name, r->tenants[i]->device_count,
               show_time(r->tenants[i]->created_at, at));
}

int tenant_list(struct invocation *inv)
{
    struct pager_flags page = {0};
    const struct arg_flag flags[] = {PAGER_FLAG(page), {0}};
    struct args a = {.positional = "", .flags = flags};
    Muster__V1__ListTenantsRequest request = MUSTER__V1__LIST_TENANTS_REQUEST__INIT;
    struct pager p = {.method = "AdminService/ListTenants",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_tenants_response__descriptor,
                      .items = "tenants",
                      .show = show_tenants};

    args_parse(inv, &a);
    return pager_run(inv, &p, &page);
}
