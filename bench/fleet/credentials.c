#include "bench/fleet/credentials.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* MQTT bounds strings at 65,535 bytes; ids are bounded by Muster. */
#define ID_MAX        128
#define TOKEN_MAX     4096
#define MADE_UP_BYTES 16

static enum err make_up(struct credentials *c, uint32_t offset, uint32_t count)
{
    c->text = malloc((size_t)count * MADE_UP_BYTES);
    if (!c->text)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < count; i++) {
        char *id = c->text + (size_t)i * MADE_UP_BYTES;
        snprintf(id, MADE_UP_BYTES, "device-%07u", (offset + i) % 10000000);
        c->list[i] = (struct credential){id, NULL};
    }
    c->count = count;
    return ERR_OK;
}

/* Returns owned, or NULL with a line on stderr. */
static char *read_file(const char *file)
{
    FILE *in = fopen(file, "re");
    struct stat st;
    char *text = NULL;

    if (in && fstat(fileno(in), &st) == 0 && (text = malloc((size_t)st.st_size + 1)) != NULL)
        text[fread(text, 1, (size_t)st.st_size, in)] = '\0';
    if (!text)
        fprintf(stderr, "%s: --credentials %s: %s\n", program_invocation_short_name, file, strerror(errno));
    if (in)
        fclose(in);
    return text;
}

static bool split(char *line, struct credential *out)
{
    char *space = strpbrk(line, " \t");

    if (space)
        *space++ = '\0';
    *out = (struct credential){line, space && *space ? space : NULL};
    return strlen(line) > 0 && strlen(line) <= ID_MAX && (!space || strlen(space) <= TOKEN_MAX);
}

enum err credentials_load(struct credentials *c, const char *file, uint32_t offset, uint32_t count)
{
    uint32_t number = 0;

    *c = (struct credentials){.list = calloc(count, sizeof *c->list)};
    if (!c->list)
        return ERR_NOMEM;
    if (!file)
        return make_up(c, offset, count);
    c->text = read_file(file);
    if (!c->text)
        return ERR_IO;
    char *rest = c->text, *line;
    while (c->count < count && (line = strsep(&rest, "\n")) != NULL) {
        if (*line == '\0' || number++ < offset)
            continue;
        if (!split(line, &c->list[c->count++])) {
            fprintf(stderr, "%s: --credentials %s: line %u is not '<device id> <token>'\n",
                    program_invocation_short_name, file, number);
            return ERR_INVALID;
        }
    }
    if (c->count == count)
        return ERR_OK;
    fprintf(stderr, "%s: --credentials %s: has %u devices after the first %u, %u are asked for\n",
            program_invocation_short_name, file, c->count, offset, count);
    return ERR_INVALID;
}

void credentials_free(struct credentials *c)
{
    free(c->text);
    free(c->list);
    *c = (struct credentials){0};
}
