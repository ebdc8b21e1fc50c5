/* What comes from files and standard input: whole files, lists of ids, values given as text or @file.
 * Owns: nothing. May call: lib/base. Loop rule: reads are blocking. */
#ifndef MUSTER_CLI_INPUT_H
#define MUSTER_CLI_INPUT_H

#include <stddef.h>

#include "cli/args.h"
#include "lib/base/buf.h"

/* Reads the file, or standard input for "-", to its end, with a NUL behind it. Exits 2 with one line when it can't. */
void input_file(const struct invocation *inv, const char *path, struct buf *out);
/* `value` itself, or the content of FILE for "@FILE" ("@-": standard input). Returns owned bytes, a NUL behind them. */
char *input_value(const struct invocation *inv, const char *value, size_t *len);
/* Cuts NUL-terminated `text` into its lines, in place, without blank ones; returns owned array of borrowed lines. */
char **input_lines(char *text, size_t *count);

/* Ids of --device flags, of a file with one id a line, or both. */
struct input_ids {
    char **ids; /* owned array of borrowed texts */
    size_t count;
    struct buf text; /* the file's */
};
void input_ids_load(const struct invocation *inv, const struct arg_list *flags, const char *file,
                    struct input_ids *out);
void input_ids_free(struct input_ids *ids);

#endif
