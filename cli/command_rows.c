#include "cli/command_rows.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/show.h"

static const char *state(const Muster__V1__CommandStatus *c)
{
    return show_enum(&muster__v1__command_state__descriptor, (int)c->state);
}

void command_rows(Muster__V1__CommandStatus *const *commands, size_t count, bool heading)
{
    char at[SHOW_TIME_BYTES];

    if (heading)
        printf("%-36s %8s %-24s %-10s %8s %-25s %s\n", "COMMAND", "BATCH", "DEVICE", "STATE", "ATTEMPTS", "UPDATED",
               "RESULT");
    for (size_t i = 0; i < count; i++) {
        const Muster__V1__CommandStatus *c = commands[i];
        printf("%-36s %8" PRId64 " %-24s %-10s %8" PRIu32 " %-25s", c->command_id, c->batch_id, c->device_id, state(c),
               c->attempts, show_time(c->updated_at, at));
        if (c->result && (c->result->code || c->result->text[0]))
            printf(" %" PRId32 " %s", c->result->code, c->result->text);
        putchar('\n');
    }
}

static void information(const Muster__V1__DeviceInformation *d)
{
    printf("  os version   %s\n  model        %s\n  serial       %s\n", d->os_version, d->model, d->serial_number);
    for (size_t i = 0; i < d->n_items; i++)
        printf("  %-12s %s\n", d->items[i]->key, d->items[i]->value);
}

void command_details(const Muster__V1__CommandStatus *c)
{
    char at[SHOW_TIME_BYTES];

    printf("command %s\n  batch        %" PRId64 "\n  device       %s\n  state        %s\n  attempts     %" PRIu32
           "\n  updated      %s\n",
           c->command_id, c->batch_id, c->device_id, state(c), c->attempts, show_time(c->updated_at, at));
    if (!c->result)
        return;
    if (c->result->code || c->result->text[0])
        printf("  code         %" PRId32 "\n  text         %s\n", c->result->code, c->result->text);
    if (c->result->backup_reference[0])
        printf("  backup       %s\n", c->result->backup_reference);
    if (c->result->payload.len)
        printf("  payload      %zu bytes (--json shows them)\n", c->result->payload.len);
    if (c->result->information)
        information(c->result->information);
}
