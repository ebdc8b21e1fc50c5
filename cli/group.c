/* muster group create, update, list, delete. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/pager.h"
#include "cli/show.h"
#include "muster/v1/device_service.pb-c.h"

static void show_group(const Muster__V1__Group *g)
{
    char at[SHOW_TIME_BYTES];

    if (*g->filter)
        printf("%-32s %10s  %s  %s\n", g->name, "filter", show_time(g->created_at, at), g->filter);
    else
        printf("%-32s %10" PRIu32 "  %s\n", g->name, g->device_count, show_time(g->created_at, at));
}

static void show_created(const ProtobufCMessage *answer)
{
    show_group(((const Muster__V1__CreateGroupResponse *)answer)->group);
}

int group_create(struct invocation *inv)
{
    struct arg_list devices = {0};
    const char *file = NULL, *filter = "";
    const struct arg_flag flags[] = {
        {"filter", ARG_TEXT, &filter, "FILTER", "who matches is a member, found anew each time", 0, 0},
        {"device", ARG_LIST, &devices, "ID", "a first member; may be repeated", 0, 0},
        {"devices-file", ARG_TEXT, &file, "FILE", "first members, one id a line; - for standard input", 0, 0},
        {0},
    };
    struct args a = {.positional = "NAME", .min = 1, .max = 1, .flags = flags};
    Muster__V1__CreateGroupRequest request = MUSTER__V1__CREATE_GROUP_REQUEST__INIT;
    struct input_ids ids;

    args_parse(inv, &a);
    input_ids_load(inv, &devices, file, &ids);
    request.name = (char *)a.words.items[0];
    request.filter = (char *)filter;
    request.device_ids = ids.ids;
    request.n_device_ids = ids.count;
    return call_once(inv, "DeviceService/CreateGroup", &request.base, &muster__v1__create_group_response__descriptor,
                     show_created);
}

static void show_updated(const ProtobufCMessage *answer)
{
    show_group(((const Muster__V1__UpdateGroupResponse *)answer)->group);
}

int group_update(struct invocation *inv)
{
    struct arg_list add = {0}, remove_list = {0};
    const char *add_file = NULL, *remove_file = NULL, *filter = "";
    const struct arg_flag flags[] = {
        {"filter", ARG_TEXT, &filter, "FILTER", "the new filter of a group that has one", 0, 0},
        {"add", ARG_LIST, &add, "ID", "a device to add; may be repeated", 0, 0},
        {"add-file", ARG_TEXT, &add_file, "FILE", "devices to add, one id a line", 0, 0},
        {"remove", ARG_LIST, &remove_list, "ID", "a device to remove; may be repeated", 0, 0},
        {"remove-file", ARG_TEXT, &remove_file, "FILE", "devices to remove, one id a line", 0, 0},
        {0},
    };
    struct args a = {.positional = "NAME", .min = 1, .max = 1, .flags = flags};
    Muster__V1__UpdateGroupRequest request = MUSTER__V1__UPDATE_GROUP_REQUEST__INIT;
    struct input_ids added, removed;

    args_parse(inv, &a);
    input_ids_load(inv, &add, add_file, &added);
    input_ids_load(inv, &remove_list, remove_file, &removed);
    request.name = (char *)a.words.items[0];
    request.filter = (char *)filter;
    request.add_device_ids = added.ids;
    request.n_add_device_ids = added.count;
    request.remove_device_ids = removed.ids;
    request.n_remove_device_ids = removed.count;
    return call_once(inv, "DeviceService/UpdateGroup", &request.base, &muster__v1__update_group_response__descriptor,
                     show_updated);
}

static void show_groups(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListGroupsResponse *r = (const Muster__V1__ListGroupsResponse *)answer;

    if (first)
        printf("%-32s %10s  %s\n", "GROUP", "DEVICES", "CREATED");
    for (size_t i = 0; i < r->n_groups; i++)
        show_group(r->groups[i]);
}

int group_list(struct invocation *inv)
{
    struct pager_flags page = {0};
    const struct arg_flag flags[] = {PAGER_FLAG(page), {0}};
    struct args a = {.positional = "", .flags = flags};
    Muster__V1__ListGroupsRequest request = MUSTER__V1__LIST_GROUPS_REQUEST__INIT;
    struct pager p = {.method = "DeviceService/ListGroups",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_groups_response__descriptor,
                      .items = "groups",
                      .show = show_groups};

    args_parse(inv, &a);
    return pager_run(inv, &p, &page);
}

int group_delete(struct invocation *inv)
{
    struct args a = {.positional = "NAME", .min = 1, .max = 1};
    Muster__V1__DeleteGroupRequest request = MUSTER__V1__DELETE_GROUP_REQUEST__INIT;

    args_parse(inv, &a);
    request.name = (char *)a.words.items[0];
    return call_once(inv, "DeviceService/DeleteGroup", &request.base, &muster__v1__delete_group_response__descriptor,
                     NULL);
}
