/* muster device import: CSV lines or JSON lines; both may have tags and attributes. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/device_labels.h"
#include "cli/device_rows.h"
#include "cli/input.h"
#include "cli/show.h"

struct source {
    struct invocation *inv;
    const char *path;
    size_t line;
    Muster__V1__Platform fallback; /* for rows that name no platform */
    struct label_columns columns;
};

static Muster__V1__Device *labels_new(const struct source *src)
{
    Muster__V1__Device *labels = invocation_alloc(src->inv, sizeof *labels);

    muster__v1__device__init(labels);
    return labels;
}

static Muster__V1__Platform platform_of(const struct source *src, const char *text)
{
    int value = 0;

    if (!text || !*text)
        return src->fallback;
    if (!show_read_enum(&muster__v1__platform__descriptor, text, &value))
        args_refuse(src->inv, "%s: entry %zu: platform \"%.64s\" is none of %s", src->path, src->line, text,
                    show_enum_choices(&muster__v1__platform__descriptor));
    return (Muster__V1__Platform)value;
}

static void read_json(const struct source *src, const char *line, struct device_row *row)
{
    char platform[32] = "";
    json_error_t error;
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, &error);
    const char *id = json_string_value(json_object_get(object, "id"));
    const char *given = json_string_value(json_object_get(object, "platform"));

    const char *wrong = NULL;

    row->id = id ? invocation_copy(src->inv, id, strlen(id)) : NULL;
    snprintf(platform, sizeof platform, "%s", given ? given : "");
    if (id && json_object_size(object) > (given ? 2u : 1u)) {
        Muster__V1__Device *labels = labels_new(src);
        wrong = label_set_json(src->inv, labels, object);
        row->labels = labels;
    }
    json_decref(object);
    if (!row->id)
        args_refuse(src->inv, "%s: entry %zu: is no JSON object with a text \"id\"", src->path, src->line);
    if (wrong)
        args_refuse(src->inv, "%s: entry %zu: %s", src->path, src->line, wrong);
    row->platform = platform_of(src, platform);
}

/* Columns that are missing at the end are empty. */
static void read_csv(const struct source *src, char *line, struct device_row *row)
{
    Muster__V1__Device *labels = src->columns.labels ? labels_new(src) : NULL;
    char *platform = NULL, *value;

    for (size_t i = 0; i < src->columns.count && (value = strsep(&line, ",")); i++) {
        value += strspn(value, " \t");
        if (strcmp(src->columns.names[i], "id") == 0)
            row->id = value;
        else if (strcmp(src->columns.names[i], "platform") == 0)
            platform = value;
        else if (labels)
            label_set_column(src->inv, labels, src->columns.names[i], value);
    }
    if (line || !row->id || !*row->id)
        args_refuse(src->inv, "%s: entry %zu: is not %s", src->path, src->line,
                    src->columns.labels ? "what the heading says" : "id,platform");
    row->platform = platform_of(src, platform);
    row->labels = labels;
}

/* Rows live as long as the call. */
static struct device_row *read_rows(struct source *src, char *text, size_t *count)
{
    size_t lines;
    char **line = input_lines(src->inv, text, &lines);
    struct device_row *rows = invocation_alloc(src->inv, (lines + 1) * sizeof *rows);

    *count = 0;
    for (size_t i = 0; i < lines; i++) {
        src->line = i + 1;
        if (i == 0 && label_columns_read(src->inv, src->path, line[i], &src->columns))
            continue;
        if (line[i][0] == '{')
            read_json(src, line[i], &rows[(*count)++]);
        else
            read_csv(src, line[i], &rows[(*count)++]);
    }
    return rows;
}

static int import_rows(struct invocation *inv, const struct device_row *rows, size_t count, bool replace)
{
    struct session s;

    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    Muster__V1__ImportDevicesResponse *answer = device_rows_import(&s, rows, count, replace);
    if (answer && inv->common.json)
        show_json(&answer->base);
    else if (answer)
        printf("%u created, %u updated\n", answer->created, answer->updated);
    int status = answer ? EXIT_DONE : EXIT_RPC_FAIL;
    session_free_message((ProtobufCMessage *)answer);
    session_close(&s);
    return status;
}

int device_import(struct invocation *inv)
{
    const char *platform = NULL;
    bool replace = false;
    const struct arg_flag flags[] = {
        {"replace", ARG_BOOL, &replace, "", "the devices keep no tags and attributes but those given", 0, 0},
        {"platform", ARG_TEXT, &platform, "PLATFORM", "for entries that name none", 0, 0},
        {0},
    };
    struct args a = {
        .positional = "[FILE]",
        .max = 1,
        .flags = flags,
        .notes =
            "FILE has lines id,platform, or begins with a heading that names its columns: id, platform,\n"
            "tags (with ; between them), os_version, model, time_zone (such as Europe/Berlin), attr.NAME.\n"
            "Or it has JSON objects, one a line:\n"
            "{\"id\": \"…\", \"platform\": \"ios\", \"tags\": [\"…\"], \"attributes\": {\"NAME\": \"…\"},\n"
            "\"os_version\": \"…\", \"model\": \"…\", \"time_zone\": \"…\"}. Without FILE standard input is read.\n"
            "Platforms: ios, ipados, macos, tvos, android, windows."};
    struct source src = {.inv = inv};

    label_columns_default(&src.columns);
    size_t count, len;

    args_parse(inv, &a);
    src.path = "--platform";
    src.fallback = platform_of(&src, platform);
    src.path = a.words.count ? a.words.items[0] : "-";
    struct device_row *rows = read_rows(&src, input_file(inv, src.path, &len), &count);
    return import_rows(inv, rows, count, replace);
}
