/* Values per device: the part of validate.h that looks at them and at the command they make. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/validate.h"
#include "lib/base/arena.h"
#include "lib/base/utf8.h"
#include "proto/fill.h"

#define VALUES_ARENA_MAX   (1u << 20) /* of one command, decoded: it has at most 64 KiB */
#define LOST_MODE_FOOTNOTE 4          /* the field's number */

/* What devices get of the variables: those listed, then (as number n_device_ids) those that get the defaults. */
struct checking {
    struct status *st;
    const Muster__V1__Values *in;
    struct fill fill;
    struct slice template;
    size_t candidates;
    bool lost_mode; /* the command */
};

static struct slice value_of(const Muster__V1__Values *in, size_t variable, size_t device)
{
    const Muster__V1__Variable *v = in->variables[variable];
    const ProtobufCBinaryData *b = device < in->n_device_ids ? &v->values[device] : &v->default_value;
    return (struct slice){b->data, b->len};
}

static void values_of(const Muster__V1__Values *in, size_t device, struct slice out[FILL_VARIABLES_MAX])
{
    for (size_t i = 0; i < in->n_variables; i++)
        out[i] = value_of(in, i, device);
}

/* Where a value stands in the request. */
static void path_of(const Muster__V1__Values *in, size_t variable, size_t device, char out[96])
{
    if (device < in->n_device_ids)
        snprintf(out, 96, "values.variables[%zu].values[%zu]", variable, device);
    else
        snprintf(out, 96, "values.variables[%zu].default_value", variable);
}

/* --- the message -------------------------------------------------------------------------------------------------- */

static void check_names(struct status *st, const Muster__V1__Values *in)
{
    char field[96];
    for (size_t i = 0; i < in->n_variables; i++) {
        const Muster__V1__Variable *v = in->variables[i];
        snprintf(field, sizeof field, "values.variables[%zu].name", i);
        if (!fill_name_ok(v->name))
            status_violation(st, field, "must be 1 to %d bytes of [A-Za-z0-9_]", FILL_NAME_MAX);
        for (size_t k = 0; k < i; k++)
            if (strcmp(in->variables[k]->name, v->name) == 0)
                status_violation(st, field, "is that of variable %zu too", k);
        snprintf(field, sizeof field, "values.variables[%zu].values", i);
        if (v->n_values != in->n_device_ids)
            status_violation(st, field, "has %zu entries for %zu devices", v->n_values, in->n_device_ids);
        if (v->default_value.len && !in->others_get_defaults) {
            snprintf(field, sizeof field, "values.variables[%zu].default_value", i);
            status_violation(st, field, "nobody gets it: others_get_defaults is not set");
        }
    }
}

static void check_message(struct status *st, const Muster__V1__Values *in)
{
    validate_ids(st, "values.device_ids", in->device_ids, in->n_device_ids, in->others_get_defaults ? 0 : 1,
                 DEVICE_IDS_MAX);
    if (in->n_variables < 1 || in->n_variables > FILL_VARIABLES_MAX)
        status_violation(st, "values.variables", "has %zu entries, allowed are 1 to %d", in->n_variables,
                         FILL_VARIABLES_MAX);
    else
        check_names(st, in);
}

/* --- single values ------------------------------------------------------------------------------------------------ */

static void check_value(const struct checking *c, size_t variable, size_t device)
{
    struct slice value = value_of(c->in, variable, device);
    bool text = c->fill.text >> variable & 1;
    char field[96];
    if (value.len <= FILL_VALUE_MAX && (!text || utf8_good(value)))
        return;
    path_of(c->in, variable, device, field);
    if (value.len > FILL_VALUE_MAX)
        status_violation(c->st, field, "has %zu bytes, allowed are %d", value.len, FILL_VALUE_MAX);
    else
        status_violation(c->st, field, "is not UTF-8, or has a zero byte");
}

/* What is told of a value never repeats it. */
static void check_values(const struct checking *c)
{
    for (size_t d = 0; d < c->candidates && c->st->violation_count < STATUS_VIOLATIONS_MAX; d++) {
        size_t packed = 0;
        for (size_t i = 0; i < c->in->n_variables; i++) {
            check_value(c, i, d);
            packed += value_of(c->in, i, d).len + 2; /* and its length */
        }
        char field[96];
        path_of(c->in, 0, d, field);
        if (packed > FILL_PACKED_MAX)
            status_violation(c->st, field, "the device's values take more than %d bytes together", FILL_PACKED_MAX);
    }
}

/* --- the commands they make --------------------------------------------------------------------------------------- */

static const char *device_name(const Muster__V1__Values *in, size_t device)
{
    return device < in->n_device_ids ? in->device_ids[device] : "devices with the defaults";
}

/* As if the command had come with this device's values. */
static void check_filled(const struct checking *c, size_t device)
{
    struct slice values[FILL_VARIABLES_MAX];
    struct buf command = {0};
    struct arena arena = {.limit = VALUES_ARENA_MAX};
    struct status st = {0};
    values_of(c->in, device, values);
    size_t size = fill_size(&c->fill, values);
    if (size > COMMAND_BYTES_MAX) {
        status_violation(c->st, "command", "for %.64s: takes %zu bytes, allowed are %u", device_name(c->in, device),
                         size, COMMAND_BYTES_MAX);
        return;
    }
    fill_put(&c->fill, c->template, values, &command);
    Muster__V1__Command *filled =
        command.failed ? NULL
                       : muster__v1__command__unpack(arena_allocator(&arena), buf_len(&command), buf_head(&command));
    if (filled)
        validate_command(&st, filled);
    else
        status_set(c->st, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
    for (unsigned i = 0; i < st.violation_count && i < STATUS_VIOLATIONS_MAX; i++)
        status_violation(c->st, st.violations[i].field, "for %.64s: %.90s", device_name(c->in, device),
                         st.violations[i].description);
    arena_free(&arena);
    buf_free(&command);
}

/* Bytes of lost mode's message and telephone number, of which one must be given. */
static size_t reach_size(const struct fill *f, const struct slice *values)
{
    size_t n = 0;
    for (size_t i = 0; i < f->field_count; i++)
        if (f->fields[i].number != LOST_MODE_FOOTNOTE)
            n += fill_field_size(f, i, values);
    return n;
}

/* What extreme `i` compares, and whether the device with the least of it is wanted, or with the most. */
static size_t extent(const struct fill *f, size_t i, const struct slice *values, bool *least)
{
    size_t fields = f->field_count;
    *least = i < fields || i > 2 * fields;
    if (i < 2 * fields)
        return fill_field_size(f, i % fields, values);
    return i == 2 * fields ? fill_size(f, values) : reach_size(f, values);
}

/* Texts and bytes are limited by their length alone, so that the devices with the shortest and with the longest content
 * of each field, and with the largest command, stand for all; and with the least of two where one of both is needed. */
static void check_extremes(const struct checking *c)
{
    size_t marked[2 * FILL_PLACES_MAX + 2], sizes[2 * FILL_PLACES_MAX + 2];
    size_t n = 2 * (size_t)c->fill.field_count + 1 + c->lost_mode;
    for (size_t d = 0; d < c->candidates; d++) {
        struct slice values[FILL_VARIABLES_MAX];
        values_of(c->in, d, values);
        for (size_t i = 0; i < n; i++) {
            bool least;
            size_t size = extent(&c->fill, i, values, &least);
            if (d > 0 && (least ? size >= sizes[i] : size <= sizes[i]))
                continue;
            marked[i] = d;
            sizes[i] = size;
        }
    }
    for (size_t i = 0; c->candidates && i < n && c->st->violation_count < STATUS_VIOLATIONS_MAX; i++) {
        size_t before = 0;
        while (before < i && marked[before] != marked[i])
            before++;
        if (before == i)
            check_filled(c, marked[i]);
    }
}

static void check_places(struct checking *c)
{
    const char *names[FILL_VARIABLES_MAX];
    struct fill_error error;
    char field[96];
    for (size_t i = 0; i < c->in->n_variables; i++)
        names[i] = c->in->variables[i]->name;
    if (!fill_parse(&c->fill, c->template, names, c->in->n_variables, &error)) {
        status_violation(c->st, error.field, "%s", error.what);
        return;
    }
    for (size_t i = 0; i < c->in->n_variables; i++) {
        snprintf(field, sizeof field, "values.variables[%zu].name", i);
        if (!(c->fill.used >> i & 1))
            status_violation(c->st, field, "{{%s}} stands nowhere in the command", names[i]);
    }
}

void validate_values(struct status *st, const Muster__V1__Command *command, const Muster__V1__Values *values)
{
    struct checking c = {.st = st,
                         .in = values,
                         .candidates = values->n_device_ids + (values->others_get_defaults != 0),
                         .lost_mode = command->kind_case == MUSTER__V1__COMMAND__KIND_LOST_MODE};
    size_t size = muster__v1__command__get_packed_size(command);
    check_message(st, values);
    if (size > COMMAND_BYTES_MAX)
        status_violation(st, "command", "takes %zu bytes, allowed are %u", size, COMMAND_BYTES_MAX);
    if (st->code != STATUS_OK)
        return;
    uint8_t *template = malloc(size + 1);
    if (!template) {
        status_set(st, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
        return;
    }
    c.template = (struct slice){template, muster__v1__command__pack(command, template)};
    check_places(&c);
    if (st->code == STATUS_OK)
        check_values(&c);
    if (st->code == STATUS_OK)
        check_extremes(&c);
    free(template);
}
