/* muster migrate, muster tenant bootstrap: the two that speak to PostgreSQL themselves. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "lib/base/log.h"
#include "lib/store/db_bootstrap.h"
#include "lib/store/pg.h"

static void prepare(struct invocation *inv)
{
    enum log_level level;

    if (!inv->common.postgres)
        args_refuse(inv, "needs --postgres or MUSTER_POSTGRES");
    if (log_level_parse(inv->common.log_level, &level) != 0)
        args_refuse(inv, "--log-level %s: is not debug, info, warn or error", inv->common.log_level);
    log_init("muster", level);
}

int migrate_run(struct invocation *inv)
{
    struct args a = {.positional = ""};
    char error[512] = "";
    int applied = 0;

    args_parse(inv, &a);
    prepare(inv);
    if (pg_migrate(inv->common.postgres, error, sizeof error, &applied) != ERR_OK) {
        fprintf(stderr, "%s: %s\n", inv->command, error);
        return EXIT_NOT_ALL;
    }
    printf(inv->common.json ? "{\"applied\":%d}\n" : "%d migrations applied\n", applied);
    return EXIT_DONE;
}

int tenant_bootstrap(struct invocation *inv)
{
    const char *description = "bootstrap";
    const struct arg_flag flags[] = {
        {"description", ARG_TEXT, &description, "TEXT", "of the key", 0, 0},
        {0},
    };
    struct args a = {.positional = "NAME",
                     .min = 1,
                     .max = 1,
                     .flags = flags,
                     .notes = "The tenant may exist already; it then gets one more admin key. The key is printed on "
                              "standard output\nand shown only now."};
    char key[API_KEY_TEXT_MAX], error[512] = "";

    args_parse(inv, &a);
    prepare(inv);
    if (db_bootstrap(inv->common.postgres, a.words.items[0], description, key, error, sizeof error) != ERR_OK) {
        fprintf(stderr, "%s: %s\n", inv->command, error);
        return EXIT_NOT_ALL;
    }
    printf(inv->common.json ? "{\"secret\":\"%s\"}\n" : "%s\n", key);
    return EXIT_DONE;
}
