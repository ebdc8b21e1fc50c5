/* muster device get, list, delete, commands, credentials. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/command_rows.h"
#include "cli/commands.h"
#include "cli/device_rows.h"
#include "cli/input.h"
#include "cli/pager.h"
#include "cli/show.h"

static void show_one(const ProtobufCMessage *answer)
{
    const Muster__V1__Device *d = ((const Muster__V1__GetDeviceResponse *)answer)->device;
    char at[SHOW_TIME_BYTES];

    printf("device %s\n  platform     %s\n  number       %" PRIu32 "\n  registered   %s\n  connection   %s\n", d->id,
           show_enum(&muster__v1__platform__descriptor, (int)d->platform), d->seq, show_time(d->created_at, at),
           show_enum(&muster__v1__connection__descriptor, (int)d->connection));
    if (d->last_seen_at)
        printf("  last seen    %s\n", show_time(d->last_seen_at, at));
    if (*d->time_zone)
        printf("  time zone    %s\n", d->time_zone);
    for (size_t i = 0; i < d->n_tags; i++)
        printf("  tag          %s\n", d->tags[i]);
    for (size_t i = 0; i < d->n_attributes; i++)
        if (strcmp(d->attributes[i]->key, "time_zone") != 0) /* told above */
            printf("  attr.%-7s %s\n", d->attributes[i]->key, d->attributes[i]->value);
    if (!d->information)
        return;
    printf("  os version   %s\n  model        %s\n  serial       %s\n", d->information->os_version,
           d->information->model, d->information->serial_number);
    for (size_t i = 0; i < d->information->n_items; i++)
        printf("  %-12s %s\n", d->information->items[i]->key, d->information->items[i]->value);
}

int device_get(struct invocation *inv)
{
    struct args a = {.positional = "DEVICE", .min = 1, .max = 1};
    Muster__V1__GetDeviceRequest request = MUSTER__V1__GET_DEVICE_REQUEST__INIT;

    args_parse(inv, &a);
    request.device_id = (char *)a.words.items[0];
    return call_once(inv, "DeviceService/GetDevice", &request.base, &muster__v1__get_device_response__descriptor,
                     show_one);
}

static void show_devices(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListDevicesResponse *r = (const Muster__V1__ListDevicesResponse *)answer;
    char at[SHOW_TIME_BYTES];

    if (first)
        printf("%-32s %-12s %10s %-25s %-12s %s\n", "DEVICE", "PLATFORM", "NUMBER", "REGISTERED", "OS VERSION",
               "TIME ZONE");
    for (size_t i = 0; i < r->n_devices; i++) {
        const Muster__V1__Device *d = r->devices[i];
        const char *version = d->information ? d->information->os_version : "";
        printf("%-32s %-12s %10" PRIu32 " %-25s ", d->id,
               show_enum(&muster__v1__platform__descriptor, (int)d->platform), d->seq, show_time(d->created_at, at));
        if (*d->time_zone)
            printf("%-12s %s\n", version, d->time_zone);
        else
            printf("%s\n", version);
    }
}

int device_list(struct invocation *inv)
{
    struct pager_flags page = {0};
    const char *platform = NULL, *group = "", *filter = "";
    const struct arg_flag flags[] = {
        PAGER_FLAG(page),
        {"platform", ARG_TEXT, &platform, "PLATFORM", "only devices of this platform", 0, 0},
        {"group", ARG_TEXT, &group, "NAME", "only members of this group", 0, 0},
        {"filter", ARG_TEXT, &filter, "FILTER", "only who matches, such as 'tag = store-12'", 0, 0},
        {0},
    };
    struct args a = {.positional = "", .flags = flags};
    Muster__V1__ListDevicesRequest request = MUSTER__V1__LIST_DEVICES_REQUEST__INIT;
    struct pager p = {.method = "DeviceService/ListDevices",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_devices_response__descriptor,
                      .items = "devices",
                      .show = show_devices};
    int value = 0;

    args_parse(inv, &a);
    if (platform && !show_read_enum(&muster__v1__platform__descriptor, platform, &value))
        args_refuse(inv, "--platform %s: is none of %s", platform,
                    show_enum_choices(&muster__v1__platform__descriptor));
    request.platform = (Muster__V1__Platform)value;
    request.group = (char *)group;
    request.filter = (char *)filter;
    return pager_run(inv, &p, &page);
}

static int delete_all(struct session *s, const struct input_ids *ids)
{
    for (size_t i = 0; i < ids->count; i++) {
        Muster__V1__DeleteDeviceRequest request = MUSTER__V1__DELETE_DEVICE_REQUEST__INIT;
        request.device_id = ids->ids[i];
        ProtobufCMessage *answer = session_call(s, "DeviceService/DeleteDevice", &request.base,
                                                &muster__v1__delete_device_response__descriptor);
        if (!answer)
            return EXIT_RPC_FAIL;
        if (s->common->json)
            show_json(answer);
        session_free_message(answer);
    }
    return EXIT_DONE;
}

int device_delete(struct invocation *inv)
{
    const char *file = NULL;
    const struct arg_flag flags[] = {
        {"devices-file", ARG_TEXT, &file, "FILE", "one id a line; - for standard input", 0, 0},
        {0},
    };
    struct args a = {.positional = "DEVICE...", .max = SIZE_MAX, .flags = flags};
    struct input_ids ids;
    struct session s;

    args_parse(inv, &a);
    input_ids_load(inv, &a.words, file, &ids);
    if (!ids.count)
        args_refuse(inv, "needs DEVICE... or --devices-file");
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = delete_all(&s, &ids);
    session_close(&s);
    return status;
}

static void show_commands(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListDeviceCommandsResponse *r = (const Muster__V1__ListDeviceCommandsResponse *)answer;

    command_rows(r->commands, r->n_commands, first);
}

int device_commands(struct invocation *inv)
{
    struct pager_flags page = {0};
    const struct arg_flag flags[] = {PAGER_FLAG(page), {0}};
    struct args a = {.positional = "DEVICE", .min = 1, .max = 1, .flags = flags};
    Muster__V1__ListDeviceCommandsRequest request = MUSTER__V1__LIST_DEVICE_COMMANDS_REQUEST__INIT;
    struct pager p = {.method = "DeviceService/ListDeviceCommands",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_device_commands_response__descriptor,
                      .items = "commands",
                      .show = show_commands};

    args_parse(inv, &a);
    request.device_id = (char *)a.words.items[0];
    return pager_run(inv, &p, &page);
}

int device_credentials(struct invocation *inv)
{
    const char *file = NULL;
    struct device_tokens how = {.out = stdout};
    const struct arg_flag flags[] = {
        {"devices-file", ARG_TEXT, &file, "FILE", "one id a line; - for standard input", 0, 0},
        {"lifetime", ARG_DURATION, &how.lifetime_ms, "TIME", "how long the tokens hold (default 1 year)", 60000,
         INT64_C(315576000000)},
        {"revoke-earlier", ARG_BOOL, &how.revoke_earlier, "", "revoke every token issued before", 0, 0},
        {0},
    };
    struct args a = {.positional = "DEVICE...", .max = SIZE_MAX, .flags = flags};
    struct input_ids ids;
    struct session s;

    args_parse(inv, &a);
    input_ids_load(inv, &a.words, file, &ids);
    if (!ids.count)
        args_refuse(inv, "needs DEVICE... or --devices-file");
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = device_rows_tokens(&s, ids.ids, ids.count, &how);
    session_close(&s);
    return status;
}
