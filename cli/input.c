#include "cli/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void input_file(const struct invocation *inv, const char *path, struct buf *out)
{
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    size_t n = 1;

    if (!in)
        args_refuse(inv, "%s: %s", path, strerror(errno));
    while (n > 0) {
        uint8_t *to = buf_reserve(out, 65536);
        if (!to)
            args_refuse(inv, "%s: too large", path);
        n = fread(to, 1, 65536, in);
        buf_commit(out, n);
    }
    if (ferror(in))
        args_refuse(inv, "%s: %s", path, strerror(errno));
    if (in != stdin)
        fclose(in);
    buf_put_u8(out, 0);
    if (out->failed)
        args_refuse(inv, "%s: too large", path);
}

char *input_value(const struct invocation *inv, const char *value, size_t *len)
{
    struct buf b = {0};

    if (value[0] == '@') {
        input_file(inv, value + 1, &b);
    } else {
        buf_put_str(&b, value);
        buf_put_u8(&b, 0);
    }
    *len = buf_len(&b) - 1;
    char *copy = malloc(*len + 1);
    if (!copy || b.failed)
        abort();
    memcpy(copy, buf_head(&b), *len + 1);
    buf_free(&b);
    return copy;
}

char **input_lines(char *text, size_t *count)
{
    size_t cap = 1;
    char *rest = text, *line;

    for (const char *p = text; *p; p++)
        cap += *p == '\n';
    char **lines = calloc(cap, sizeof *lines);
    if (!lines)
        abort();
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

void input_ids_load(const struct invocation *inv, const struct arg_list *flags, const char *file, struct input_ids *out)
{
    char **lines = NULL;
    size_t count = 0;

    *out = (struct input_ids){0};
    if (file) {
        input_file(inv, file, &out->text);
        lines = input_lines((char *)buf_head(&out->text), &count);
    }
    out->ids = calloc(count + flags->count + 1, sizeof *out->ids);
    if (!out->ids)
        abort();
    for (size_t i = 0; i < flags->count; i++)
        out->ids[out->count++] = (char *)flags->items[i];
    for (size_t i = 0; i < count; i++)
        out->ids[out->count++] = lines[i];
    free(lines);
}

void input_ids_free(struct input_ids *ids)
{
    free(ids->ids);
    buf_free(&ids->text);
    *ids = (struct input_ids){0};
}
