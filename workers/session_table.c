/* One open-addressed table with linear probing: 16 bytes a place, between a third and two thirds of the places in use.
 * A pointer per slot of every block seen would cost a worker that has few devices of each of many blocks far more. */
#include "workers/session_table.h"

#include <stdlib.h>

#define ROOM_FIRST 64

struct place {
    uint64_t key;            /* tenant << 32 | seq */
    struct session *session; /* NULL: free */
};

struct session_table {
    struct place *places;
    size_t used, room; /* room is a power of two, or 0 */
};

struct session_table *session_table_new(void)
{
    return calloc(1, sizeof(struct session_table));
}

void session_table_free(struct session_table **table)
{
    if (!*table)
        return;
    free((*table)->places);
    free(*table);
    *table = NULL;
}

static uint64_t key_of(uint32_t tenant, uint32_t seq)
{
    return (uint64_t)tenant << 32 | seq;
}

static size_t home(uint64_t key, size_t room)
{
    return (size_t)(key * 0x9e3779b97f4a7c15ull >> 24) & (room - 1);
}

/* The key's place, or the free one where it would stand. */
static struct place *find(struct place *places, size_t room, uint64_t key)
{
    size_t i = home(key, room);
    while (places[i].session && places[i].key != key)
        i = (i + 1) & (room - 1);
    return &places[i];
}

static bool grow(struct session_table *t)
{
    size_t room = t->room ? t->room * 2 : ROOM_FIRST;
    struct place *grown = calloc(room, sizeof *grown);
    if (!grown)
        return false;
    for (size_t i = 0; i < t->room; i++)
        if (t->places[i].session)
            *find(grown, room, t->places[i].key) = t->places[i];
    free(t->places);
    t->places = grown;
    t->room = room;
    return true;
}

struct session *session_table_get(const struct session_table *table, uint32_t tenant, uint32_t seq)
{
    return table->room ? find(table->places, table->room, key_of(tenant, seq))->session : NULL;
}

/* What stands behind moves up, as far as it may, so that no gap parts it from its home. */
static void clear(struct session_table *t, struct place *p)
{
    size_t mask = t->room - 1, gap = (size_t)(p - t->places);
    for (size_t i = (gap + 1) & mask; t->places[i].session; i = (i + 1) & mask) {
        size_t way = (i - home(t->places[i].key, t->room)) & mask;
        if (way < ((i - gap) & mask))
            continue;
        t->places[gap] = t->places[i];
        gap = i;
    }
    t->places[gap].session = NULL;
    t->used--;
}

bool session_table_set(struct session_table *table, uint32_t tenant, uint32_t seq, struct session *s)
{
    uint64_t key = key_of(tenant, seq);
    if (!s) {
        struct place *p = table->room ? find(table->places, table->room, key) : NULL;
        if (p && p->session)
            clear(table, p);
        return true;
    }
    if ((table->used + 1) * 3 > table->room * 2 && !grow(table))
        return false;
    struct place *p = find(table->places, table->room, key);
    table->used += !p->session;
    *p = (struct place){key, s};
    return true;
}

size_t session_table_count(const struct session_table *table)
{
    return table->used;
}

/* Where one was cleared another may have moved up: looked at before going on. */
void session_table_each(struct session_table *table, void (*fn)(void *arg, struct session *s), void *arg)
{
    for (size_t i = 0; i < table->room; i++)
        for (struct session *s = NULL; table->places[i].session && table->places[i].session != s;)
            fn(arg, s = table->places[i].session);
}
