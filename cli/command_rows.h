/* Commands as lines: of a table, of CSV (RFC 4180), of JSON (proto3 mapping, an object a line).
 * Owns: the look. May call: cli/show. Loop rule: writes are blocking. */
#ifndef MUSTER_CLI_COMMAND_ROWS_H
#define MUSTER_CLI_COMMAND_ROWS_H

#include <stdbool.h>

#include "lib/base/buf.h"
#include "muster/v1/command_service.pb-c.h"

enum row_format { ROWS_TABLE, ROWS_CSV, ROWS_JSON };

/* Zero-initialise and set `format`. Lines collect in `out` until they are flushed. */
struct row_writer {
    enum row_format format;
    struct buf out;
    bool begun;       /* the heading is written */
    int64_t second;   /* the last one written, 0: none; commands of one second stand together */
    char seconds[24]; /* it as text */
};

/* False when `text` names no format: table, csv or json. */
MUST_CHECK bool row_format_read(const char *text, enum row_format *format);
/* The heading, unless it is written: also of a list without rows. */
void row_writer_begin(struct row_writer *w);
void row_writer_put(struct row_writer *w, const Muster__V1__CommandStatus *command);
/* Writes to standard output. False when that failed, or memory ran out. */
bool row_writer_flush(struct row_writer *w);
void row_writer_free(struct row_writer *w);

/* A page of a table. */
void command_rows(Muster__V1__CommandStatus *const *commands, size_t count, bool heading);
/* Several lines about one command, with its result. */
void command_details(const Muster__V1__CommandStatus *command);

#endif
