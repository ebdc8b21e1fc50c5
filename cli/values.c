#include "cli/values.h"

#include <stdlib.h>
#include <string.h>

#include "cli/input.h"
#include "lib/base/utf8.h"
#include "proto/fill.h"

struct field {
    char *text; /* NUL-terminated, in place */
    size_t len;
};

/* A line's fields, one more than there may be. */
#define FIELDS_MAX (FILL_VARIABLES_MAX + 2)

struct csv {
    struct invocation *inv;
    const char *path;
    char *at, *end;
    size_t line, next_line; /* where the last record began; where the next one does */
};

struct record {
    struct field fields[FIELDS_MAX];
    size_t count;
};

/* Takes one field that stands in quotes; `at` is behind the first one. */
static struct field read_quoted(struct csv *csv)
{
    struct field f = {.text = csv->at};
    char *to = csv->at;
    for (;; csv->at++) {
        if (csv->at == csv->end)
            args_refuse(csv->inv, "%s: line %zu: a quoted field does not end", csv->path, csv->line);
        if (*csv->at == '"' && csv->at + 1 < csv->end && csv->at[1] == '"')
            csv->at++;
        else if (*csv->at == '"')
            break;
        csv->next_line += *csv->at == '\n';
        *to++ = *csv->at;
    }
    f.len = (size_t)(to - f.text);
    csv->at++;
    return f;
}

static struct field read_plain(struct csv *csv)
{
    struct field f = {.text = csv->at};
    while (csv->at < csv->end && *csv->at != ',' && *csv->at != '\n')
        csv->at++;
    f.len = (size_t)(csv->at - f.text);
    if (f.len && f.text[f.len - 1] == '\r' && (csv->at == csv->end || *csv->at == '\n'))
        f.len--;
    return f;
}

/* The next record that is no blank line; false at the end. */
static bool read_record(struct csv *csv, struct record *r)
{
    do {
        if (csv->at == csv->end)
            return false;
        r->count = 0;
        csv->line = csv->next_line;
        for (bool more = true; more;) {
            bool quoted = csv->at < csv->end && *csv->at == '"';
            csv->at += quoted;
            struct field f = quoted ? read_quoted(csv) : read_plain(csv);
            if (r->count < FIELDS_MAX)
                r->fields[r->count++] = f;
            while (csv->at < csv->end && *csv->at == '\r')
                csv->at++;
            if (csv->at < csv->end && *csv->at != ',' && *csv->at != '\n')
                args_refuse(csv->inv, "%s: line %zu: something follows a quoted field", csv->path, csv->line);
            more = csv->at < csv->end && *csv->at == ',';
            csv->next_line += csv->at < csv->end && *csv->at == '\n';
            csv->at += csv->at < csv->end;
        }
        for (size_t i = 0; i < r->count; i++)
            r->fields[i].text[r->fields[i].len] = '\0'; /* where its quote, comma or line end was */
    } while (r->count == 1 && r->fields[0].len == 0);
    return true;
}

static Muster__V1__Values *read_heading(struct csv *csv, size_t room)
{
    struct record r;
    Muster__V1__Values *v = invocation_alloc(csv->inv, sizeof *v);
    muster__v1__values__init(v);
    if (!read_record(csv, &r) || strcmp(r.fields[0].text, "id") != 0 || r.count < 2)
        args_refuse(csv->inv, "%s: line 1: must be a heading such as id,passcode", csv->path);
    if (r.count > FILL_VARIABLES_MAX + 1)
        args_refuse(csv->inv, "%s: line 1: has more than %d variables", csv->path, FILL_VARIABLES_MAX);
    v->n_variables = r.count - 1;
    v->variables = invocation_alloc(csv->inv, v->n_variables * sizeof *v->variables);
    v->device_ids = invocation_alloc(csv->inv, room * sizeof *v->device_ids);
    for (size_t i = 0; i < v->n_variables; i++) {
        Muster__V1__Variable *x = v->variables[i] = invocation_alloc(csv->inv, sizeof *x);
        muster__v1__variable__init(x);
        x->name = r.fields[i + 1].text;
        x->values = invocation_alloc(csv->inv, room * sizeof *x->values);
        if (!fill_name_ok(x->name))
            args_refuse(csv->inv, "%s: line 1: \"%.64s\" is no name: 1 to %d of [A-Za-z0-9_]", csv->path, x->name,
                        FILL_NAME_MAX);
    }
    return v;
}

/* Told without the value: it is a secret. */
static void check_value(const struct csv *csv, const Muster__V1__Variable *x, const struct field *f)
{
    if (f->len > FILL_VALUE_MAX)
        args_refuse(csv->inv, "%s: line %zu: the value of %s has %zu bytes, allowed are %d", csv->path, csv->line,
                    x->name, f->len, FILL_VALUE_MAX);
    if (!utf8_good((struct slice){(const uint8_t *)f->text, f->len}))
        args_refuse(csv->inv, "%s: line %zu: the value of %s is not UTF-8", csv->path, csv->line, x->name);
}

static void take_record(const struct csv *csv, Muster__V1__Values *v, const struct record *r)
{
    bool others = strcmp(r->fields[0].text, "*") == 0;
    if (r->count != v->n_variables + 1)
        args_refuse(csv->inv, "%s: line %zu: has %zu%s fields, the heading has %zu", csv->path, csv->line, r->count,
                    r->count == FIELDS_MAX ? " or more" : "", v->n_variables + 1);
    if (!r->fields[0].len)
        args_refuse(csv->inv, "%s: line %zu: has no device id", csv->path, csv->line);
    if (others && v->others_get_defaults)
        args_refuse(csv->inv, "%s: line %zu: is the second one for *", csv->path, csv->line);
    for (size_t i = 0; i < v->n_variables; i++) {
        Muster__V1__Variable *x = v->variables[i];
        const struct field *f = &r->fields[i + 1];
        check_value(csv, x, f);
        *(others ? &x->default_value : &x->values[x->n_values++]) = (ProtobufCBinaryData){f->len, (uint8_t *)f->text};
    }
    if (others)
        v->others_get_defaults = true;
    else
        v->device_ids[v->n_device_ids++] = r->fields[0].text;
}

struct placed {
    const char *id;
    size_t line;
};

static int compare(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : x->line < y->line ? -1 : x->line > y->line;
}

static void check_repeated(const struct csv *csv, struct placed *placed, size_t n)
{
    qsort(placed, n, sizeof *placed, compare);
    for (size_t i = 1; i < n; i++)
        if (strcmp(placed[i - 1].id, placed[i].id) == 0)
            args_refuse(csv->inv, "%s: line %zu: device %.128s has line %zu already", csv->path, placed[i].line,
                        placed[i].id, placed[i - 1].line);
}

Muster__V1__Values *values_from_file(struct invocation *inv, const char *path)
{
    struct csv csv = {.inv = inv, .path = path, .next_line = 1};
    struct record r;
    size_t len, room = 1;
    csv.at = input_file(inv, path, &len);
    csv.end = csv.at + len;
    for (size_t i = 0; i < len; i++)
        room += csv.at[i] == '\n';
    Muster__V1__Values *v = read_heading(&csv, room);
    struct placed *placed = invocation_alloc(inv, room * sizeof *placed);
    while (read_record(&csv, &r)) {
        size_t n = v->n_device_ids;
        take_record(&csv, v, &r);
        if (v->n_device_ids > n)
            placed[n] = (struct placed){v->device_ids[n], csv.line};
    }
    if (!v->n_device_ids && !v->others_get_defaults)
        args_refuse(inv, "%s: has no line for a device", path);
    check_repeated(&csv, placed, v->n_device_ids);
    return v;
}
