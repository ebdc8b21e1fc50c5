/* muster tenant quota. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/session.h"
#include "cli/show.h"
#include "muster/v1/admin_service.pb-c.h"

#define LIMIT_MAX 2000000000

/* What the flags change; negative: as it is. */
struct quota_flags {
    int64_t devices, open_batches, rate, burst;
};

static void show_limit(const char *name, uint32_t limit, const char *unit)
{
    if (limit)
        printf("%-13s %" PRIu32 "%s", name, limit, unit);
    else
        printf("%-13s unlimited", name);
}

static void show_quota(const Muster__V1__Quota *q, const Muster__V1__GetQuotaResponse *used)
{
    show_limit("devices", q->devices, "");
    if (used)
        printf(", %" PRIu32 " registered", used->devices);
    printf("\n");
    show_limit("open batches", q->open_batches, "");
    if (used)
        printf(", %" PRIu32 " open", used->open_batches);
    printf("\n");
    show_limit("commands", q->commands_per_second, " a second");
    if (q->commands_per_second)
        printf(", %" PRIu32 " at once", q->burst ? q->burst : q->commands_per_second);
    if (used && q->commands_per_second)
        printf(", %" PRId64 " now", used->commands_left);
    printf("\n");
}

static uint32_t changed(uint32_t was, int64_t flag)
{
    return flag < 0 ? was : (uint32_t)flag;
}

static int set(struct session *s, const char *tenant, const Muster__V1__Quota *was, const struct quota_flags *f)
{
    Muster__V1__SetQuotaRequest request = MUSTER__V1__SET_QUOTA_REQUEST__INIT;
    Muster__V1__Quota quota = MUSTER__V1__QUOTA__INIT;

    quota.devices = changed(was->devices, f->devices);
    quota.open_batches = changed(was->open_batches, f->open_batches);
    quota.commands_per_second = changed(was->commands_per_second, f->rate);
    quota.burst = f->rate == 0 && f->burst < 0 ? 0 : changed(was->burst, f->burst);
    request.tenant = (char *)tenant;
    request.quota = &quota;
    Muster__V1__SetQuotaResponse *answer = (Muster__V1__SetQuotaResponse *)session_call(
        s, "AdminService/SetQuota", &request.base, &muster__v1__set_quota_response__descriptor);
    if (!answer)
        return EXIT_RPC_FAIL;
    if (s->common->json)
        show_json(&answer->base);
    else
        show_quota(answer->quota, NULL);
    session_free_message(&answer->base);
    return EXIT_DONE;
}

static int run(struct session *s, const char *tenant, const struct quota_flags *f)
{
    Muster__V1__GetQuotaRequest request = MUSTER__V1__GET_QUOTA_REQUEST__INIT;
    int status = EXIT_DONE;

    request.tenant = (char *)tenant;
    Muster__V1__GetQuotaResponse *answer = (Muster__V1__GetQuotaResponse *)session_call(
        s, "AdminService/GetQuota", &request.base, &muster__v1__get_quota_response__descriptor);
    if (!answer || !answer->quota)
        status = EXIT_RPC_FAIL;
    else if (f->devices >= 0 || f->open_batches >= 0 || f->rate >= 0 || f->burst >= 0)
        status = set(s, tenant, answer->quota, f);
    else if (s->common->json)
        show_json(&answer->base);
    else
        show_quota(answer->quota, answer);
    if (answer)
        session_free_message(&answer->base);
    return status;
}

int tenant_quota(struct invocation *inv)
{
    struct quota_flags f = {-1, -1, -1, -1};
    const struct arg_flag flags[] = {
        {"devices", ARG_INT, &f.devices, "N", "devices registered at a time; 0: unlimited", 0, LIMIT_MAX},
        {"open-batches", ARG_INT, &f.open_batches, "N", "batches not closed at a time; 0: unlimited", 0, LIMIT_MAX},
        {"rate", ARG_INT, &f.rate, "N", "commands a second, one for each device; 0: unlimited", 0, LIMIT_MAX},
        {"burst", ARG_INT, &f.burst, "N", "commands that may come at once; 0: a second's", 0, LIMIT_MAX},
        {0},
    };
    struct args a = {.positional = "TENANT",
                     .min = 1,
                     .max = 1,
                     .flags = flags,
                     .notes =
                         "Without flags shows the quota and what is used of it; with flags changes what they name."};
    struct session s;

    args_parse(inv, &a);
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = run(&s, a.words.items[0], &f);
    session_close(&s);
    return status;
}
