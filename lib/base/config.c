#include "lib/base/config.h"

#include <ctype.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longest option name, and so flag, variable or key. */
#define NAME_MAX_BYTES 64

struct loader {
    const char *program;
    struct config_option *options;
    const char *file;
    char *error; /* CONFIG_ERROR_MAX bytes; the first refusal stays */
};

/* False, always. */
static bool __attribute__((format(printf, 2, 3))) refuse(const struct loader *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!*l->error)
        vsnprintf(l->error, CONFIG_ERROR_MAX, fmt, ap);
    va_end(ap);
    return false;
}

static bool scaled(const char *text, const char *const *units, const int64_t *factors, int64_t *out)
{
    char *end;
    long long n = strtoll(text, &end, 10);
    if (end == text || isspace((unsigned char)*text) || n == LLONG_MAX || n == LLONG_MIN)
        return false;
    for (unsigned i = 0; units[i]; i++) {
        if (strcmp(end, units[i]) == 0)
            return !__builtin_mul_overflow((int64_t)n, factors[i], out);
    }
    return false;
}

static bool parse_duration(const char *text, int64_t *out)
{
    static const char *const units[] = {"ms", "s", "m", "h", "d", NULL};
    static const int64_t factors[] = {1, 1000, 60000, 3600000, 86400000};
    if (strcmp(text, "0") == 0) {
        *out = 0;
        return true;
    }
    return scaled(text, units, factors, out);
}

static bool parse_size(const char *text, int64_t *out)
{
    static const char *const units[] = {"", "B", "KiB", "MiB", "GiB", "TiB", NULL};
    static const int64_t factors[] = {1, 1, 1LL << 10, 1LL << 20, 1LL << 30, 1LL << 40};
    return scaled(text, units, factors, out);
}

static bool parse_int(const char *text, int64_t *out)
{
    static const char *const units[] = {"", NULL};
    static const int64_t factors[] = {1};
    return scaled(text, units, factors, out);
}

static bool parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static const char *expected(enum config_type type)
{
    switch (type) {
    case CONFIG_INT:
        return "a whole number";
    case CONFIG_BOOL:
        return "true or false";
    case CONFIG_DURATION:
        return "a time such as 250ms, 3s, 5m, 2h, 7d";
    case CONFIG_SIZE:
        return "a size such as 64, 64KiB, 64MiB, 1GiB";
    default:
        return "text";
    }
}

/* Sets one option from `text`; `where` names the flag, variable or key for the message. */
static bool set_option(const struct loader *l, struct config_option *o, const char *text, const char *where)
{
    int64_t n = 0;
    bool ok = false;
    switch (o->type) {
    case CONFIG_STRING: {
        char *copy = strdup(text);
        if (!copy)
            return refuse(l, "%s: out of memory", where);
        free(*(char **)o->value);
        *(char **)o->value = copy;
        return true;
    }
    case CONFIG_BOOL:
        if (parse_bool(text, o->value))
            return true;
        return refuse(l, "%s: \"%s\" is not %s", where, text, expected(o->type));
    case CONFIG_INT:
        ok = parse_int(text, &n);
        break;
    case CONFIG_DURATION:
        ok = parse_duration(text, &n);
        break;
    case CONFIG_SIZE:
        ok = parse_size(text, &n);
        break;
    }
    if (!ok)
        return refuse(l, "%s: \"%s\" is not %s", where, text, expected(o->type));
    if ((o->min || o->max) && (n < o->min || n > o->max))
        return refuse(l, "%s: \"%s\" is not between %lld and %lld%s", where, text, (long long)o->min, (long long)o->max,
                      o->type == CONFIG_DURATION ? " ms"
                      : o->type == CONFIG_SIZE   ? " bytes"
                                                 : "");
    *(int64_t *)o->value = n;
    return true;
}

static struct config_option *find_option(const struct loader *l, const char *name, size_t len)
{
    for (struct config_option *o = l->options; o->name; o++) {
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    }
    return NULL;
}

/* Writes "MUSTER_REDIS_URL" for "redis-url". */
static const char *variable_name(const char *name, char out[static NAME_MAX_BYTES + 8])
{
    int n = snprintf(out, NAME_MAX_BYTES + 8, "MUSTER_%s", name);
    for (int i = 0; i < n && out[i]; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
    return out;
}

/* Zero, which inih takes for a wrong line, when it is refused. */
static int on_key(void *user, const char *section, const char *key, const char *value)
{
    const struct loader *l = user;
    if (*section && strcmp(section, l->program) != 0)
        return 1;
    char name[NAME_MAX_BYTES], where[512];
    size_t n = 0;
    for (; n < sizeof name - 1 && key[n]; n++)
        name[n] = key[n] == '_' ? '-' : key[n];
    struct config_option *o = key[n] ? NULL : find_option(l, name, n);
    if (!o)
        return refuse(l, "%s: unknown key %s", l->file, key);
    snprintf(where, sizeof where, "%s: key %s", l->file, key);
    return set_option(l, o, value, where);
}

static bool load_file(const struct loader *l)
{
    int line = ini_parse(l->file, on_key, (void *)l);
    if (line == -1)
        return refuse(l, "%s: cannot be opened", l->file);
    if (line == -2)
        return refuse(l, "%s: out of memory", l->file);
    if (line != 0)
        return refuse(l, "%s: line %d is not key = value", l->file, line);
    return true;
}

static bool load_environment(const struct loader *l)
{
    char variable[NAME_MAX_BYTES + 8];
    for (struct config_option *o = l->options; o->name; o++) {
        const char *text = getenv(variable_name(o->name, variable));
        if (text && !set_option(l, o, text, variable))
            return false;
    }
    return true;
}

static const char *placeholder(enum config_type type)
{
    static const char *const names[] = {" TEXT", " N", "", " TIME", " SIZE"};
    return names[type];
}

static void print_help(const char *program, const char *summary, const struct config_option *options, int allow_args)
{
    printf("Usage: %s [flags]%s\n%s\n\n", program, allow_args ? " ARGUMENT..." : "", summary);
    for (const struct config_option *o = options; o->name; o++) {
        char left[NAME_MAX_BYTES + 16], variable[NAME_MAX_BYTES + 8];
        snprintf(left, sizeof left, "--%s%s", o->name, placeholder(o->type));
        printf("  %-28s %s", left, o->help ? o->help : "");
        if (o->default_value && *o->default_value)
            printf(" (default %s)", o->default_value);
        printf(" [%s]\n", variable_name(o->name, variable));
    }
    printf("  %-28s INI file of key = value lines [MUSTER_CONFIG]\n", "--config FILE");
    printf("  %-28s this text\n  %-28s program and version\n", "--help", "--version");
}

/* One flag read from argv: its option (NULL for --config) and its value. */
struct flag {
    struct config_option *option;
    const char *value;
    char where[NAME_MAX_BYTES + 8];
};

/* Reads the flag at argv[i], which begins with '-'. Returns how many arguments it takes; 0 when it is refused. */
static int read_flag(const struct loader *l, int argc, char **argv, int i, struct flag *f)
{
    const char *name = argv[i] + 2, *equals = strchr(argv[i], '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    if (argv[i][1] != '-' || len == 0 || len >= NAME_MAX_BYTES)
        return refuse(l, "unknown flag %s (--help lists them)", argv[i]);
    snprintf(f->where, sizeof f->where, "--%.*s", (int)len, name);
    f->value = equals ? equals + 1 : NULL;
    bool is_config = len == 6 && memcmp(name, "config", 6) == 0;
    f->option = is_config ? NULL : find_option(l, name, len);
    if (!is_config && !f->option && len > 3 && memcmp(name, "no-", 3) == 0 && !equals) {
        f->option = find_option(l, name + 3, len - 3);
        if (f->option && f->option->type == CONFIG_BOOL) {
            f->value = "false";
            return 1;
        }
        f->option = NULL;
    }
    if (!is_config && !f->option)
        return refuse(l, "unknown flag %s (--help lists them)", f->where);
    if (f->value)
        return 1;
    if (f->option && f->option->type == CONFIG_BOOL) {
        f->value = "true";
        return 1;
    }
    if (i + 1 >= argc)
        return refuse(l, "%s needs a value", f->where);
    f->value = argv[i + 1];
    return 2;
}

/* Walks the flags. First pass (`apply` false) looks for --help and --version and finds --config; the second sets
 * options. */
static int walk_flags(struct loader *l, int argc, char **argv, int allow_args, bool apply)
{
    int i = 1;
    while (i < argc && argv[i][0] == '-' && argv[i][1]) {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return CONFIG_HELP;
        if (strcmp(argv[i], "--version") == 0)
            return CONFIG_VERSION;
        struct flag f = {0};
        int taken = read_flag(l, argc, argv, i, &f);
        if (!taken)
            return CONFIG_REFUSED;
        i += taken;
        if (!f.option)
            l->file = f.value;
        else if (apply && !set_option(l, f.option, f.value, f.where))
            return CONFIG_REFUSED;
    }
    if (i < argc && !allow_args) {
        refuse(l, "unexpected argument %s", argv[i]);
        return CONFIG_REFUSED;
    }
    return i;
}

static bool set_defaults(const struct loader *l)
{
    bool all = true;
    for (struct config_option *o = l->options; o->name; o++) {
        if (o->type == CONFIG_STRING)
            *(char **)o->value = NULL;
        else if (o->type == CONFIG_BOOL)
            *(bool *)o->value = false;
        else
            *(int64_t *)o->value = 0;
        if (o->default_value)
            all = set_option(l, o, o->default_value, o->name) && all;
    }
    return all;
}

int config_read(const char *program, struct config_option *options, int argc, char **argv, int allow_args,
                char error[CONFIG_ERROR_MAX])
{
    struct loader l = {.program = program, .options = options, .error = error};
    *error = 0;
    if (!set_defaults(&l))
        return CONFIG_REFUSED;
    int first = walk_flags(&l, argc, argv, allow_args, false);
    if (first < 0)
        return first;
    if (!l.file)
        l.file = getenv("MUSTER_CONFIG");
    if ((l.file && *l.file && !load_file(&l)) || !load_environment(&l))
        return CONFIG_REFUSED;
    return walk_flags(&l, argc, argv, allow_args, true);
}

int config_load(const char *program, const char *summary, struct config_option *options, int argc, char **argv,
                int allow_args)
{
    char error[CONFIG_ERROR_MAX];
    int first = config_read(program, options, argc, argv, allow_args, error);
    switch (first) {
    case CONFIG_HELP:
        print_help(program, summary, options, allow_args);
        exit(0);
    case CONFIG_VERSION:
        printf("%s %s\n", program, MUSTER_VERSION);
        exit(0);
    case CONFIG_REFUSED: /* a process with a wrong setting must not start */
        fprintf(stderr, "%s: %s\n", program, error);
        exit(2);
    default:
        return first;
    }
}

void config_free(struct config_option *options)
{
    for (struct config_option *o = options; o->name; o++) {
        if (o->type == CONFIG_STRING) {
            free(*(char **)o->value);
            *(char **)o->value = NULL;
        }
    }
}
