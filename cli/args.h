/* Arguments of one subcommand: flags anywhere, repeated flags, positional ones, help.
 * Owns: parsing and usage errors. May call: lib/base/config for the common flags. Loop rule: start-up only.
 *
 * The flags every subcommand shares (struct common) come from flags over environment over the file of --config, by
 * lib/base/config; a subcommand's own come from the command line alone. One that takes a value is given once, unless it
 * is a list: of two, the one that is not meant would be passed over in silence. */
#ifndef MUSTER_CLI_ARGS_H
#define MUSTER_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "lib/base/arena.h"

/* What `muster` ends with. */
enum exit_status {
    EXIT_DONE = 0,     /* done; a watched batch succeeded on every device */
    EXIT_NOT_ALL = 1,  /* a watched batch ended otherwise, a hold is not confirmed, or something local failed */
    EXIT_USAGE = 2,    /* wrong flag, argument, setting or input file */
    EXIT_RPC_FAIL = 3, /* the service answered with an error, or could not be reached */
};

/* Shared by all subcommands. */
struct common {
    char *target, *ca, *api_key, *postgres, *log_level;
    bool plaintext, json;
    int64_t timeout_ms;
};

struct arg_list {
    const char **items; /* borrowed from argv; the array is the invocation's */
    size_t count, room;
};

enum arg_kind {
    ARG_TEXT,     /* const char *, borrowed from argv */
    ARG_LIST,     /* struct arg_list: the flag may be repeated */
    ARG_INT,      /* int64_t */
    ARG_DURATION, /* int64_t milliseconds: "250ms", "3s", "5m", "2h", "7d" */
    ARG_BOOL,     /* bool; takes no value, --no-NAME sets it false */
};

struct arg_flag {
    const char *name; /* without the dashes */
    enum arg_kind kind;
    void *value;             /* where it goes; what is there is the default */
    const char *placeholder; /* of the value, for the help */
    const char *help;        /* one line */
    int64_t min, max;        /* of ARG_INT and ARG_DURATION; both 0: none */
};

/* One call of a subcommand. */
struct invocation {
    const char *command; /* "muster batch submit" */
    const char *summary; /* one line */
    int argc;            /* behind the subcommand's name */
    char **argv;
    struct common common;
    struct arena arena; /* what lives as long as the call */
};

struct args {
    const char *positional;       /* for the help, such as "BATCH"; "" for none */
    size_t min, max;              /* how many positional arguments */
    const struct arg_flag *flags; /* ends with a NULL name; NULL: none */
    const char *notes;            /* printed below the help's flags, or NULL */
    struct arg_list words;        /* filled: the positional arguments */
    struct arg_list rest;         /* filled: what stood behind "--" (only with takes_rest) */
    bool takes_rest;
    bool *given; /* filled: of each flag, whether it was given a value */
};

/* Fills a->words, the flags' values and inv->common. On --help prints the help and exits 0; on anything wrong prints
 * one line and exits 2. */
void args_parse(struct invocation *inv, struct args *a);
/* Frees the settings and the arena. */
void invocation_free(struct invocation *inv);
/* Zeroed memory that lives as long as the call; without memory the program ends. */
void *invocation_alloc(struct invocation *inv, size_t size);
Google__Protobuf__Duration *invocation_duration(struct invocation *inv, int64_t ms);
/* A moment such as 2026-12-01T22:00Z, or so long from now, such as 8h; or refuses. */
Google__Protobuf__Timestamp *invocation_time(struct invocation *inv, const char *flag, const char *text);
char *invocation_copy(struct invocation *inv, const void *data, size_t len);

/* Prints "muster batch submit: ..." on one line and exits 2. */
_Noreturn void args_refuse(const struct invocation *inv, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A positive 63-bit number, or refuses; `what` names it. */
int64_t args_number(const struct invocation *inv, const char *what, const char *text);

#endif
