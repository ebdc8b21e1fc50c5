/* muster batch approve, batch reject, tenant policy. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/show.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/command_service.pb-c.h"

static void show_approved(const ProtobufCMessage *answer)
{
    show_batch(((const Muster__V1__ApproveBatchResponse *)answer)->batch);
}

int batch_approve(struct invocation *inv)
{
    const char *digest = "", *command_hash = "", *reason = "";
    const struct arg_flag flags[] = {
        {"digest", ARG_TEXT, &digest, "DIGEST", "of the devices, as `batch get` shows it", 0, 0},
        {"command-hash", ARG_TEXT, &command_hash, "HASH", "of the command, as `batch get` shows it", 0, 0},
        {"reason", ARG_TEXT, &reason, "TEXT", "why", 0, 0},
        {0},
    };
    struct args a = {.positional = "BATCH", .min = 1, .max = 1, .flags = flags};
    Muster__V1__ApproveBatchRequest request = MUSTER__V1__APPROVE_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    if (!*digest || !*command_hash)
        args_refuse(inv, "needs --digest and --command-hash: what exactly is approved");
    request.batch_id = args_number(inv, "BATCH", a.words.items[0]);
    request.target_digest = (char *)digest;
    request.command_hash = (char *)command_hash;
    request.reason = (char *)reason;
    return call_once(inv, "CommandService/ApproveBatch", &request.base, &muster__v1__approve_batch_response__descriptor,
                     show_approved);
}

static void show_rejected(const ProtobufCMessage *answer)
{
    show_batch(((const Muster__V1__RejectBatchResponse *)answer)->batch);
}

int batch_reject(struct invocation *inv)
{
    const char *reason = "";
    const struct arg_flag flags[] = {{"reason", ARG_TEXT, &reason, "TEXT", "why", 0, 0}, {0}};
    struct args a = {.positional = "BATCH", .min = 1, .max = 1, .flags = flags};
    Muster__V1__RejectBatchRequest request = MUSTER__V1__REJECT_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "BATCH", a.words.items[0]);
    request.reason = (char *)reason;
    return call_once(inv, "CommandService/RejectBatch", &request.base, &muster__v1__reject_batch_response__descriptor,
                     show_rejected);
}

/* --- policy ------------------------------------------------------------------------------------------------------- */

/* What the flags change; negative, NULL or none: as it is. */
struct changes {
    bool enable, disable;
    struct arg_list commands;
    int64_t devices, percent, cooling_off_ms, delay_ms, approval_ms;
};

static int64_t seconds(const Google__Protobuf__Duration *d)
{
    return d ? d->seconds : 0;
}

static void show_policy(const Muster__V1__GuardPolicy *p)
{
    printf("guard        %s\n  commands    ", p->enabled ? "on" : "off");
    for (size_t i = 0; i < p->n_commands; i++)
        printf(" %s", p->commands[i]);
    printf("\n  budget       %" PRIu32 " devices and %" PRIu32 " %% of the fleet an hour\n"
           "  cooling off  %" PRId64 " s after an approval, %" PRId64 " s within the budget\n"
           "  approval     awaited for %" PRId64 " s\n",
           p->devices_per_hour, p->percent_per_hour, seconds(p->cooling_off), seconds(p->delay),
           seconds(p->approval_lifetime));
}

static bool any(const struct changes *c)
{
    return c->enable || c->disable || c->commands.count || c->devices >= 0 || c->percent >= 0 ||
           c->cooling_off_ms >= 0 || c->delay_ms >= 0 || c->approval_ms >= 0;
}

static Google__Protobuf__Duration *duration(struct invocation *inv, Google__Protobuf__Duration *was, int64_t ms)
{
    return ms < 0 ? was : invocation_duration(inv, ms);
}

/* The policy that holds, with what the flags change: a copy that borrows from it. */
static Muster__V1__GuardPolicy changed(struct invocation *inv, const Muster__V1__GuardPolicy *was,
                                       const struct changes *c)
{
    Muster__V1__GuardPolicy p = *was;

    p.enabled = c->enable || (was->enabled && !c->disable);
    if (c->commands.count) {
        p.commands = (char **)c->commands.items;
        p.n_commands = c->commands.count;
    }
    p.devices_per_hour = c->devices < 0 ? was->devices_per_hour : (uint32_t)c->devices;
    p.percent_per_hour = c->percent < 0 ? was->percent_per_hour : (uint32_t)c->percent;
    p.cooling_off = duration(inv, was->cooling_off, c->cooling_off_ms);
    p.delay = duration(inv, was->delay, c->delay_ms);
    p.approval_lifetime = duration(inv, was->approval_lifetime, c->approval_ms);
    return p;
}

static int set_policy(struct session *s, struct invocation *inv, const char *tenant, const Muster__V1__GuardPolicy *was,
                      const struct changes *c)
{
    Muster__V1__SetGuardPolicyRequest request = MUSTER__V1__SET_GUARD_POLICY_REQUEST__INIT;
    Muster__V1__GuardPolicy policy = changed(inv, was, c);

    request.tenant = (char *)tenant;
    request.policy = &policy;
    Muster__V1__SetGuardPolicyResponse *answer = (Muster__V1__SetGuardPolicyResponse *)session_call(
        s, "AdminService/SetGuardPolicy", &request.base, &muster__v1__set_guard_policy_response__descriptor);
    if (!answer)
        return EXIT_RPC_FAIL;
    if (s->common->json)
        show_json(&answer->base);
    else
        show_policy(answer->policy);
    session_free_message(&answer->base);
    return EXIT_DONE;
}

static int run_policy(struct session *s, struct invocation *inv, const char *tenant, const struct changes *c)
{
    Muster__V1__GetGuardPolicyRequest request = MUSTER__V1__GET_GUARD_POLICY_REQUEST__INIT;
    int status = EXIT_DONE;

    request.tenant = (char *)tenant;
    Muster__V1__GetGuardPolicyResponse *answer = (Muster__V1__GetGuardPolicyResponse *)session_call(
        s, "AdminService/GetGuardPolicy", &request.base, &muster__v1__get_guard_policy_response__descriptor);
    if (!answer || !answer->policy) {
        status = EXIT_RPC_FAIL;
    } else if (any(c)) {
        status = set_policy(s, inv, tenant, answer->policy, c);
    } else if (s->common->json) {
        show_json(&answer->base);
    } else {
        show_policy(answer->policy);
        printf("  left         %" PRIu32 " devices in this hour\n", answer->devices_left);
    }
    if (answer)
        session_free_message(&answer->base);
    return status;
}

int tenant_policy(struct invocation *inv)
{
    struct changes c = {.devices = -1, .percent = -1, .cooling_off_ms = -1, .delay_ms = -1, .approval_ms = -1};
    const struct arg_flag flags[] = {
        {"enable", ARG_BOOL, &c.enable, "", "guard the tenant's devices", 0, 0},
        {"disable", ARG_BOOL, &c.disable, "", "hold nothing", 0, 0},
        {"command", ARG_LIST, &c.commands, "NAME", "guard this command, such as wipe; may be repeated", 0, 0},
        {"devices", ARG_INT, &c.devices, "N", "devices an hour without approval", 0, 1000000000},
        {"percent", ARG_INT, &c.percent, "N", "percent of the fleet an hour without approval", 0, 100},
        {"cooling-off", ARG_DURATION, &c.cooling_off_ms, "TIME", "nothing is sent so long after an approval", 0,
         86400000},
        {"delay", ARG_DURATION, &c.delay_ms, "TIME", "nothing is sent so long within the budget", 0, 86400000},
        {"approval-lifetime", ARG_DURATION, &c.approval_ms, "TIME", "how long an approval is waited for", 1000,
         604800000},
        {0},
    };
    struct args a = {.positional = "TENANT",
                     .min = 1,
                     .max = 1,
                     .flags = flags,
                     .notes = "Without flags shows the policy against irreversible commands; with flags changes it."};
    struct session s;

    args_parse(inv, &a);
    if (c.enable && c.disable)
        args_refuse(inv, "--enable and --disable contradict each other");
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = run_policy(&s, inv, a.words.items[0], &c);
    session_close(&s);
    return status;
}
