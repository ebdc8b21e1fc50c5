/* muster verify: whether PostgreSQL, Redis and the workers agree. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/session.h"
#include "cli/show.h"
#include "cli/visible.h"
#include "muster/v1/admin_service.pb-c.h"

struct run {
    struct session *s;
    bool ended, told;
    uint32_t found, left;
    struct status status;
};

/* "redis_behind" of DIFFERENCE_REDIS_BEHIND. */
static void print_kind(Muster__V1__Difference kind)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&muster__v1__difference__descriptor, (int)kind);
    const char *name = v ? v->name : "DIFFERENCE_UNKNOWN";
    for (name += strlen("DIFFERENCE_"); *name; name++)
        putchar(*name >= 'A' && *name <= 'Z' ? *name + ('a' - 'A') : *name);
}

static void print_side(const char *name, const char *said)
{
    if (!*said)
        return;
    printf(" %s=\"", name);
    visible_print(stdout, said);
    putchar('"');
}

static void print_finding(const Muster__V1__Finding *f)
{
    print_kind(f->difference);
    if (*f->tenant)
        printf(" tenant=%s block=%" PRIu32, f->tenant, f->block);
    if (f->batch_id)
        printf(" batch=%" PRId64, f->batch_id);
    if (f->worker)
        printf(" worker=%" PRIu32, f->worker);
    printf(" count=%" PRIu32, f->count);
    print_side("postgres", f->postgres);
    print_side("redis", f->redis);
    print_side("worker_says", f->workers);
    print_side("repair", f->repair);
    putchar('\n');
}

static void print_summary(const Muster__V1__VerifySummary *s)
{
    printf("%" PRIu64 " open batches in %" PRIu64 " block rows, %" PRIu64 " blocks of devices, %" PRIu64
           " keys, %" PRIu32 " workers: %" PRIu32 "%s differences, %" PRIu32 " left\n",
           s->batches, s->block_rows, s->blocks, s->keys, s->workers, s->found, s->more ? " and more" : "", s->left);
}

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct run *r = arg;
    const Muster__V1__VerifyResponse *answer = (const Muster__V1__VerifyResponse *)response;
    (void)call;
    if (answer->summary) {
        r->told = true;
        r->found = answer->summary->found;
        r->left = answer->summary->left;
    }
    if (r->s->common->json)
        show_json(response);
    else if (answer->finding)
        print_finding(answer->finding);
    else if (answer->summary)
        print_summary(answer->summary);
    fflush(stdout);
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct run *r = arg;
    (void)call;
    r->status = *status;
    r->ended = true;
    ev_break(r->s->loop, EVBREAK_ONE);
}

static int stream(struct session *s, const Muster__V1__VerifyRequest *request)
{
    static const struct grpc_client_handler handler = {.on_message = on_message, .on_status = on_status};
    struct run r = {.s = s};
    struct grpc_client_call *call = grpc_client_start(s->client, "/muster.v1.AdminService/Verify",
                                                      &muster__v1__verify_response__descriptor, 0, &handler, &r);
    if (!call)
        return EXIT_RPC_FAIL;
    grpc_client_send(call, &request->base);
    grpc_client_end(call);
    while (!r.ended)
        ev_run(s->loop, 0);
    if (r.status.code != STATUS_OK || !r.told) {
        session_print_error(&r.status, s->common->json);
        return EXIT_RPC_FAIL;
    }
    return r.left ? EXIT_NOT_ALL : EXIT_DONE;
}

int verify_run(struct invocation *inv)
{
    Muster__V1__VerifyRequest request = MUSTER__V1__VERIFY_REQUEST__INIT;
    const char *tenant = "";
    bool repair = false;
    const struct arg_flag flags[] = {
        {"tenant", ARG_TEXT, &tenant, "NAME", "only this tenant (default: all, and what is no tenant's)", 0, 0},
        {"repair", ARG_BOOL, &repair, NULL, "repair what differs, and look again", 0, 0},
        {0}};
    struct args a = {.positional = "",
                     .flags = flags,
                     .notes =
                         "A line for each difference; what is only in transit is none. Needs a key of the role admin.\n"
                         "Exit status: 0 all agree (or were made to), 1 differences are left."};
    struct session s;
    args_parse(inv, &a);
    request.tenant = (char *)(uintptr_t)tenant;
    request.repair = repair;
    if (session_open(&s, &inv->common))
        return EXIT_USAGE;
    int status = stream(&s, &request);
    session_close(&s);
    return status;
}
