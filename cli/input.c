#include "cli/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"

static char *read_all(struct invocation *inv, const char *path, FILE *in, size_t *len)
{
    struct buf all = {0};
    size_t n = 1;

    while (n > 0) {
        uint8_t *to = buf_reserve(&all, 65536);
        if (!to)
            args_refuse(inv, "%s: too large", path);
        n = fread(to, 1, 65536, in);
        buf_commit(&all, n);
    }
    if (ferror(in))
        args_refuse(inv, "%s: %s", path, strerror(errno));
    *len = buf_len(&all);
    char *copy = invocation_copy(inv, buf_head(&all), *len);
    buf_free(&all);
    return copy;
}

char *input_file(struct invocation *inv, const char *path, size_t *len)
{
    if (strcmp(path, "-") == 0)
        return read_all(inv, path, stdin, len);
    FILE *in = fopen(path, "re");
    if (!in)
        args_refuse(inv, "%s: %s", path, strerror(errno));
    char *text = read_all(inv, path, in, len);
    fclose(in);
    return text;
}

char *input_value(struct invocation *inv, const char *value, size_t *len)
{
    if (value[0] == '@')
        return input_file(inv, value + 1, len);
    *len = strlen(value);
    return invocation_copy(inv, value, *len);
}

char **input_lines(struct invocation *inv, char *text, size_t *count)
{
    size_t room = 1;
    char *rest = text, *line;

    for (const char *p = text; *p; p++)
        room += *p == '\n';
    char **lines = invocation_alloc(inv, room * sizeof *lines);
    *count = 0;
    while ((line = strsep(&rest, "\n")) != NULL) {
        line += strspn(line, " \t\r");
        size_t len = strlen(line);
        while (len && strchr(" \t\r", line[len - 1]))
            line[--len] = '\0';
        if (len)
            lines[(*count)++] = line;
    }
    return lines;
}

void input_ids_load(struct invocation *inv, const struct arg_list *flags, const char *file, struct input_ids *out)
{
    char **lines = NULL;
    size_t count = 0, len;

    if (file)
        lines = input_lines(inv, input_file(inv, file, &len), &count);
    *out = (struct input_ids){.ids = invocation_alloc(inv, (count + flags->count + 1) * sizeof *out->ids)};
    for (size_t i = 0; i < flags->count; i++)
        out->ids[out->count++] = (char *)flags->items[i];
    for (size_t i = 0; lines && i < count; i++)
        out->ids[out->count++] = lines[i];
}
