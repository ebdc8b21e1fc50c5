#include "cli/batch_command.h"

#include <stdio.h>
#include <string.h>

#include "cli/input.h"
#include "cli/show.h"

/* The contract's limit. */
#define RESTRICTIONS_MAX 64

/* One bit per type, by its place in `types`. */
enum {
    LOCK = 1 << 0,
    UNLOCK = 1 << 1,
    WIPE = 1 << 2,
    CONFIGURE = 1 << 3,
    RESTRICT = 1 << 4,
    QUERY = 1 << 5,
    INSTALL = 1 << 6,
    REMOVE = 1 << 7,
    BACK_UP = 1 << 8,
    RESTORE = 1 << 9,
    RESTART = 1 << 10,
    CUSTOM = 1 << 11,
    LOST_MODE = 1 << 12,
};

void command_flags_table(struct command_flags *c, struct arg_flag out[COMMAND_FLAG_COUNT])
{
    const struct arg_flag flags[COMMAND_FLAG_COUNT] = {
        {"type", ARG_TEXT, &c->type, "TYPE",
         "lock, unlock, lost-mode, wipe, configure, restrict, query, install, remove, back-up, restore, restart or "
         "custom",
         0, 0},
        {"action", ARG_TEXT, &c->action, "ACTION", "lost-mode: enable or disable", 0, 0},
        {"message", ARG_TEXT, &c->message, "TEXT", "lock, lost-mode: text on the lock screen", 0, 0},
        {"phone-number", ARG_TEXT, &c->phone_number, "TEXT", "lock, lost-mode: telephone number on the lock screen", 0,
         0},
        {"footnote", ARG_TEXT, &c->footnote, "TEXT", "lost-mode: text at the foot of the lock screen", 0, 0},
        {"passcode", ARG_TEXT, &c->passcode, "TEXT", "lock: new passcode", 0, 0},
        {"clear-passcode", ARG_BOOL, &c->clear_passcode, "", "unlock: clear the passcode as well", 0, 0},
        {"preserve-data-plan", ARG_BOOL, &c->preserve_data_plan, "", "wipe: keep the eSIM", 0, 0},
        {"wipe-external-storage", ARG_BOOL, &c->wipe_external_storage, "", "wipe: removable storage as well", 0, 0},
        {"profile-id", ARG_TEXT, &c->profile_id, "ID", "configure: identifier of the profile", 0, 0},
        {"profile", ARG_TEXT, &c->profile, "TEXT|@FILE", "configure: the settings", 0, 0},
        {"allow", ARG_LIST, &c->allow, "LIST", "restrict: functions to allow, such as camera,usb", 0, 0},
        {"forbid", ARG_LIST, &c->forbid, "LIST", "restrict: functions to forbid", 0, 0},
        {"item", ARG_LIST, &c->items, "NAME", "query: an item wanted; may be repeated; none asks for all", 0, 0},
        {"app", ARG_TEXT, &c->app, "ID", "install, remove: bundle or package identifier", 0, 0},
        {"version", ARG_TEXT, &c->version, "TEXT", "install: version; the newest when absent", 0, 0},
        {"url", ARG_TEXT, &c->url, "URL", "install: where the device fetches it", 0, 0},
        {"sha256", ARG_TEXT, &c->sha256, "HEX", "install: of what is fetched", 0, 0},
        {"destination", ARG_TEXT, &c->destination, "TEXT", "back-up: where to", 0, 0},
        {"backup-reference", ARG_TEXT, &c->backup_reference, "TEXT", "restore: which backup", 0, 0},
        {"grace", ARG_DURATION, &c->grace_ms, "TIME", "restart: how long the user is warned", 0, 3600000},
        {"custom-type", ARG_TEXT, &c->custom_type, "NAME", "custom: type, such as com.example.blink", 0, 0},
        {"payload", ARG_TEXT, &c->payload, "TEXT|@FILE", "custom: content", 0, 0},
    };
    memcpy(out, flags, sizeof flags);
}

static void *make(struct invocation *inv, size_t size, void (*init)(void *))
{
    void *m = invocation_alloc(inv, size);

    init(m);
    return m;
}
#define MAKE(type, init) ((type *)make(inv, sizeof(type), (void (*)(void *))(void (*)(void))(init)))

static char *text(const char *value)
{
    return (char *)(value ? value : "");
}

static ProtobufCBinaryData bytes(struct invocation *inv, const char *value)
{
    ProtobufCBinaryData out = {0};

    if (value)
        out.data = (uint8_t *)input_value(inv, value, &out.len);
    return out;
}

static ProtobufCBinaryData from_hex(struct invocation *inv, const char *hex)
{
    ProtobufCBinaryData out = {0};

    if (!hex)
        return out;
    out.data = invocation_alloc(inv, 32);
    out.len = 32;
    for (size_t i = 0; i < 32; i++) {
        unsigned v;
        if (strlen(hex) != 64 || strspn(hex, "0123456789abcdefABCDEF") != 64 || sscanf(hex + 2 * i, "%2x", &v) != 1)
            args_refuse(inv, "--sha256 %s: is not 64 hexadecimal digits", hex);
        out.data[i] = (uint8_t)v;
    }
    return out;
}

static void make_lock(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    out->kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    out->lock = MAKE(Muster__V1__LockCommand, muster__v1__lock_command__init);
    out->lock->message = text(c->message);
    out->lock->phone_number = text(c->phone_number);
    out->lock->passcode = text(c->passcode);
}

static void make_unlock(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    out->kind_case = MUSTER__V1__COMMAND__KIND_UNLOCK;
    out->unlock = MAKE(Muster__V1__UnlockCommand, muster__v1__unlock_command__init);
    out->unlock->clear_passcode = c->clear_passcode;
}

static void make_wipe(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    out->kind_case = MUSTER__V1__COMMAND__KIND_WIPE;
    out->wipe = MAKE(Muster__V1__WipeCommand, muster__v1__wipe_command__init);
    out->wipe->preserve_data_plan = c->preserve_data_plan;
    out->wipe->wipe_external_storage = c->wipe_external_storage;
}

static void make_configure(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    if (!c->profile_id || !c->profile)
        args_refuse(inv, "--type configure needs --profile-id and --profile");
    out->kind_case = MUSTER__V1__COMMAND__KIND_CONFIGURE;
    out->configure = MAKE(Muster__V1__ConfigureCommand, muster__v1__configure_command__init);
    out->configure->profile_id = text(c->profile_id);
    out->configure->profile = bytes(inv, c->profile);
}

/* Adds a restriction for each function of "camera,usb". */
static void add_restrictions(struct invocation *inv, Muster__V1__RestrictCommand *r, const char *list, bool allowed)
{
    char *rest = invocation_copy(inv, list, strlen(list)), *name;

    while ((name = strsep(&rest, ",")) != NULL) {
        int function;
        if (!show_read_enum(&muster__v1__function__descriptor, name, &function))
            args_refuse(inv, "--%s %s: \"%s\" is none of %s", allowed ? "allow" : "forbid", list, name,
                        show_enum_choices(&muster__v1__function__descriptor));
        Muster__V1__Restriction *one = MAKE(Muster__V1__Restriction, muster__v1__restriction__init);
        one->function = (Muster__V1__Function)function;
        one->allowed = allowed;
        if (r->n_restrictions == RESTRICTIONS_MAX)
            args_refuse(inv, "more than %d restrictions", RESTRICTIONS_MAX);
        r->restrictions[r->n_restrictions++] = one;
    }
}

static void make_restrict(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    if (!c->allow.count && !c->forbid.count)
        args_refuse(inv, "--type restrict needs --allow or --forbid");
    out->kind_case = MUSTER__V1__COMMAND__KIND_RESTRICT_FUNCTIONS;
    out->restrict_functions = MAKE(Muster__V1__RestrictCommand, muster__v1__restrict_command__init);
    out->restrict_functions->restrictions = invocation_alloc(inv, RESTRICTIONS_MAX * sizeof(void *));
    for (size_t i = 0; i < c->allow.count; i++)
        add_restrictions(inv, out->restrict_functions, c->allow.items[i], true);
    for (size_t i = 0; i < c->forbid.count; i++)
        add_restrictions(inv, out->restrict_functions, c->forbid.items[i], false);
}

static void make_query(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    out->kind_case = MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION;
    out->query_information = MAKE(Muster__V1__QueryInformationCommand, muster__v1__query_information_command__init);
    out->query_information->items = (char **)c->items.items;
    out->query_information->n_items = c->items.count;
}

static void make_install(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    if (!c->app)
        args_refuse(inv, "--type install needs --app");
    out->kind_case = MUSTER__V1__COMMAND__KIND_INSTALL_APPLICATION;
    out->install_application =
        MAKE(Muster__V1__InstallApplicationCommand, muster__v1__install_application_command__init);
    out->install_application->application_id = text(c->app);
    out->install_application->version = text(c->version);
    out->install_application->url = text(c->url);
    out->install_application->sha256 = from_hex(inv, c->sha256);
}

static void make_remove(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    if (!c->app)
        args_refuse(inv, "--type remove needs --app");
    out->kind_case = MUSTER__V1__COMMAND__KIND_REMOVE_APPLICATION;
    out->remove_application = MAKE(Muster__V1__RemoveApplicationCommand, muster__v1__remove_application_command__init);
    out->remove_application->application_id = text(c->app);
}

static void make_back_up(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    out->kind_case = MUSTER__V1__COMMAND__KIND_BACK_UP;
    out->back_up = MAKE(Muster__V1__BackUpCommand, muster__v1__back_up_command__init);
    out->back_up->destination = text(c->destination);
}

static void make_restore(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    if (!c->backup_reference)
        args_refuse(inv, "--type restore needs --backup-reference");
    out->kind_case = MUSTER__V1__COMMAND__KIND_RESTORE;
    out->restore = MAKE(Muster__V1__RestoreCommand, muster__v1__restore_command__init);
    out->restore->backup_reference = text(c->backup_reference);
}

static void make_restart(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    out->kind_case = MUSTER__V1__COMMAND__KIND_RESTART;
    out->restart = MAKE(Muster__V1__RestartCommand, muster__v1__restart_command__init);
    if (c->grace_ms > 0)
        out->restart->grace = invocation_duration(inv, c->grace_ms);
}

static void make_custom(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    if (!c->custom_type)
        args_refuse(inv, "--type custom needs --custom-type");
    out->kind_case = MUSTER__V1__COMMAND__KIND_CUSTOM;
    out->custom = MAKE(Muster__V1__CustomCommand, muster__v1__custom_command__init);
    out->custom->type = text(c->custom_type);
    out->custom->payload = bytes(inv, c->payload);
}

static void make_lost_mode(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out)
{
    const ProtobufCEnumDescriptor *actions = &muster__v1__lost_mode_action__descriptor;
    int action;
    if (!c->action)
        args_refuse(inv, "--type lost-mode needs --action");
    if (!show_read_enum(actions, c->action, &action))
        args_refuse(inv, "--action %s: is none of %s", c->action, show_enum_choices(actions));
    if (action == MUSTER__V1__LOST_MODE_ACTION__LOST_MODE_ACTION_ENABLE && !c->message && !c->phone_number)
        args_refuse(inv, "--action enable needs --message or --phone-number");
    out->kind_case = MUSTER__V1__COMMAND__KIND_LOST_MODE;
    out->lost_mode = MAKE(Muster__V1__LostModeCommand, muster__v1__lost_mode_command__init);
    out->lost_mode->action = (Muster__V1__LostModeAction)action;
    out->lost_mode->message = text(c->message);
    out->lost_mode->phone_number = text(c->phone_number);
    out->lost_mode->footnote = text(c->footnote);
}

static const struct {
    const char *name;
    void (*make)(struct invocation *inv, const struct command_flags *c, Muster__V1__Command *out);
} types[] = {
    {"lock", make_lock},           {"unlock", make_unlock},   {"wipe", make_wipe},       {"configure", make_configure},
    {"restrict", make_restrict},   {"query", make_query},     {"install", make_install}, {"remove", make_remove},
    {"back-up", make_back_up},     {"restore", make_restore}, {"restart", make_restart}, {"custom", make_custom},
    {"lost-mode", make_lost_mode},
};
#define TYPES (sizeof types / sizeof types[0])

/* Refuses flags of another type: a --passcode that is silently dropped would be worse than an error. */
static void check_flags(struct invocation *inv, const struct command_flags *c, size_t type)
{
    const struct {
        const char *flag;
        bool given;
        int with;
    } uses[] = {
        {"action", c->action, LOST_MODE},
        {"message", c->message, LOCK | LOST_MODE},
        {"phone-number", c->phone_number, LOCK | LOST_MODE},
        {"footnote", c->footnote, LOST_MODE},
        {"passcode", c->passcode, LOCK},
        {"clear-passcode", c->clear_passcode, UNLOCK},
        {"preserve-data-plan", c->preserve_data_plan, WIPE},
        {"wipe-external-storage", c->wipe_external_storage, WIPE},
        {"profile-id", c->profile_id, CONFIGURE},
        {"profile", c->profile, CONFIGURE},
        {"allow", c->allow.count, RESTRICT},
        {"forbid", c->forbid.count, RESTRICT},
        {"item", c->items.count, QUERY},
        {"app", c->app, INSTALL | REMOVE},
        {"version", c->version, INSTALL},
        {"url", c->url, INSTALL},
        {"sha256", c->sha256, INSTALL},
        {"destination", c->destination, BACK_UP},
        {"backup-reference", c->backup_reference, RESTORE},
        {"grace", c->grace_ms > 0, RESTART},
        {"custom-type", c->custom_type, CUSTOM},
        {"payload", c->payload, CUSTOM},
    };
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++)
        if (uses[i].given && !(uses[i].with & 1 << type))
            args_refuse(inv, "--%s does not go with --type %s", uses[i].flag, types[type].name);
}

Muster__V1__Command *command_from_flags(struct invocation *inv, const struct command_flags *c)
{
    if (!c->type)
        args_refuse(inv, "needs --type (%s --help lists the types)", inv->command);
    for (size_t i = 0; i < TYPES; i++) {
        if (strcmp(types[i].name, c->type) != 0)
            continue;
        Muster__V1__Command *out = MAKE(Muster__V1__Command, muster__v1__command__init);
        check_flags(inv, c, i);
        types[i].make(inv, c, out);
        return out;
    }
    args_refuse(
        inv,
        "--type %s: is none of lock, unlock, lost-mode, wipe, configure, restrict, query, install, remove, back-up, "
        "restore, restart, custom",
        c->type);
}
