/* Commands: the part of validate.h with one check per type. */
#include <stdio.h>
#include <string.h>

#include "dispatcher/validate.h"

#define RESTART_GRACE_MAX_MS (3600 * 1000ll)
#define RESTRICTIONS_MAX     64
#define ITEMS_MAX            64
#define URL_MAX              2048
#define IDENTIFIER_MAX       256
#define LOCK_TEXT_MAX        512
#define PHONE_NUMBER_MAX     32

static void validate_lock(struct status *st, const Muster__V1__LockCommand *c)
{
    validate_text(st, "command.lock.message", c->message, 0, LOCK_TEXT_MAX);
    validate_text(st, "command.lock.phone_number", c->phone_number, 0, PHONE_NUMBER_MAX);
    validate_text(st, "command.lock.passcode", c->passcode, 0, 64);
}

static void validate_restrict(struct status *st, const Muster__V1__RestrictCommand *c)
{
    const char *list = "command.restrict_functions.restrictions";
    if (c->n_restrictions < 1 || c->n_restrictions > RESTRICTIONS_MAX) {
        status_violation(st, list, "has %zu entries, allowed are 1 to %d", c->n_restrictions, RESTRICTIONS_MAX);
        return;
    }
    for (size_t i = 0; i < c->n_restrictions; i++) {
        char field[96];
        snprintf(field, sizeof field, "%s[%zu].function", list, i);
        validate_enum(st, field, &muster__v1__function__descriptor, (int)c->restrictions[i]->function, false);
        for (size_t k = 0; k < i; k++)
            if (c->restrictions[k]->function == c->restrictions[i]->function) {
                status_violation(st, field, "stands in entry %zu already", k);
                break;
            }
    }
}

static void validate_query(struct status *st, const Muster__V1__QueryInformationCommand *c)
{
    if (c->n_items > ITEMS_MAX) {
        status_violation(st, "command.query_information.items", "has %zu entries, allowed are %d", c->n_items,
                         ITEMS_MAX);
        return;
    }
    for (size_t i = 0; i < c->n_items; i++) {
        char field[96];
        snprintf(field, sizeof field, "command.query_information.items[%zu]", i);
        validate_text(st, field, c->items[i], 1, 64);
    }
}

static void validate_install(struct status *st, const Muster__V1__InstallApplicationCommand *c)
{
    validate_text(st, "command.install_application.application_id", c->application_id, 1, IDENTIFIER_MAX);
    validate_text(st, "command.install_application.version", c->version, 0, 64);
    validate_text(st, "command.install_application.url", c->url, 0, URL_MAX);
    if (c->sha256.len != 0 && c->sha256.len != 32)
        status_violation(st, "command.install_application.sha256", "has %zu bytes, allowed are 32 or none",
                         c->sha256.len);
}

static void validate_restart(struct status *st, const Muster__V1__RestartCommand *c)
{
    int64_t ms = 0;
    if (c->grace && (!validate_duration(&ms, c->grace->seconds, c->grace->nanos) || ms < 0 ||
                     ms > RESTART_GRACE_MAX_MS || c->grace->seconds < 0 || c->grace->nanos < 0))
        status_violation(st, "command.restart.grace", "must be 0 to 1 hour");
}

static void validate_custom(struct status *st, const Muster__V1__CustomCommand *c)
{
    size_t len = strlen(c->type);
    if (len < 1 || len > 128 ||
        strspn(c->type, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-") != len)
        status_violation(st, "command.custom.type", "must be 1 to 128 bytes of [A-Za-z0-9._/-]");
}

static void must_be_empty(struct status *st, const char *field, const char *text)
{
    if (*text)
        status_violation(st, field, "must be empty to disable lost mode");
}

static void validate_lost_mode(struct status *st, const Muster__V1__LostModeCommand *c)
{
    const char *message = "command.lost_mode.message", *phone_number = "command.lost_mode.phone_number",
               *footnote = "command.lost_mode.footnote";
    validate_enum(st, "command.lost_mode.action", &muster__v1__lost_mode_action__descriptor, (int)c->action, false);
    if (c->action == MUSTER__V1__LOST_MODE_ACTION__LOST_MODE_ACTION_DISABLE) {
        must_be_empty(st, message, c->message);
        must_be_empty(st, phone_number, c->phone_number);
        must_be_empty(st, footnote, c->footnote);
        return;
    }
    if (c->action == MUSTER__V1__LOST_MODE_ACTION__LOST_MODE_ACTION_ENABLE && !*c->message && !*c->phone_number)
        status_violation(st, message, "it or the phone number must be given to enable lost mode");
    validate_text(st, message, c->message, 0, LOCK_TEXT_MAX);
    validate_text(st, phone_number, c->phone_number, 0, PHONE_NUMBER_MAX);
    validate_text(st, footnote, c->footnote, 0, LOCK_TEXT_MAX);
}

void validate_command(struct status *st, const Muster__V1__Command *command)
{
    size_t size = muster__v1__command__get_packed_size(command);
    if (size > COMMAND_BYTES_MAX)
        status_violation(st, "command", "takes %zu bytes, allowed are %u", size, COMMAND_BYTES_MAX);
    switch (command->kind_case) {
    case MUSTER__V1__COMMAND__KIND_LOCK:
        validate_lock(st, command->lock);
        return;
    case MUSTER__V1__COMMAND__KIND_UNLOCK:
    case MUSTER__V1__COMMAND__KIND_WIPE:
        return; /* only switches */
    case MUSTER__V1__COMMAND__KIND_CONFIGURE:
        validate_text(st, "command.configure.profile_id", command->configure->profile_id, 1, IDENTIFIER_MAX);
        return;
    case MUSTER__V1__COMMAND__KIND_RESTRICT_FUNCTIONS:
        validate_restrict(st, command->restrict_functions);
        return;
    case MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION:
        validate_query(st, command->query_information);
        return;
    case MUSTER__V1__COMMAND__KIND_INSTALL_APPLICATION:
        validate_install(st, command->install_application);
        return;
    case MUSTER__V1__COMMAND__KIND_REMOVE_APPLICATION:
        validate_text(st, "command.remove_application.application_id", command->remove_application->application_id, 1,
                      IDENTIFIER_MAX);
        return;
    case MUSTER__V1__COMMAND__KIND_BACK_UP:
        validate_text(st, "command.back_up.destination", command->back_up->destination, 0, URL_MAX);
        return;
    case MUSTER__V1__COMMAND__KIND_RESTORE:
        validate_text(st, "command.restore.backup_reference", command->restore->backup_reference, 1, URL_MAX);
        return;
    case MUSTER__V1__COMMAND__KIND_RESTART:
        validate_restart(st, command->restart);
        return;
    case MUSTER__V1__COMMAND__KIND_CUSTOM:
        validate_custom(st, command->custom);
        return;
    case MUSTER__V1__COMMAND__KIND_LOST_MODE:
        validate_lost_mode(st, command->lost_mode);
        return;
    case MUSTER__V1__COMMAND__KIND__NOT_SET:
    default:
        status_violation(st, "command", "must be of a known kind");
    }
}
