/* Settings of a process: flags over environment over one INI file over defaults.
 * Owns: parsing and help. May call: libinih. Loop rule: start-up only.
 *
 * An option named "redis-url" is the flag --redis-url VALUE (or --redis-url=VALUE), the variable MUSTER_REDIS_URL and
 * the key redis_url of the file named by --config or MUSTER_CONFIG. A flag of type bool takes no value or =true/=false,
 * and --no-NAME sets it to false. "--" ends the flags. In the file, keys above the first [section] are for every
 * program; those in a section are for the program of that name only, so that one file can serve all. An unknown key is
 * refused. */
#ifndef MUSTER_BASE_CONFIG_H
#define MUSTER_BASE_CONFIG_H

#include <stdint.h>

enum config_type {
    CONFIG_STRING,   /* char *: owned by the config, freed by config_free */
    CONFIG_INT,      /* int64_t */
    CONFIG_BOOL,     /* bool */
    CONFIG_DURATION, /* int64_t milliseconds; "250ms", "3s", "5m", "2h", "7d" */
    CONFIG_SIZE,     /* int64_t bytes; "64", "64KiB", "64MiB", "1GiB" */
};

struct config_option {
    const char *name; /* lower case with dashes */
    enum config_type type;
    void *value;               /* where it goes, by type */
    const char *default_value; /* parsed like any other; NULL for none (strings stay NULL) */
    int64_t min, max;          /* bounds of INT, DURATION and SIZE, both 0 for none */
    const char *help;          /* one line, with unit */
};

/* Fills every option's value. `options` ends with a NULL name. Also handles --help (prints usage and all options to
 * stdout, exits 0) and --version. On a wrong flag, variable, key or value prints one line to stderr that names it and
 * where it stood, and exits 2. Returns the index in argv of the first argument that is no flag (argc if none);
 * `allow_args` false makes such an argument an error. */
int config_load(const char *program, const char *summary, struct config_option *options, int argc, char **argv,
                int allow_args);
/* The same, saying nothing and ending nothing: returns one of these instead, CONFIG_REFUSED with the line in `error`.
 * The options' strings are the caller's to free in any case. */
enum { CONFIG_REFUSED = -1, CONFIG_HELP = -2, CONFIG_VERSION = -3 };
#define CONFIG_ERROR_MAX 1024
int config_read(const char *program, struct config_option *options, int argc, char **argv, int allow_args,
                char error[CONFIG_ERROR_MAX]);
/* Frees the strings and sets them NULL. */
void config_free(struct config_option *options);

#endif
