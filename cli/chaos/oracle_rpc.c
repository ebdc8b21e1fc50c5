#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chaos/chaos.h"
#include "muster/v1/command_service.pb-c.h"
#include "proto/command_id.h"

/* For one batch; a stream that breaks off is asked for again. */
#define EXPORT_MS 60000
#define TRIES     5

/* The export of one batch under way. */
struct export
{
    struct chaos *chaos;
    struct ev_loop *loop;
    int tenant;      /* who asks */
    size_t from, to; /* the batch's commands in the evidence */
    uint64_t batch, strangers;
    bool over;
    struct status status;
};

static struct told_command *find(struct export *x, uint32_t seq)
{
    struct told_command *list = x->chaos->evidence.commands;
    size_t low = x->from, high = x->to;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low < x->to && list[low].seq == seq ? &list[low] : NULL;
}

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct export *x = arg;
    const Muster__V1__ExportCommandsResponse *in = (const Muster__V1__ExportCommandsResponse *)response;

    (void)call;
    for (size_t i = 0; i < in->n_commands; i++) {
        const Muster__V1__CommandStatus *s = in->commands[i];
        struct command_id id;
        bool read = command_id_read(&id, s->command_id, strlen(s->command_id)) && id.batch == x->batch;
        struct told_command *t = read ? find(x, id.seq) : NULL;
        if (t)
            t->told = (uint8_t)s->state;
        else
            x->strangers++;
    }
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct export *x = arg;

    (void)call;
    x->over = true;
    x->status = *status;
    ev_break(x->loop, EVBREAK_ALL);
}

static bool export_once(struct export *x, struct session *s)
{
    static const struct grpc_client_handler handler = {.on_message = on_message, .on_status = on_status};
    Muster__V1__ExportCommandsRequest request = MUSTER__V1__EXPORT_COMMANDS_REQUEST__INIT;

    x->over = false;
    x->strangers = 0;
    request.batch_id = (int64_t)x->batch;
    struct grpc_client_call *call =
        grpc_client_start(s->client, "/muster.v1.CommandService/ExportCommands",
                          &muster__v1__export_commands_response__descriptor, EXPORT_MS, &handler, x);
    if (!call)
        abort();
    grpc_client_send(call, &request.base);
    grpc_client_end(call);
    while (!x->over)
        ev_run(s->loop, 0);
    return x->status.code == STATUS_OK;
}

/* What its owner is told of a batch; and that the other tenant is told nothing. */
static bool look(struct chaos *c, struct session sessions[CHAOS_TENANTS], const struct stored_batch *b, size_t from,
                 size_t to)
{
    int owner = b->tenant == c->tenants[0] ? 0 : 1;
    struct export x = {.chaos = c, .loop = sessions[0].loop, .from = from, .to = to, .batch = b->id};

    for (int i = 0; i < TRIES; i++) {
        if (export_once(&x, &sessions[owner]))
            break;
        if (i + 1 == TRIES) {
            fprintf(stderr, "muster chaos: export of batch %" PRIu64 ": %s %s\n", b->id,
                    status_code_name(x.status.code), x.status.message);
            return false;
        }
    }
    if (x.strangers)
        verdict_complain(&c->verdict, BREACH_WITNESSES_DIFFER,
                         "batch %" PRIu64 ": gRPC tells of %" PRIu64 " commands that SQL does not have", b->id,
                         x.strangers);
    struct export foreign = {.chaos = c, .loop = sessions[0].loop, .batch = b->id};
    if (export_once(&foreign, &sessions[1 - owner]) || foreign.status.code != STATUS_NOT_FOUND)
        verdict_complain(&c->verdict, BREACH_FOREIGN_TENANT, "batch %" PRIu64 " of tenant %u: the other is told %s",
                         b->id, b->tenant, status_code_name(foreign.status.code));
    return true;
}

static bool look_at_all(struct chaos *c, struct session sessions[CHAOS_TENANTS])
{
    const struct evidence *e = &c->evidence;
    size_t from = 0;

    for (size_t i = 0; i < e->batch_count; i++) {
        while (from < e->command_count && e->commands[from].batch < e->batches[i].id)
            from++;
        size_t to = from;
        while (to < e->command_count && e->commands[to].batch == e->batches[i].id)
            to++;
        if (c->dev.group.broken || !look(c, sessions, &e->batches[i], from, to))
            return false;
        from = to;
    }
    return true;
}

bool chaos_gather_rpc(struct chaos *c)
{
    struct session sessions[CHAOS_TENANTS];
    struct common common[CHAOS_TENANTS];
    int open = 0;

    for (; open < CHAOS_TENANTS; open++) {
        common[open] = chaos_caller(c, open, open % (int)c->options.dispatchers);
        if (session_open(&sessions[open], &common[open]) != ERR_OK)
            break;
    }
    bool good = open == CHAOS_TENANTS && look_at_all(c, sessions);
    while (open > 0)
        session_close(&sessions[--open]);
    return good;
}
