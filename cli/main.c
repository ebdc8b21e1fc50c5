/* muster: the command line. One table of subcommands; each is a function in the file of its subject. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/chaos/load.h"
#include "cli/chaos/proxy.h"
#include "cli/commands.h"

static const struct subcommand {
    const char *group, *verb; /* verb "" for a command of one word */
    int (*run)(struct invocation *inv);
    const char *summary; /* NULL: a part of another, not listed */
} subcommands[] = {
    {"migrate", "", migrate_run, "Brings the database's schema up to date (straight in PostgreSQL)."},
    {"dev", "", dev_run, "Runs a private installation with a simulated fleet until Ctrl-C."},
    {"chaos", "load", chaos_load_run, NULL},
    {"chaos", "proxy", chaos_proxy_run, NULL},
    {"chaos", "", chaos_run, "Breaks a private installation under load and judges what it promises."},
    {"verify", "", verify_run, "Compares PostgreSQL, Redis and the workers, and repairs what differs."},
    {"plan", "", plan_run, "Foretells how large an installation a fleet needs."},
    {"tenant", "bootstrap", tenant_bootstrap, "Makes a tenant and its first admin key (straight in PostgreSQL)."},
    {"tenant", "create", tenant_create, "Makes a tenant."},
    {"tenant", "list", tenant_list, "Lists tenants."},
    {"tenant", "policy", tenant_policy, "Shows or changes what guards a tenant against irreversible commands."},
    {"tenant", "quota", tenant_quota, "Shows or changes how much a tenant may have."},
    {"key", "create", key_create, "Makes an API key; its secret is shown only now."},
    {"key", "list", key_list, "Lists a tenant's API keys."},
    {"key", "revoke", key_revoke, "Ends an API key."},
    {"device", "import", device_import, "Registers devices from CSV or JSON lines."},
    {"device", "get", device_get, "Shows one device."},
    {"device", "list", device_list, "Lists devices."},
    {"device", "delete", device_delete, "Removes devices."},
    {"device", "commands", device_commands, "Lists the commands of one device, newest first."},
    {"device", "credentials", device_credentials, "Makes tokens; prints lines \"<device id> <token>\"."},
    {"group", "create", group_create, "Makes a group of devices."},
    {"group", "update", group_update, "Adds members to a group and removes some."},
    {"group", "list", group_list, "Lists groups."},
    {"group", "delete", group_delete, "Removes a group; its devices stay."},
    {"batch", "submit", batch_submit, "Submits one command for many devices."},
    {"batch", "get", batch_get, "Shows one batch."},
    {"batch", "show", batch_show, "Shows one batch by platform and wave, and how long its commands took."},
    {"batch", "list", batch_list, "Lists batches, newest first."},
    {"batch", "watch", batch_watch, "Shows a batch's progress until it is closed."},
    {"batch", "cancel", batch_cancel, "Asks that nothing more of a batch be sent, to all or to some devices."},
    {"batch", "pause", batch_pause, "Holds what is unsent of a batch until it is resumed."},
    {"batch", "release", batch_release, "Releases the next wave of a batch."},
    {"batch", "seal", batch_seal, "Lets no more devices join a dynamic batch."},
    {"batch", "resume", batch_resume, "Lets a paused batch go on."},
    {"batch", "approve", batch_approve, "Lets a batch go that is held for approval."},
    {"batch", "reject", batch_reject, "Cancels a batch that is held for approval."},
    {"batch", "commands", batch_commands, "Lists a batch's commands, one per device."},
    {"command", "get", command_get, "Shows one command, and what it waits for."},
    {"command", "show", command_get, "The same."},
    {"audit", "list", audit_list, "Lists who did what, newest first."},
    {"audit", "verify", audit_verify, "Whether the audit is as it was written."},
    {"events", "watch", events_watch, "Shows what happens to batches, as it happens."},
    {"events", "devices", events_devices, "Says, or sets, whether devices that come and go are events."},
    {"webhook", "add", webhook_add, "Has events sent to an https URL; its secret is shown only now."},
    {"webhook", "list", webhook_list, "Lists web hooks, and how they fare."},
    {"webhook", "remove", webhook_remove, "Ends a web hook, with what waits for it."},
    {"webhook", "rotate", webhook_rotate, "Gives a web hook a new secret; the former one signs too."},
    {"webhook", "test", webhook_test, "Sends a web hook a test."},
    {"webhook", "dead", webhook_dead, "Lists the events that were given up for a web hook."},
    {"webhook", "replay", webhook_replay, "Sends what was given up once more."},
    {"hold", "", hold_run, "Holds everything unsent of a tenant or of all: the kill switch."},
    {"release", "", release_run, "Ends a hold."},
    {"holds", "", holds_run, "Lists what is held."},
};
#define SUBCOMMANDS (sizeof subcommands / sizeof subcommands[0])

static int usage(FILE *out)
{
    fprintf(out, "Usage: muster COMMAND [flags] [arguments]\nCommands fleets of devices.\n\n");
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        if (subcommands[i].summary)
            fprintf(out, "  %-7s %-12s %s\n", subcommands[i].group, subcommands[i].verb, subcommands[i].summary);
    fprintf(out, "\nmuster COMMAND --help lists the flags of one.\n"
                 "Exit status: 0 done (a watched batch: all succeeded), 1 otherwise, 2 wrong usage, 3 error of the "
                 "service.\n");
    return out == stdout ? EXIT_DONE : EXIT_USAGE;
}

static int run(const struct subcommand *c, int argc, char **argv)
{
    char name[64];
    int words = *c->verb ? 2 : 1;
    struct invocation inv = {
        .command = name, .summary = c->summary ? c->summary : "", .argc = argc - 1 - words, .argv = argv + 1 + words};

    snprintf(name, sizeof name, "muster %s%s%s", c->group, *c->verb ? " " : "", c->verb);
    /* A pipe that is closed ends the output, not the program: what was begun is finished. */
    signal(SIGPIPE, SIG_IGN);
    int status = c->run(&inv);
    invocation_free(&inv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_DONE)
        status = EXIT_NOT_ALL;
    return status;
}

int main(int argc, char **argv)
{
    bool known_group = false;

    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        printf("muster %s\n", MUSTER_VERSION);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(argv[1], subcommands[i].group) != 0)
            continue;
        known_group = true;
        if (!*subcommands[i].verb || (argc > 2 && strcmp(argv[2], subcommands[i].verb) == 0))
            return run(&subcommands[i], argc, argv);
    }
    if (known_group && argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0))
        return usage(stdout);
    fprintf(stderr, "muster: unknown command %s%s%s (muster --help lists them)\n", argv[1],
            known_group && argc > 2 ? " " : "", known_group && argc > 2 ? argv[2] : "");
    return EXIT_USAGE;
}
