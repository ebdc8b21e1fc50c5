#include "bench/fleet/commands.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"

/* A place is taken once its id is set: command ids are UUIDs, never all zero, so `received` may still be 0. */
static bool is_empty(const struct command *c)
{
    return load_u64le(c->id) == 0 && load_u64le(c->id + 8) == 0;
}

static uint32_t place_of(const uint8_t id[UUID_BYTES], uint32_t size)
{
    uint64_t h = (load_u64le(id) ^ load_u64le(id + 8) * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;

    return (uint32_t)(h >> 32) & (size - 1);
}

static struct command *probe(struct command *entries, uint32_t size, const uint8_t id[UUID_BYTES])
{
    uint32_t at = place_of(id, size);

    while (!is_empty(&entries[at]) && memcmp(entries[at].id, id, UUID_BYTES) != 0)
        at = (at + 1) & (size - 1);
    return &entries[at];
}

static bool grow(struct commands *commands)
{
    uint32_t size = commands->size ? commands->size * 2 : 4;
    struct command *entries = calloc(size, sizeof *entries);

    if (!entries)
        return false;
    for (uint32_t i = 0; i < commands->size; i++)
        if (!is_empty(&commands->entries[i]))
            *probe(entries, size, commands->entries[i].id) = commands->entries[i];
    free(commands->entries);
    commands->entries = entries;
    commands->size = size;
    return true;
}

struct command *commands_find(const struct commands *commands, const uint8_t id[UUID_BYTES])
{
    if (commands->count == 0)
        return NULL;
    struct command *c = probe(commands->entries, commands->size, id);
    return is_empty(c) ? NULL : c;
}

struct command *commands_add(struct commands *commands, const uint8_t id[UUID_BYTES])
{
    static const uint8_t zero[UUID_BYTES];
    struct command *c = commands_find(commands, id);

    if (c)
        return c;
    if (commands->count >= COMMANDS_MAX || memcmp(id, zero, UUID_BYTES) == 0)
        return NULL;
    if (commands->count + 1 > commands->size - commands->size / 4 && !grow(commands))
        return NULL;
    c = probe(commands->entries, commands->size, id);
    memcpy(c->id, id, UUID_BYTES);
    commands->count++;
    return c;
}

void commands_clear(struct commands *commands)
{
    free(commands->entries);
    *commands = (struct commands){0};
}
