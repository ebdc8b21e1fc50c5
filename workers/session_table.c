/* One open-addressed table with linear probing: 8 bytes a place, between a third and two thirds of the places in use.
 * A pointer per slot of every block seen would cost a worker that has few devices of each of many blocks far more. */
#include "workers/session_table.h"

#include <stdlib.h>

#include "workers/session.h"

#define ROOM_FIRST 64

struct session_table {
    struct session **places; /* who is asked for is looked at anyway: no copy of the key beside the pointer */
    size_t used, room;       /* room is a power of two, or 0 */
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

static size_t home(uint32_t tenant, uint32_t seq, size_t room)
{
    uint64_t key = (uint64_t)tenant << 32 | seq;
    return (size_t)(key * 0x9e3779b97f4a7c15ull >> 24) & (room - 1);
}

/* The session's place, or the free one where it would stand. */
static struct session **find(struct session **places, size_t room, uint32_t tenant, uint32_t seq)
{
    size_t i = home(tenant, seq, room);
    while (places[i] && (places[i]->seq != seq || places[i]->tenant != tenant))
        i = (i + 1) & (room - 1);
    return &places[i];
}

static bool grow(struct session_table *t)
{
    size_t room = t->room ? t->room * 2 : ROOM_FIRST;
    struct session **grown = calloc(room, sizeof *grown);
    if (!grown)
        return false;
    for (size_t i = 0; i < t->room; i++)
        if (t->places[i])
            *find(grown, room, t->places[i]->tenant, t->places[i]->seq) = t->places[i];
    free(t->places);
    t->places = grown;
    t->room = room;
    return true;
}

struct session *session_table_get(const struct session_table *table, uint32_t tenant, uint32_t seq)
{
    return table->room ? *find(table->places, table->room, tenant, seq) : NULL;
}

struct session *session_table_still(const struct session_table *table, uint32_t tenant, uint32_t seq,
                                    uint32_t generation)
{
    struct session *s = session_table_get(table, tenant, seq);
    return s && s->generation == generation ? s : NULL;
}

bool session_table_put(struct session_table *table, struct session *s)
{
    if ((table->used + 1) * 3 > table->room * 2 && !grow(table))
        return false;
    struct session **place = find(table->places, table->room, s->tenant, s->seq);
    table->used += !*place;
    *place = s;
    return true;
}

/* What stands behind moves up, as far as it may, so that no gap parts it from its home. */
static void clear(struct session_table *t, size_t gap)
{
    size_t mask = t->room - 1;
    for (size_t i = (gap + 1) & mask; t->places[i]; i = (i + 1) & mask) {
        size_t way = (i - home(t->places[i]->tenant, t->places[i]->seq, t->room)) & mask;
        if (way < ((i - gap) & mask))
            continue;
        t->places[gap] = t->places[i];
        gap = i;
    }
    t->places[gap] = NULL;
    t->used--;
}

void session_table_remove(struct session_table *table, const struct session *s)
{
    struct session **place = table->room ? find(table->places, table->room, s->tenant, s->seq) : NULL;
    if (place && *place == s)
        clear(table, (size_t)(place - table->places));
}

size_t session_table_count(const struct session_table *table)
{
    return table->used;
}

/* Where one was removed another may have moved up: looked at before going on. */
void session_table_each(struct session_table *table, void (*fn)(void *arg, struct session *s), void *arg)
{
    for (size_t i = 0; i < table->room; i++)
        for (struct session *s = NULL; table->places[i] && table->places[i] != s;)
            fn(arg, s = table->places[i]);
}
