/* muster batch get, list, commands; muster command get. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/command_export.h"
#include "cli/command_rows.h"
#include "cli/commands.h"
#include "cli/pager.h"
#include "cli/show.h"

static void show_got(const ProtobufCMessage *answer)
{
    show_batch(((const Muster__V1__GetBatchResponse *)answer)->batch);
}

int batch_get(struct invocation *inv)
{
    struct args a = {.positional = "BATCH", .min = 1, .max = 1};
    Muster__V1__GetBatchRequest request = MUSTER__V1__GET_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    return call_once(inv, "CommandService/GetBatch", &request.base, &muster__v1__get_batch_response__descriptor,
                     show_got);
}

static void show_batches(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListBatchesResponse *r = (const Muster__V1__ListBatchesResponse *)answer;
    char at[SHOW_TIME_BYTES], text[320];

    if (first)
        printf("%8s %-10s %-20s %10s %-8s %-25s %s\n", "BATCH", "STATE", "COMMAND", "DEVICES", "PRIORITY", "ACCEPTED",
               "PROGRESS");
    for (size_t i = 0; i < r->n_batches; i++) {
        const Muster__V1__Batch *b = r->batches[i];
        show_progress_text(b->progress, text, sizeof text);
        printf("%8" PRId64 " %-10s %-20s %10" PRIu32 " %-8s %-25s %s\n", b->id,
               show_enum(&muster__v1__batch_state__descriptor, (int)b->state), show_command(b->command),
               b->device_count, show_enum(&muster__v1__priority__descriptor, (int)b->priority),
               show_time(b->created_at, at), text);
    }
}

int batch_list(struct invocation *inv)
{
    struct pager_flags page = {0};
    const char *state = NULL;
    const struct arg_flag flags[] = {
        PAGER_FLAG(page),
        {"state", ARG_TEXT, &state, "STATE", "only batches that are open, canceling or closed", 0, 0},
        {0},
    };
    struct args a = {.positional = "", .flags = flags};
    Muster__V1__ListBatchesRequest request = MUSTER__V1__LIST_BATCHES_REQUEST__INIT;
    struct pager p = {.method = "CommandService/ListBatches",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_batches_response__descriptor,
                      .items = "batches",
                      .show = show_batches};
    int value = 0;

    args_parse(inv, &a);
    if (state && !show_read_enum(&muster__v1__batch_state__descriptor, state, &value))
        args_refuse(inv, "--state %s: is none of %s", state, show_enum_choices(&muster__v1__batch_state__descriptor));
    request.state = (Muster__V1__BatchState)value;
    return pager_run(inv, &p, &page);
}

int batch_commands(struct invocation *inv)
{
    struct pager_flags page = {0};
    struct arg_list states = {0};
    const char *format = NULL;
    const struct arg_flag flags[] = {
        PAGER_FLAG(page),
        {"state", ARG_LIST, &states, "STATE", "only commands in this state; may be repeated", 0, 0},
        {"format", ARG_TEXT, &format, "FORMAT",
         "table, csv, or json: an object a line (default table); goes before --json", 0, 0},
        {0},
    };
    struct args a = {.positional = "BATCH",
                     .min = 1,
                     .max = 1,
                     .flags = flags,
                     .notes = "In csv a device's text that a spreadsheet would take for a formula has an apostrophe "
                              "before it;\nin tables, control characters are written out (\\n, \\x1b). json has "
                              "all as it came.\n"};
    Muster__V1__ExportCommandsRequest request = MUSTER__V1__EXPORT_COMMANDS_REQUEST__INIT;
    struct command_export export = {.request = &request};
    struct session s;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    if (format && !row_format_read(format, &export.format))
        args_refuse(inv, "--format %s: is none of table, csv, json", format);
    if (format) /* what is asked for here, not what MUSTER_JSON asks of all */
        inv->common.json = false;
    Muster__V1__CommandState *wanted = invocation_alloc(inv, (states.count + 1) * sizeof *wanted);
    for (size_t i = 0; i < states.count; i++) {
        int value;
        if (!show_read_enum(&muster__v1__command_state__descriptor, states.items[i], &value))
            args_refuse(inv, "--state %s: is none of %s", states.items[i],
                        show_enum_choices(&muster__v1__command_state__descriptor));
        wanted[i] = (Muster__V1__CommandState)value;
    }
    request.states = wanted;
    request.n_states = states.count;
    export.limit = page.limit;
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = command_export_run(&s, &export);
    session_close(&s);
    return status;
}

static void show_command_got(const ProtobufCMessage *answer)
{
    command_details(((const Muster__V1__GetCommandResponse *)answer)->command);
}

int command_get(struct invocation *inv)
{
    struct args a = {.positional = "COMMAND-ID", .min = 1, .max = 1};
    Muster__V1__GetCommandRequest request = MUSTER__V1__GET_COMMAND_REQUEST__INIT;

    args_parse(inv, &a);
    request.command_id = (char *)a.words.items[0];
    return call_once(inv, "CommandService/GetCommand", &request.base, &muster__v1__get_command_response__descriptor,
                     show_command_got);
}
