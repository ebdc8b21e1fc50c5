/* muster hold, muster release, muster holds: a tenant's commands, or all. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/show.h"
#include "muster/v1/control_service.pb-c.h"

static void show_scope(const Muster__V1__HeldScope *h)
{
    char at[SHOW_TIME_BYTES];

    printf("%-24s held %s", h->tenant[0] ? h->tenant : "ALL TENANTS", show_time(h->held_at, at));
    printf(h->confirmed_at ? ", confirmed %s" : ", NOT CONFIRMED: some worker may still send",
           show_time(h->confirmed_at, at));
    printf("%s%s\n", h->reason[0] ? "  " : "", h->reason);
}

static void show_held(const ProtobufCMessage *answer)
{
    const Muster__V1__HoldResponse *r = (const Muster__V1__HoldResponse *)answer;
    char text[320];

    show_scope(r->hold);
    if (r->open_batches > r->n_batches)
        printf("  %" PRIu32
               " open batches; the newest %zu are these, `muster batch list --state open` has all of a tenant\n",
               r->open_batches, r->n_batches);
    for (size_t i = 0; i < r->n_batches; i++) {
        const Muster__V1__HeldBatch *b = r->batches[i];
        show_progress_text(b->progress, text, sizeof text);
        printf("  batch %" PRId64 " of %s: %" PRIu32 " devices have got it; %s\n", b->batch_id, b->tenant, b->given,
               text);
    }
}

/* What is not confirmed is not done: a worker may still send. */
static enum exit_status judge_held(const ProtobufCMessage *answer)
{
    const Muster__V1__HoldResponse *r = (const Muster__V1__HoldResponse *)answer;

    return r->hold && r->hold->confirmed_at ? EXIT_DONE : EXIT_NOT_ALL;
}

static enum exit_status judge_released(const ProtobufCMessage *answer)
{
    return ((const Muster__V1__ReleaseResponse *)answer)->confirmed_at ? EXIT_DONE : EXIT_NOT_ALL;
}

static void show_released(const ProtobufCMessage *answer)
{
    const Muster__V1__ReleaseResponse *r = (const Muster__V1__ReleaseResponse *)answer;
    char at[SHOW_TIME_BYTES];

    if (r->confirmed_at)
        printf("released %s\n", show_time(r->confirmed_at, at));
    else
        printf("released; some worker has not confirmed it yet\n");
}

struct scope {
    bool all;
    const char *tenant, *reason;
};
#define SCOPE_FLAGS(s)                                                                                                 \
    {"all", ARG_BOOL, &(s).all, "", "everything, of all tenants (role admin)", 0, 0},                                  \
        {"tenant", ARG_TEXT, &(s).tenant, "NAME", "of this tenant (role admin); the API key's own when absent", 0, 0}, \
    {                                                                                                                  \
        "reason", ARG_TEXT, &(s).reason, "TEXT", "why, for those who look at it", 0, 0                                 \
    }

static void parse(struct invocation *inv, struct scope *s, const struct arg_flag *flags, const char *notes)
{
    struct args a = {.positional = "", .flags = flags, .notes = notes};

    args_parse(inv, &a);
    if (s->all && s->tenant)
        args_refuse(inv, "--all does not go with --tenant");
}

int hold_run(struct invocation *inv)
{
    struct scope s = {.reason = ""};
    const struct arg_flag flags[] = {SCOPE_FLAGS(s), {0}};
    Muster__V1__HoldRequest request = MUSTER__V1__HOLD_REQUEST__INIT;

    parse(inv, &s, flags,
          "Exit status: 0 confirmed, no worker can send any more; 1 it holds, but some worker has not confirmed it\n"
          "within 5 s and may still send: ask again, or see `muster holds`.");
    if (s.all) {
        request.scope_case = MUSTER__V1__HOLD_REQUEST__SCOPE_ALL;
        request.all = true;
    } else if (s.tenant) {
        request.scope_case = MUSTER__V1__HOLD_REQUEST__SCOPE_TENANT;
        request.tenant = (char *)s.tenant;
    }
    request.reason = (char *)s.reason;
    return call_judged(inv, "ControlService/Hold", &request.base, &muster__v1__hold_response__descriptor, show_held,
                       judge_held);
}

int release_run(struct invocation *inv)
{
    struct scope s = {.reason = ""};
    const struct arg_flag flags[] = {SCOPE_FLAGS(s), {0}};
    Muster__V1__ReleaseRequest request = MUSTER__V1__RELEASE_REQUEST__INIT;

    parse(inv, &s, flags,
          "Exit status: 0 every worker knows it; 1 released, but some worker has not confirmed it within 5 s: it goes\n"
          "on as soon as it has.");
    if (s.all) {
        request.scope_case = MUSTER__V1__RELEASE_REQUEST__SCOPE_ALL;
        request.all = true;
    } else if (s.tenant) {
        request.scope_case = MUSTER__V1__RELEASE_REQUEST__SCOPE_TENANT;
        request.tenant = (char *)s.tenant;
    }
    request.reason = (char *)s.reason;
    return call_judged(inv, "ControlService/Release", &request.base, &muster__v1__release_response__descriptor,
                       show_released, judge_released);
}

static void show_list(const ProtobufCMessage *answer)
{
    const Muster__V1__ListHoldsResponse *r = (const Muster__V1__ListHoldsResponse *)answer;

    for (size_t i = 0; i < r->n_holds; i++)
        show_scope(r->holds[i]);
    if (!r->n_holds)
        printf("nothing is held\n");
}

int holds_run(struct invocation *inv)
{
    struct args a = {.positional = ""};
    Muster__V1__ListHoldsRequest request = MUSTER__V1__LIST_HOLDS_REQUEST__INIT;

    args_parse(inv, &a);
    return call_once(inv, "ControlService/ListHolds", &request.base, &muster__v1__list_holds_response__descriptor,
                     show_list);
}
