/* Tags and attributes of the rows of `muster device import`: from columns of CSV and from JSON.
 * Owns: struct label_columns. May call: cli/args. Loop rule: start-up only. */
#ifndef MUSTER_CLI_DEVICE_LABELS_H
#define MUSTER_CLI_DEVICE_LABELS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "cli/args.h"
#include "muster/v1/device_service.pb-c.h"

#define LABEL_COLUMNS_MAX 80

/* The columns that a heading names. */
struct label_columns {
    const char
        *names[LABEL_COLUMNS_MAX]; /* "id", "platform", "tags", "os_version", "model", "time_zone" or "attr.<name>" */
    size_t count;
    bool labels; /* some of them are labels */
};

/* Reads a heading, in place. False when the line is none: it does not begin with a column "id". Refuses a column that
 * it does not know. */
bool label_columns_read(struct invocation *inv, const char *where, char *line, struct label_columns *columns);
/* What `columns` without a heading are: id,platform. */
void label_columns_default(struct label_columns *columns);

/* Sets what the value of a column says; `device` lives as long as the call, as do the values. */
void label_set_column(struct invocation *inv, Muster__V1__Device *device, const char *column, char *value);
/* The same of a JSON object: tags, attributes, os_version, model, time_zone. NULL, or what is wrong with it (a
 * literal). */
const char *label_set_json(struct invocation *inv, Muster__V1__Device *device, json_t *object);

#endif
