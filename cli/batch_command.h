/* A Command from the flags of `muster batch submit`.
 * Owns: struct command_flags and what the command made of them borrows. May call: cli/args, cli/input.
 * Loop rule: start-up only. */
#ifndef MUSTER_CLI_BATCH_COMMAND_H
#define MUSTER_CLI_BATCH_COMMAND_H

#include "cli/args.h"
#include "muster/v1/command.pb-c.h"

struct command_flags {
    const char *type;
    const char *message, *phone_number, *passcode;
    bool clear_passcode, preserve_data_plan, wipe_external_storage;
    const char *profile_id, *profile;
    struct arg_list allow, forbid, items;
    const char *app, *version, *url, *sha256;
    const char *destination, *backup_reference;
    int64_t grace_ms;
    const char *custom_type, *payload;
    const char *action, *footnote;
};

#define COMMAND_FLAG_COUNT 23
/* Fills `out` with the flags, bound to `c`; no terminator. */
void command_flags_table(struct command_flags *c, struct arg_flag out[COMMAND_FLAG_COUNT]);
/* Returns the command, which lives as long as the call; refuses flags that do not go with the type. */
Muster__V1__Command *command_from_flags(struct invocation *inv, const struct command_flags *c);

#endif
