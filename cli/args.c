#include "cli/args.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/visible.h"
#include "lib/base/clock.h"
#include "lib/base/config.h"

/* More arguments than a shell passes on in practice; lists longer than this belong into a file. */
#define ARGUMENTS_MAX 100000

/* The common flags by name, for telling them from a subcommand's own. */
static const struct {
    const char *name, *help;
    bool takes_value;
} common_flags[] = {
    {"target", "HOST:PORT  a dispatcher (default 127.0.0.1:7443) [MUSTER_TARGET]", true},
    {"ca", "FILE  PEM of the authority to trust; the system's when absent [MUSTER_CA]", true},
    {"api-key", "KEY  what to authenticate with [MUSTER_API_KEY]", true},
    {"plaintext", "  no TLS [MUSTER_PLAINTEXT]", false},
    {"timeout", "TIME  limit of one call (default 60s; watching has none) [MUSTER_TIMEOUT]", true},
    {"json", "  answers in JSON, one object a line [MUSTER_JSON]", false},
    {"postgres", "CONNINFO  for migrate and tenant bootstrap only [MUSTER_POSTGRES]", true},
    {"log-level", "LEVEL  debug, info, warn or error (default warn) [MUSTER_LOG_LEVEL]", true},
    {"config", "FILE  INI file of key = value lines [MUSTER_CONFIG]", true},
};
#define COMMON_COUNT (sizeof common_flags / sizeof common_flags[0])

void args_refuse(const struct invocation *inv, const char *fmt, ...)
{
    struct buf line = {0};
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&line, fmt, ap);
    va_end(ap);
    char *text = buf_take_str(&line);
    fprintf(stderr, "%s: ", inv->command);
    visible_print(stderr, text ? text : "out of memory");
    fputc('\n', stderr);
    free(text);
    exit(EXIT_USAGE);
}

int64_t args_number(const struct invocation *inv, const char *what, const char *text)
{
    char *end;

    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno || n < 1)
        args_refuse(inv, "%s \"%s\" is not a positive number", what, text);
    return n;
}

void *invocation_alloc(struct invocation *inv, size_t size)
{
    void *p = arena_alloc(&inv->arena, size);

    if (!p)
        abort();
    return memset(p, 0, size);
}

Google__Protobuf__Duration *invocation_duration(struct invocation *inv, int64_t ms)
{
    Google__Protobuf__Duration *d = invocation_alloc(inv, sizeof *d);

    google__protobuf__duration__init(d);
    d->seconds = ms / 1000;
    d->nanos = (int32_t)(ms % 1000) * 1000000;
    return d;
}

char *invocation_copy(struct invocation *inv, const void *data, size_t len)
{
    char *p = arena_copy(&inv->arena, data, len);

    if (!p)
        abort();
    return p;
}

static void list_add(struct invocation *inv, struct arg_list *list, const char *item)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 8;
        const char **grown = invocation_alloc(inv, room * sizeof *grown);
        if (list->count)
            memcpy(grown, list->items, list->count * sizeof *grown);
        list->items = grown;
        list->room = room;
    }
    list->items[list->count++] = item;
}

static bool parse_duration(const char *text, int64_t *ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    char *end;

    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (!isdigit((unsigned char)*text) || errno)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].unit) == 0)
            return !__builtin_mul_overflow((int64_t)n, units[i].ms, ms);
    return false;
}

static bool parse_int(const char *text, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    return end != text && !*end && !errno && !isspace((unsigned char)*text);
}

Google__Protobuf__Timestamp *invocation_time(struct invocation *inv, const char *flag, const char *text)
{
    Google__Protobuf__Timestamp *out = invocation_alloc(inv, sizeof *out);
    struct tm t = {0};
    int64_t ms;

    google__protobuf__timestamp__init(out);
    if (parse_duration(text, &ms) && !__builtin_add_overflow(ms, clock_wall_ms(), &ms)) {
        out->seconds = ms / 1000;
        out->nanos = (int32_t)(ms % 1000) * 1000000;
        return out;
    }
    const char *end = strptime(text, "%Y-%m-%dT%H:%M", &t);
    if (end && *end == ':')
        end = strptime(end, ":%S", &t);
    if (!end || strcmp(end, "Z") != 0)
        args_refuse(inv, "--%s %s: is neither a time such as 2026-12-01T22:00Z nor one from now such as 8h", flag,
                    text);
    int day = t.tm_mday, month = t.tm_mon;
    out->seconds = timegm(&t);
    if (t.tm_mday != day || t.tm_mon != month)
        args_refuse(inv, "--%s %s: there is no such day", flag, text);
    return out;
}

static void set(struct invocation *inv, const struct arg_flag *f, const char *text)
{
    int64_t n;

    switch (f->kind) {
    case ARG_TEXT:
        *(const char **)f->value = text;
        return;
    case ARG_LIST:
        list_add(inv, f->value, text);
        return;
    case ARG_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            args_refuse(inv, "--%s: \"%s\" is not true or false", f->name, text);
        *(bool *)f->value = strcmp(text, "true") == 0;
        return;
    case ARG_INT:
        if (!parse_int(text, &n))
            args_refuse(inv, "--%s: \"%s\" is not a whole number", f->name, text);
        break;
    case ARG_DURATION:
        if (!parse_duration(text, &n))
            args_refuse(inv, "--%s: \"%s\" is not a time such as 250ms, 3s, 5m, 2h, 7d", f->name, text);
        break;
    default:
        return;
    }
    if ((f->min || f->max) && (n < f->min || n > f->max))
        args_refuse(inv, "--%s: \"%s\" is not between %lld and %lld%s", f->name, text, (long long)f->min,
                    (long long)f->max, f->kind == ARG_DURATION ? " ms" : "");
    *(int64_t *)f->value = n;
}

static const struct arg_flag *find_flag(const struct arg_flag *flags, const char *name, size_t len)
{
    for (const struct arg_flag *f = flags; f && f->name; f++)
        if (strlen(f->name) == len && memcmp(f->name, name, len) == 0)
            return f;
    return NULL;
}

static void help(const struct invocation *inv, const struct args *a)
{
    char left[80];

    printf("Usage: %s [flags]%s%s%s\n%s\n", inv->command, *a->positional ? " " : "", a->positional,
           a->takes_rest ? " [-- ...]" : "", inv->summary);
    if (a->flags && a->flags->name)
        printf("\nFlags:\n");
    for (const struct arg_flag *f = a->flags; f && f->name; f++) {
        snprintf(left, sizeof left, "--%s %s", f->name, f->placeholder ? f->placeholder : "");
        printf("  %-30s %s\n", left, f->help);
    }
    printf("\nCommon flags:\n");
    for (size_t i = 0; i < COMMON_COUNT; i++) {
        const char *text = strstr(common_flags[i].help, "  ");
        snprintf(left, sizeof left, "--%s %.*s", common_flags[i].name, (int)(text - common_flags[i].help),
                 common_flags[i].help);
        printf("  %-30s %s\n", left, text + 2);
    }
    if (a->notes)
        printf("\n%s\n", a->notes);
    exit(EXIT_DONE);
}

/* Passes a common flag at argv[i] on. Returns how many arguments it takes; 0 when it is none. */
static int take_common(struct invocation *inv, int i, const char *name, size_t len, struct arg_list *forward)
{
    for (size_t k = 0; k < COMMON_COUNT; k++) {
        if (strlen(common_flags[k].name) != len || memcmp(common_flags[k].name, name, len) != 0)
            continue;
        list_add(inv, forward, inv->argv[i]);
        if (!common_flags[k].takes_value || name[len] == '=')
            return 1;
        if (i + 1 >= inv->argc)
            args_refuse(inv, "--%s needs a value", common_flags[k].name);
        list_add(inv, forward, inv->argv[i + 1]);
        return 2;
    }
    return 0;
}

/* Reads the flag at argv[i]; returns how many arguments it takes. */
static int take_flag(struct invocation *inv, const struct args *a, int i, struct arg_list *forward)
{
    const char *arg = inv->argv[i], *name = arg + 2, *equals = strchr(arg, '=');

    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
        help(inv, a);
    size_t len = arg[1] != '-' ? 0 : equals ? (size_t)(equals - name) : strlen(name);
    const struct arg_flag *f = find_flag(a->flags, name, len);
    if (f && f->kind == ARG_BOOL) {
        set(inv, f, equals ? equals + 1 : "true");
        return 1;
    }
    if (f && !equals && i + 1 >= inv->argc)
        args_refuse(inv, "--%s needs a value", f->name);
    if (f) {
        if (f->kind != ARG_LIST && a->given[f - a->flags])
            args_refuse(inv, "--%s is given twice", f->name);
        a->given[f - a->flags] = true;
        set(inv, f, equals ? equals + 1 : inv->argv[i + 1]);
        return equals ? 1 : 2;
    }
    if (len > 3 && memcmp(name, "no-", 3) == 0 && !equals && (f = find_flag(a->flags, name + 3, len - 3)) != NULL &&
        f->kind == ARG_BOOL) {
        set(inv, f, "false");
        return 1;
    }
    int taken = len ? take_common(inv, i, name, len, forward) : 0;
    if (!taken)
        args_refuse(inv, "unknown flag %.*s (%s --help lists them)", (int)(len ? len + 2 : strlen(arg)), arg,
                    inv->command);
    return taken;
}

static void load_common(struct invocation *inv, const struct arg_list *forward)
{
    struct common *c = &inv->common;
    struct config_option options[] = {
        {"target", CONFIG_STRING, &c->target, "127.0.0.1:7443", 0, 0, ""},
        {"ca", CONFIG_STRING, &c->ca, NULL, 0, 0, ""},
        {"api-key", CONFIG_STRING, &c->api_key, NULL, 0, 0, ""},
        {"postgres", CONFIG_STRING, &c->postgres, NULL, 0, 0, ""},
        {"log-level", CONFIG_STRING, &c->log_level, "warn", 0, 0, ""},
        {"plaintext", CONFIG_BOOL, &c->plaintext, "false", 0, 0, ""},
        {"json", CONFIG_BOOL, &c->json, "false", 0, 0, ""},
        {"timeout", CONFIG_DURATION, &c->timeout_ms, "60s", 1, 86400000, ""},
        {0},
    };
    config_load("muster", inv->summary, options, (int)forward->count, (char **)forward->items, 0);
}

void args_parse(struct invocation *inv, struct args *a)
{
    struct arg_list forward = {0};
    size_t flags = 0;
    int i = 0;

    while (a->flags && a->flags[flags].name)
        flags++;
    a->given = invocation_alloc(inv, flags + 1);
    list_add(inv, &forward, "muster");
    while (i < inv->argc && inv->argc <= ARGUMENTS_MAX) {
        const char *arg = inv->argv[i];
        if (strcmp(arg, "--") == 0 && a->takes_rest) {
            for (i++; i < inv->argc; i++)
                list_add(inv, &a->rest, inv->argv[i]);
        } else if (arg[0] == '-' && arg[1]) {
            i += take_flag(inv, a, i, &forward);
        } else {
            list_add(inv, &a->words, arg);
            i++;
        }
    }
    if (inv->argc > ARGUMENTS_MAX)
        args_refuse(inv, "more than %d arguments", ARGUMENTS_MAX);
    if (a->words.count < a->min)
        args_refuse(inv, "needs %s (%s --help says more)", a->positional, inv->command);
    if (a->words.count > a->max)
        args_refuse(inv, "unexpected argument %s", a->words.items[a->max]);
    load_common(inv, &forward);
}

void invocation_free(struct invocation *inv)
{
    struct common *c = &inv->common;
    char **const texts[] = {&c->target, &c->ca, &c->api_key, &c->postgres, &c->log_level};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        free(*texts[i]);
        *texts[i] = NULL;
    }
    arena_free(&inv->arena);
}
