/* muster key create, list, revoke. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/pager.h"
#include "cli/show.h"
#include "muster/v1/admin_service.pb-c.h"

static void show_created(const ProtobufCMessage *answer)
{
    const Muster__V1__CreateApiKeyResponse *r = (const Muster__V1__CreateApiKeyResponse *)answer;

    fprintf(stderr, "key %" PRId64 " of %s, role %s; shown only now:\n", r->key->id, r->key->tenant,
            show_enum(&muster__v1__role__descriptor, (int)r->key->role));
    printf("%s\n", r->secret);
}

int key_create(struct invocation *inv)
{
    const char *role = "operator", *description = "";
    const struct arg_flag flags[] = {
        {"role", ARG_TEXT, &role, "ROLE", "admin, operator (default) or read-only", 0, 0},
        {"description", ARG_TEXT, &description, "TEXT", "to know the key by", 0, 0},
        {0},
    };
    struct args a = {.positional = "TENANT", .min = 1, .max = 1, .flags = flags};
    Muster__V1__CreateApiKeyRequest request = MUSTER__V1__CREATE_API_KEY_REQUEST__INIT;
    int value = 0;

    args_parse(inv, &a);
    if (!show_read_enum(&muster__v1__role__descriptor, role, &value))
        args_refuse(inv, "--role %s: is none of %s", role, show_enum_choices(&muster__v1__role__descriptor));
    request.tenant = (char *)a.words.items[0];
    request.role = (Muster__V1__Role)value;
    request.description = (char *)description;
    return call_once(inv, "AdminService/CreateApiKey", &request.base, &muster__v1__create_api_key_response__descriptor,
                     show_created);
}

static void show_key(const Muster__V1__ApiKey *k)
{
    char created[SHOW_TIME_BYTES], revoked[SHOW_TIME_BYTES];

    printf("%8" PRId64 "  %-24s %-10s %-25s %-25s %s\n", k->id, k->tenant,
           show_enum(&muster__v1__role__descriptor, (int)k->role), show_time(k->created_at, created),
           show_time(k->revoked_at, revoked), k->description);
}

static void show_keys(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListApiKeysResponse *r = (const Muster__V1__ListApiKeysResponse *)answer;

    if (first)
        printf("%8s  %-24s %-10s %-25s %-25s %s\n", "KEY", "TENANT", "ROLE", "CREATED", "REVOKED", "DESCRIPTION");
    for (size_t i = 0; i < r->n_keys; i++)
        show_key(r->keys[i]);
}

int key_list(struct invocation *inv)
{
    struct pager_flags page = {0};
    const struct arg_flag flags[] = {PAGER_FLAG(page), {0}};
    struct args a = {.positional = "TENANT", .min = 1, .max = 1, .flags = flags};
    Muster__V1__ListApiKeysRequest request = MUSTER__V1__LIST_API_KEYS_REQUEST__INIT;
    struct pager p = {.method = "AdminService/ListApiKeys",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_api_keys_response__descriptor,
                      .items = "keys",
                      .show = show_keys};

    args_parse(inv, &a);
    request.tenant = (char *)a.words.items[0];
    return pager_run(inv, &p, &page);
}

static void show_revoked(const ProtobufCMessage *answer)
{
    show_key(((const Muster__V1__RevokeApiKeyResponse *)answer)->key);
}

int key_revoke(struct invocation *inv)
{
    struct args a = {.positional = "KEY-NUMBER", .min = 1, .max = 1};
    Muster__V1__RevokeApiKeyRequest request = MUSTER__V1__REVOKE_API_KEY_REQUEST__INIT;

    args_parse(inv, &a);
    request.key_id = args_number(inv, "key", a.words.items[0]);
    return call_once(inv, "AdminService/RevokeApiKey", &request.base, &muster__v1__revoke_api_key_response__descriptor,
                     show_revoked);
}
