/* muster audit list, audit verify. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/pager.h"
#include "cli/show.h"
#include "lib/base/clock.h"
#include "muster/v1/admin_service.pb-c.h"

#define HASH_BYTES 32u
#define TENANTS    1000u /* a page of them */

struct whose {
    const char *tenant;
    bool installation, all;
};
#define WHOSE_FLAGS(w)                                                                                                 \
    {"tenant", ARG_TEXT, &(w).tenant, "NAME", "of this tenant (role admin); the API key's own when absent", 0, 0},     \
        {"installation", ARG_BOOL, &(w).installation, "", "what concerns no single tenant (role admin)", 0, 0},        \
    {                                                                                                                  \
        "all", ARG_BOOL, &(w).all, "", "of every tenant and the installation (role admin)", 0, 0                       \
    }

static void check_whose(struct invocation *inv, const struct whose *w)
{
    if ((w->tenant != NULL) + w->installation + w->all > 1)
        args_refuse(inv, "--tenant, --installation and --all do not go together");
}

static void put_scope(Muster__V1__AuditScope *scope, const struct whose *w)
{
    muster__v1__audit_scope__init(scope);
    if (w->tenant) {
        scope->kind_case = MUSTER__V1__AUDIT_SCOPE__KIND_TENANT;
        scope->tenant = (char *)(uintptr_t)w->tenant;
    } else if (w->installation) {
        scope->kind_case = MUSTER__V1__AUDIT_SCOPE__KIND_INSTALLATION;
        scope->installation = true;
    } else if (w->all) {
        scope->kind_case = MUSTER__V1__AUDIT_SCOPE__KIND_ALL;
        scope->all = true;
    }
}

/* --- list --------------------------------------------------------------------------------------------------------- */

static void show_entries(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListAuditResponse *r = (const Muster__V1__ListAuditResponse *)answer;
    char at[SHOW_TIME_BYTES], devices[16];

    if (first)
        printf("%-25s %-16s %8s  %-22s %5s %-9s %-22s %-20s %9s  %s\n", "AT", "TENANT", "NUMBER", "ACTION", "KEY",
               "ROLE", "FROM", "WHAT", "DEVICES", "OUTCOME, NOTE");
    for (size_t i = 0; i < r->n_entries; i++) {
        const Muster__V1__AuditEntry *e = r->entries[i];
        snprintf(devices, sizeof devices, "%" PRIu32, e->devices);
        if (e->concerns_case != MUSTER__V1__AUDIT_ENTRY__CONCERNS_DEVICES)
            snprintf(devices, sizeof devices, "-");
        printf("%-25s %-16s %8" PRId64 "  %-22s %5" PRId64 " %-9s %-22s %-20s %9s  %s%s%s\n", show_time(e->at, at),
               e->tenant[0] ? e->tenant : "-", e->number, e->action, e->key_id,
               e->role ? show_enum(&muster__v1__role__descriptor, (int)e->role) : "-", e->address[0] ? e->address : "-",
               e->detail, devices, e->outcome, e->outcome[0] && e->note[0] ? ", " : "", e->note);
    }
}

int audit_list(struct invocation *inv)
{
    struct pager_flags page = {0};
    struct whose whose = {0};
    const char *action = "";
    int64_t batch = 0, key = 0, last_ms = 0;
    const struct arg_flag flags[] = {
        WHOSE_FLAGS(whose),
        {"batch", ARG_INT, &batch, "N", "only about this batch", 1, INT64_MAX},
        {"key", ARG_INT, &key, "N", "only by this key", 1, INT64_MAX},
        {"action", ARG_TEXT, &action, "NAME", "only of this kind, such as approve_batch", 0, 0},
        {"last", ARG_DURATION, &last_ms, "TIME", "only of this time until now, such as 7d", 1, INT64_MAX / 2},
        PAGER_FLAG(page),
        {0},
    };
    struct args a = {.positional = "", .flags = flags};
    Muster__V1__ListAuditRequest request = MUSTER__V1__LIST_AUDIT_REQUEST__INIT;
    Muster__V1__AuditScope scope;
    Google__Protobuf__Timestamp since = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    struct pager p = {.method = "AdminService/ListAudit",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_audit_response__descriptor,
                      .items = "entries",
                      .show = show_entries};

    args_parse(inv, &a);
    check_whose(inv, &whose);
    put_scope(&scope, &whose);
    request.scope = &scope;
    request.batch_id = batch;
    request.key_id = key;
    request.action = (char *)(uintptr_t)action;
    if (last_ms) {
        int64_t ms = clock_wall_ms() - last_ms;
        since.seconds = ms > 0 ? ms / 1000 : 0;
        request.since = &since;
    }
    return pager_run(inv, &p, &page);
}

/* --- verify ------------------------------------------------------------------------------------------------------- */

struct noted {
    int64_t number; /* 0: nothing was noted */
    uint8_t hash[HASH_BYTES];
};

/* "NUMBER:HASH", as verify prints it. */
static void read_noted(struct invocation *inv, const char *text, struct noted *out)
{
    char *end;
    size_t len;
    const char *stop;

    out->number = strtoll(text, &end, 10);
    if (out->number < 1 || *end != ':' ||
        sodium_hex2bin(out->hash, sizeof out->hash, end + 1, strlen(end + 1), NULL, &len, &stop) != 0 ||
        len != sizeof out->hash || *stop)
        args_refuse(inv, "--noted %s: is no NUMBER:HASH as audit verify prints it", text);
}

static void print_chain(const char *name, const Muster__V1__VerifyAuditResponse *answer, uint64_t checked)
{
    char hex[2 * HASH_BYTES + 1] = "-";

    if (answer->hash.len == HASH_BYTES)
        sodium_bin2hex(hex, sizeof hex, answer->hash.data, answer->hash.len);
    if (answer->broken)
        printf("%s: number %" PRId64 " is broken: %s; good up to %" PRId64 ":%s\n", name, answer->broken, answer->wrong,
               answer->number, hex);
    else
        printf("%s: %" PRIu64 " links, all as they were written, up to %" PRId64 ":%s\n", name, checked, answer->number,
               hex);
}

/* One chain, from its beginning to its end. */
static int verify_chain(struct session *s, const char *name, const struct whose *w, const struct noted *noted)
{
    Muster__V1__VerifyAuditRequest request = MUSTER__V1__VERIFY_AUDIT_REQUEST__INIT;
    Muster__V1__AuditScope scope;
    uint64_t checked = 0;
    int status = EXIT_DONE;
    bool more = true;

    put_scope(&scope, w);
    request.scope = &scope;
    request.expect_number = noted->number;
    request.expect_hash = (ProtobufCBinaryData){noted->number ? HASH_BYTES : 0, (uint8_t *)(uintptr_t)noted->hash};
    while (more) {
        Muster__V1__VerifyAuditResponse *answer = (Muster__V1__VerifyAuditResponse *)session_call(
            s, "AdminService/VerifyAudit", &request.base, &muster__v1__verify_audit_response__descriptor);
        if (!answer)
            return EXIT_RPC_FAIL;
        checked += answer->checked;
        more = answer->more;
        /* Found good once, it is so in the calls that follow. */
        if (answer->number >= request.expect_number) {
            request.expect_number = 0;
            request.expect_hash.len = 0;
        }
        request.after = answer->number;
        if (answer->broken)
            status = EXIT_NOT_ALL;
        if (!more && s->common->json)
            show_json(&answer->base);
        else if (!more)
            print_chain(name, answer, checked);
        session_free_message(&answer->base);
    }
    return status;
}

static int worse(int a, int b)
{
    return a > b ? a : b;
}

static int verify_all(struct session *s)
{
    const struct noted none = {0};
    Muster__V1__ListTenantsRequest request = MUSTER__V1__LIST_TENANTS_REQUEST__INIT;
    int status = verify_chain(s, "installation", &(struct whose){.installation = true}, &none);
    char token[1024] = "";

    request.page_size = TENANTS;
    do {
        request.page_token = token;
        Muster__V1__ListTenantsResponse *answer = (Muster__V1__ListTenantsResponse *)session_call(
            s, "AdminService/ListTenants", &request.base, &muster__v1__list_tenants_response__descriptor);
        if (!answer)
            return EXIT_RPC_FAIL;
        for (size_t i = 0; i < answer->n_tenants && status != EXIT_RPC_FAIL; i++)
            status = worse(status, verify_chain(s, answer->tenants[i]->name,
                                                &(struct whose){.tenant = answer->tenants[i]->name}, &none));
        snprintf(token, sizeof token, "%s", answer->next_page_token);
        session_free_message(&answer->base);
    } while (*token && status != EXIT_RPC_FAIL);
    return status;
}

int audit_verify(struct invocation *inv)
{
    struct whose whose = {0};
    const char *text = NULL;
    struct noted noted = {0};
    const struct arg_flag flags[] = {
        WHOSE_FLAGS(whose),
        {"noted", ARG_TEXT, &text, "NUMBER:HASH", "what verify printed before, noted outside of the installation", 0,
         0},
        {0},
    };
    struct args a = {.positional = "",
                     .flags = flags,
                     .notes = "Names the first number that is not as it was written. Exit status: 0 all are, 1 one is "
                              "not.\nWho could write to PostgreSQL could write the whole chain anew: note the line "
                              "elsewhere, and give it to --noted."};
    struct session s;

    args_parse(inv, &a);
    check_whose(inv, &whose);
    if (text && whose.all)
        args_refuse(inv, "--noted is about one chain: it does not go with --all");
    if (text)
        read_noted(inv, text, &noted);
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = whose.all ? verify_all(&s)
                           : verify_chain(&s,
                                          whose.tenant         ? whose.tenant
                                          : whose.installation ? "installation"
                                                               : "own tenant",
                                          &whose, &noted);
    session_close(&s);
    return status;
}
