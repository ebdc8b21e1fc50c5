#include "cli/command_export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/show.h"
#include "lib/base/clock.h"

/* A dispatcher that goes away is asked again, every so often, for so long. */
#define RETRY_S      0.25
#define RETRY_FOR_US 30000000

struct run {
    struct session *s;
    const struct command_export *export;
    struct row_writer rows;
    int64_t left; /* of the limit */
    bool limited, ended, stopped;
    char *token; /* owned: behind what is written; NULL before the first message */
    int64_t last_heard_us;
    struct status status;
};

/* Ends the call from here: all that is wanted is there, or nobody takes it. */
static void stop(struct run *r, struct grpc_client_call *call)
{
    r->stopped = true;
    grpc_client_cancel(call);
}

static void write_rows(struct run *r, const Muster__V1__ExportCommandsResponse *answer)
{
    size_t n = answer->n_commands;
    if (r->limited && (int64_t)n > r->left)
        n = (size_t)r->left;
    for (size_t i = 0; i < n; i++)
        row_writer_put(&r->rows, answer->commands[i]);
    r->left -= (int64_t)n;
}

static void write_json(struct run *r, const Muster__V1__ExportCommandsResponse *answer)
{
    Muster__V1__ExportCommandsResponse part = *answer; /* borrows */
    if (r->limited && (int64_t)part.n_commands > r->left)
        part.n_commands = (size_t)r->left;
    r->left -= (int64_t)part.n_commands;
    show_json(&part.base);
}

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct run *r = arg;
    const Muster__V1__ExportCommandsResponse *answer = (const Muster__V1__ExportCommandsResponse *)response;

    if (r->stopped)
        return;
    free(r->token);
    r->token = strdup(answer->resume_token);
    r->last_heard_us = clock_mono_us();
    if (r->s->common->json)
        write_json(r, answer);
    else
        write_rows(r, answer);
    if (!row_writer_flush(&r->rows) || !r->token || ferror(stdout) || (r->limited && r->left == 0))
        stop(r, call);
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct run *r = arg;

    (void)call;
    r->status = *status;
    r->ended = true;
    ev_break(r->s->loop, EVBREAK_ONE);
}

static void stream_once(struct run *r)
{
    static const struct grpc_client_handler handler = {.on_message = on_message, .on_status = on_status};
    struct grpc_client_call *call =
        grpc_client_start(r->s->client, "/muster.v1.CommandService/ExportCommands",
                          &muster__v1__export_commands_response__descriptor, 0, &handler, r);

    r->ended = false;
    if (!call) {
        status_set(&r->status, STATUS_INTERNAL, NULL, "out of memory");
        return;
    }
    r->export->request->resume_token = r->token ? r->token : (char *)"";
    grpc_client_send(call, &r->export->request->base);
    grpc_client_end(call);
    while (!r->ended)
        ev_run(r->s->loop, 0);
    r->export->request->resume_token = (char *)"";
}

int command_export_run(struct session *s, const struct command_export *export)
{
    struct run r = {.s = s,
                    .export = export,
                    .rows = {.format = export->format, .begun = s->common->json},
                    .left = export->limit,
                    .limited = export->limit > 0};

    stream_once(&r);
    while (!r.stopped && r.status.code == STATUS_UNAVAILABLE && r.token &&
           clock_mono_us() - r.last_heard_us < RETRY_FOR_US) {
        session_pause(s, RETRY_S);
        stream_once(&r);
    }
    bool done = r.stopped || r.status.code == STATUS_OK;
    if (done)
        row_writer_begin(&r.rows);
    bool written = row_writer_flush(&r.rows) && !ferror(stdout) && (r.token || !r.stopped);
    if (!done)
        session_print_error(&r.status, s->common->json);
    row_writer_free(&r.rows);
    free(r.token);
    return !done ? EXIT_RPC_FAIL : written ? EXIT_DONE : EXIT_NOT_ALL;
}
