#include "bench/fleet/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Returns owned, or NULL without memory. */
static char *part_name(const char *file, int number)
{
    char *name;

    return asprintf(&name, "%s.part%d", file, number) < 0 ? NULL : name;
}

static enum err failed(const char *name, enum err e)
{
    fprintf(stderr, "muster-fleet: --record %s: %s\n", name ? name : "", name ? strerror(errno) : "out of memory");
    return e;
}

static const char *outcome_name(uint8_t outcome)
{
    static const char *const names[] = {"NONE", "SUCCEEDED", "FAILED", "REJECTED", "NOT_NOW"};

    return names[outcome];
}

static long long wall_ms(const struct process *p, uint32_t stamp)
{
    return stamp ? (long long)p->began_wall_ms + stamp - 1 : 0;
}

static void write_device(FILE *out, const struct process *p, const struct device *d)
{
    char id[UUID_TEXT];

    for (uint32_t i = 0; i < d->commands.size; i++) {
        struct command *c = &d->commands.entries[i];
        if (c->received == 0 || (p->options->record_changes && !c->changed))
            continue;
        uuid_write(c->id, id);
        fprintf(out, "%s %.*s %u %u %s %d %lld %lld %lld\n", d->id, UUID_TEXT, id, c->received, c->executed,
                outcome_name(c->outcome), c->acked, wall_ms(p, c->received_ms), wall_ms(p, c->executed_ms),
                wall_ms(p, c->acked_ms));
        c->changed = false;
    }
}

enum err record_write(const char *file, struct process *p)
{
    char *name = part_name(file, p->number);
    FILE *out = name ? fopen(name, "we") : NULL;
    enum err e = ERR_OK;

    if (!out) {
        e = failed(name, ERR_IO);
        free(name);
        return e;
    }
    for (uint32_t i = 0; i < p->count; i++)
        write_device(out, p, &p->devices[i]);
    bool bad = ferror(out) != 0;
    if (fclose(out) != 0 || bad)
        e = failed(name, ERR_IO);
    free(name);
    return e;
}

/* Appends the part to `out` and removes it. */
static enum err append_part(FILE *out, const char *name)
{
    char block[65536];
    FILE *in = fopen(name, "re");
    size_t n;

    if (!in)
        return ERR_IO;
    while ((n = fread(block, 1, sizeof block, in)) > 0)
        if (fwrite(block, 1, n, out) != n)
            break;
    bool bad = ferror(in) || ferror(out);
    fclose(in);
    unlink(name);
    return bad ? ERR_IO : ERR_OK;
}

enum err record_join(const char *file, int processes)
{
    char *whole = part_name(file, processes); /* a name no part has */
    FILE *out = whole ? fopen(whole, "we") : NULL;
    enum err e = out ? ERR_OK : ERR_IO;

    for (int i = 0; i < processes && e == ERR_OK; i++) {
        char *part = part_name(file, i);
        e = part ? append_part(out, part) : ERR_NOMEM;
        free(part);
    }
    if (out && fclose(out) != 0)
        e = ERR_IO;
    if (e != ERR_OK || rename(whole, file) != 0)
        e = failed(file, ERR_IO);
    free(whole);
    return e;
}
