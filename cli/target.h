/* Whom a command addresses, as flags: --all, --device, --devices-file, --group, --platform, --filter, and --exclude-…
 * for who is not meant. Owns: the flags. May call: cli/args, input. Loop rule: start-up only. */
#ifndef MUSTER_CLI_TARGET_H
#define MUSTER_CLI_TARGET_H

#include <stdbool.h>

#include "cli/args.h"
#include "cli/input.h"
#include "muster/v1/command.pb-c.h"

/* One side: who is meant, or who is not. */
struct target_side {
    struct arg_list devices, groups;
    const char *devices_file, *platform, *filter;
    struct input_ids ids;
};

struct target_flags {
    bool all;
    struct target_side who, exclude;
};

/* Entries for a table of flags; --all is the caller's. */
#define TARGET_FLAG_COUNT 10
#define TARGET_FLAGS(t)                                                                                                \
    {"device", ARG_LIST, &(t).who.devices, "ID", "address this device; may be repeated", 0, 0},                        \
        {"devices-file",                                                                                               \
         ARG_TEXT,                                                                                                     \
         &(t).who.devices_file,                                                                                        \
         "FILE",                                                                                                       \
         "address the ids in FILE, one a line; - for stdin",                                                           \
         0,                                                                                                            \
         0},                                                                                                           \
        {"group", ARG_LIST, &(t).who.groups, "NAME", "address a group's members; may be repeated", 0, 0},              \
        {"platform", ARG_TEXT, &(t).who.platform, "PLATFORM", "address every device of a platform", 0, 0},             \
        {"filter",                                                                                                     \
         ARG_TEXT,                                                                                                     \
         &(t).who.filter,                                                                                              \
         "FILTER",                                                                                                     \
         "address who matches, such as 'os_version < 17.2 and tag = store-12'",                                        \
         0,                                                                                                            \
         0},                                                                                                           \
        {"exclude-device", ARG_LIST, &(t).exclude.devices, "ID", "but not this device; may be repeated", 0, 0},        \
        {"exclude-devices-file", ARG_TEXT, &(t).exclude.devices_file, "FILE", "but not the ids in FILE", 0, 0},        \
        {"exclude-group", ARG_LIST, &(t).exclude.groups, "NAME", "but not a group's members; may be repeated", 0, 0},  \
        {"exclude-platform", ARG_TEXT, &(t).exclude.platform, "PLATFORM", "but no device of a platform", 0, 0},        \
    {                                                                                                                  \
        "exclude-filter", ARG_TEXT, &(t).exclude.filter, "FILTER", "but nobody who matches", 0, 0                      \
    }
#define TARGET_CHOICES "--all, --device or --devices-file, --group, --platform, --filter"

/* How many of the ways of addressing are used. */
int target_ways(const struct target_flags *t);
/* Whether any of the flags is given. */
bool target_given(const struct target_flags *t);
/* The message, of the call's memory; exactly one way must be used, and at most one of excluding (else it refuses). */
Muster__V1__Target *target_from_flags(struct invocation *inv, struct target_flags *t);

#endif
