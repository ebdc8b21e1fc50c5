/* muster batch submit. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cli/batch_command.h"
#include "cli/batch_watch.h"
#include "cli/commands.h"
#include "cli/retry.h"
#include "cli/steering.h"
#include "cli/target.h"
#include "cli/values.h"

struct submit {
    struct command_flags command;
    struct target_flags target;
    struct steering_flags steering;
    struct retry_flags retry;
    bool validate_only, require_all_known, watch, dynamic, skip_full;
    const char *priority, *request_id, *description, *digest, *supersede_key, *values;
    const char *expires; /* NULL: the service's default */
};

/* Messages the request points to. */
struct parts {
    char request_id[40];
};

/* A random UUID (RFC 9562, version 4), so that a call can be repeated without a second batch. */
static void make_request_id(char out[40])
{
    uint8_t b[16];

    if (getrandom(b, sizeof b, 0) != sizeof b)
        abort();
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static void fill(struct invocation *inv, struct submit *f, struct parts *p, Muster__V1__SubmitBatchRequest *r)
{
    int priority = 0;

    r->command = command_from_flags(inv, &f->command);
    if (f->values)
        r->values = values_from_file(inv, f->values);
    if (target_ways(&f->target) != 1 && (!f->values || target_given(&f->target)))
        args_refuse(inv, "needs exactly one of %s", TARGET_CHOICES);
    if (target_given(&f->target))
        r->target = target_from_flags(inv, &f->target);
    if (f->priority && !show_read_enum(&muster__v1__priority__descriptor, f->priority, &priority))
        args_refuse(inv, "--priority %s: is none of %s", f->priority,
                    show_enum_choices(&muster__v1__priority__descriptor));
    r->priority = (Muster__V1__Priority)priority;
    make_request_id(p->request_id);
    r->request_id = f->request_id ? (char *)f->request_id : p->request_id;
    r->description = (char *)f->description;
    r->validate_only = f->validate_only;
    r->require_all_known = f->require_all_known;
    r->dynamic = f->dynamic;
    r->skip_full = f->skip_full;
    r->target_digest = (char *)(f->digest ? f->digest : "");
    r->supersede_key = (char *)f->supersede_key;
    if (f->expires)
        r->expires_at = invocation_time(inv, "expires", f->expires);
    r->steering = steering_from_flags(inv, &f->steering);
    r->retry = retry_from_flags(inv, &f->retry);
    if (f->digest && !*f->digest) /* an unset variable: "these devices or none" would be whoever is meant now */
        args_refuse(inv, "--digest is empty");
    if (f->validate_only && f->watch)
        args_refuse(inv, "--watch does not go with --validate-only");
}

static void show_answer(const Muster__V1__SubmitBatchResponse *r, bool validate_only)
{
    if (validate_only) {
        printf("would address %" PRIu32 " devices\n", r->batch->device_count);
        for (size_t i = 0; i < r->n_platforms; i++)
            printf("  %-12s %10" PRIu32 "\n",
                   show_enum(&muster__v1__platform__descriptor, (int)r->platforms[i]->platform),
                   r->platforms[i]->devices);
        printf("  digest       %s\n", r->target_digest);
        if (r->approval_needed)
            printf("  would be held for approval\n");
    } else {
        if (r->replayed)
            printf("accepted before under this request id\n");
        show_batch(r->batch);
    }
    if (r->unknown_count)
        printf("  unknown      %" PRIu32 " device ids, such as %s\n", r->unknown_count,
               r->n_unknown_device_ids ? r->unknown_device_ids[0] : "?");
    if (r->skipped_count)
        printf("  left out     %" PRIu32 " devices with full mailboxes, such as %s\n", r->skipped_count,
               r->n_skipped_device_ids ? r->skipped_device_ids[0] : "?");
    fflush(stdout);
}

static int run(struct session *s, const struct submit *f, const Muster__V1__SubmitBatchRequest *request)
{
    struct watch_result result;
    Muster__V1__SubmitBatchResponse *answer = (Muster__V1__SubmitBatchResponse *)session_call(
        s, "CommandService/SubmitBatch", &request->base, &muster__v1__submit_batch_response__descriptor);

    if (!answer)
        return EXIT_RPC_FAIL;
    if (s->common->json)
        show_json(&answer->base);
    else
        show_answer(answer, f->validate_only);
    int64_t batch = answer->batch ? answer->batch->id : 0;
    session_free_message(&answer->base);
    if (!f->watch)
        return EXIT_DONE;
    int status = batch_watch_run(s, batch, &result);
    if (status != EXIT_RPC_FAIL && !s->common->json)
        batch_watch_summary(&result);
    return status;
}

#define OWN_FLAGS (13 + TARGET_FLAG_COUNT)

int batch_submit(struct invocation *inv)
{
    struct submit f = {.description = "", .supersede_key = ""};
    const struct arg_flag own[OWN_FLAGS] = {
        {"all", ARG_BOOL, &f.target.all, "", "address every device", 0, 0},
        TARGET_FLAGS(f.target),
        {"values", ARG_TEXT, &f.values, "FILE", "a value per device for {{NAME}} in the command: CSV, see below", 0, 0},
        {"priority", ARG_TEXT, &f.priority, "CLASS", "urgent, normal or bulk; by the type when absent", 0, 0},
        {"expires", ARG_TEXT, &f.expires, "TIME", "when what is not done ends: as --not-before (default 7d)", 0, 0},
        {"request-id", ARG_TEXT, &f.request_id, "ID",
         "a repeated call is harmless, if its times are moments; random when absent", 0, 0},
        {"description", ARG_TEXT, &f.description, "TEXT", "free text", 0, 0},
        {"digest", ARG_TEXT, &f.digest, "DIGEST", "refuse when the target means others than it did for this", 0, 0},
        {"supersede-key", ARG_TEXT, &f.supersede_key, "KEY", "older unsent commands with this key are superseded", 0,
         0},
        {"dynamic", ARG_BOOL, &f.dynamic, "", "devices that are meant later get it too, until it is sealed or expires",
         0, 0},
        {"validate-only", ARG_BOOL, &f.validate_only, "", "say what would happen and do nothing", 0, 0},
        {"require-all-known", ARG_BOOL, &f.require_all_known, "",
         "refuse when a listed id is unknown, excluded ones too", 0, 0},
        {"skip-full", ARG_BOOL, &f.skip_full, "", "leave out devices with too many open commands, and say which", 0, 0},
        {"watch", ARG_BOOL, &f.watch, "", "show progress until closed; exit 0 only if all succeeded", 0, 0},
    };
    struct arg_flag flags[OWN_FLAGS + STEERING_FLAG_COUNT + RETRY_FLAG_COUNT + COMMAND_FLAG_COUNT + 1] = {0};
    struct args a = {
        .positional = "",
        .flags = flags,
        .notes =
            "--values FILE has the heading id,NAME[,NAME...] and a line per device; * in place of the id stands for\n"
            "all devices without a line. Without a target the devices it lists are addressed. Fields with commas,\n"
            "quotes or line ends stand in double quotes. Values are secrets: they are deleted when the batch is\n"
            "closed, and nobody but the devices gets to see them. Example:\n"
            "  muster batch submit --type lock --passcode '{{code}}' --values codes.csv"};
    Muster__V1__SubmitBatchRequest request = MUSTER__V1__SUBMIT_BATCH_REQUEST__INIT;
    struct parts parts = {0};
    struct session s;

    memcpy(flags, own, sizeof own);
    steering_flags_table(&f.steering, flags + OWN_FLAGS);
    retry_flags_table(&f.retry, flags + OWN_FLAGS + STEERING_FLAG_COUNT);
    command_flags_table(&f.command, flags + OWN_FLAGS + STEERING_FLAG_COUNT + RETRY_FLAG_COUNT);
    args_parse(inv, &a);
    fill(inv, &f, &parts, &request);
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = run(&s, &f, &request);
    session_close(&s);
    return status;
}
