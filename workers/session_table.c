#include "workers/session_table.h"

#include <stdlib.h>

#include "lib/store/block.h"

#define ROOM_FIRST 64

struct block {
    uint64_t key; /* tenant << 32 | block, plus one; 0: free place */
    struct session **slots;
};

struct session_table {
    struct block *blocks;
    size_t used, room; /* room is a power of two */
    size_t sessions;
};

struct session_table *session_table_new(void)
{
    return calloc(1, sizeof(struct session_table));
}

void session_table_free(struct session_table **table)
{
    if (!*table)
        return;
    for (size_t i = 0; i < (*table)->room; i++)
        free((*table)->blocks[i].slots);
    free((*table)->blocks);
    free(*table);
    *table = NULL;
}

static uint64_t key_of(uint32_t tenant, uint32_t seq)
{
    return ((uint64_t)tenant << 32 | block_of(seq)) + 1;
}

static struct block *find(struct block *blocks, size_t room, uint64_t key)
{
    size_t i = (key * 0x9e3779b97f4a7c15ull >> 20) & (room - 1);
    while (blocks[i].key && blocks[i].key != key)
        i = (i + 1) & (room - 1);
    return &blocks[i];
}

static bool grow(struct session_table *t)
{
    size_t room = t->room ? t->room * 2 : ROOM_FIRST;
    struct block *grown = calloc(room, sizeof *grown);
    if (!grown)
        return false;
    for (size_t i = 0; i < t->room; i++)
        if (t->blocks[i].key)
            *find(grown, room, t->blocks[i].key) = t->blocks[i];
    free(t->blocks);
    t->blocks = grown;
    t->room = room;
    return true;
}

struct session *session_table_get(const struct session_table *table, uint32_t tenant, uint32_t seq)
{
    if (table->room == 0)
        return NULL;
    const struct block *b = find(table->blocks, table->room, key_of(tenant, seq));
    return b->key ? b->slots[slot_of(seq)] : NULL;
}

/* Blocks are never taken out: a device that leaves comes back. 8 bytes a slot once its block was seen. */
bool session_table_set(struct session_table *table, uint32_t tenant, uint32_t seq, struct session *s)
{
    if ((table->used + 1) * 2 > table->room && !grow(table))
        return false;
    struct block *b = find(table->blocks, table->room, key_of(tenant, seq));
    if (!b->key) {
        b->slots = calloc(BLOCK_SLOTS, sizeof(struct session *));
        if (!b->slots)
            return false;
        b->key = key_of(tenant, seq);
        table->used++;
    }
    struct session **place = &b->slots[slot_of(seq)];
    table->sessions = table->sessions + (s != NULL) - (*place != NULL);
    *place = s;
    return true;
}

size_t session_table_count(const struct session_table *table)
{
    return table->sessions;
}

void session_table_each(struct session_table *table, void (*fn)(void *arg, struct session *s), void *arg)
{
    for (size_t i = 0; i < table->room; i++)
        for (unsigned slot = 0; table->blocks[i].key && slot < BLOCK_SLOTS; slot++)
            if (table->blocks[i].slots[slot])
                fn(arg, table->blocks[i].slots[slot]);
}
