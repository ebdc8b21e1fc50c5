/* What comes from files and standard input: whole files, lists of ids, values given as text or @file.
 * Owns: nothing. May call: lib/base. Loop rule: reads are blocking. */
#ifndef MUSTER_CLI_INPUT_H
#define MUSTER_CLI_INPUT_H

#include <stddef.h>

#include "cli/args.h"

/* Reads the file, or standard input for "-", to its end, with a NUL behind it; lives as long as the call. Exits 2 with
 * one line when it can't. */
char *input_file(struct invocation *inv, const char *path, size_t *len);
/* `value` itself, or the content of FILE for "@FILE" ("@-": standard input), a NUL behind it; lives as long as the
 * call. */
char *input_value(struct invocation *inv, const char *value, size_t *len);
/* Cuts NUL-terminated `text` into its lines, in place, without blank ones; the array lives as long as the call. */
char **input_lines(struct invocation *inv, char *text, size_t *count);

/* Ids of --device flags, of a file with one id a line, or both; they live as long as the call. */
struct input_ids {
    char **ids;
    size_t count;
};
void input_ids_load(struct invocation *inv, const struct arg_list *flags, const char *file, struct input_ids *out);

#endif
