#include "dispatcher/leader_room.h"

#include <stdlib.h>

#define NUMBERS 65536

struct room_worker {
    struct room_inbox inboxes[ROOM_CLASSES];
};

bool room_init(struct room *room)
{
    list_init(&room->heavy);
    list_init(&room->full);
    room->workers = calloc(NUMBERS, sizeof(struct room_worker *));
    return room->workers != NULL;
}

void room_forget(struct room *room, uint16_t worker)
{
    struct room_worker *w = room->workers[worker];
    for (unsigned i = 0; w && i < ROOM_CLASSES; i++) {
        list_remove(&w->inboxes[i].link);
        list_remove(&w->inboxes[i].heavy);
    }
    free(w);
    room->workers[worker] = NULL;
}

void room_free(struct room *room)
{
    for (unsigned i = 0; room->workers && i < NUMBERS; i++)
        room_forget(room, (uint16_t)i);
    free(room->workers);
    room->workers = NULL;
}

static struct room_inbox *find(const struct room *room, uint16_t worker, unsigned class)
{
    struct room_worker *w = room->workers[worker];
    return w ? &w->inboxes[class] : NULL;
}

static struct room_inbox *find_or_make(struct room *room, uint16_t worker, unsigned class)
{
    struct room_worker *w = room->workers[worker];
    if (w)
        return &w->inboxes[class];
    w = calloc(1, sizeof *w);
    if (!w)
        abort(); /* as where an entry can't be made */
    room->workers[worker] = w;
    for (uint8_t i = 0; i < ROOM_CLASSES; i++) {
        w->inboxes[i].worker = worker;
        w->inboxes[i].class = i;
        list_init(&w->inboxes[i].link);
        list_init(&w->inboxes[i].heavy);
    }
    return &w->inboxes[class];
}

void room_pushed(struct room *room, uint16_t worker, unsigned class, uint32_t commands, int64_t now_us)
{
    struct room_inbox *box = find_or_make(room, worker, class);
    if (!box->count)
        box->moved_us = now_us;
    box->flying++;
    box->commands += commands;
    if (box->commands >= ROOM_LYING && list_empty(&box->heavy))
        list_append(&room->heavy, &box->heavy);
    if (box->count == ROOM_ENTRIES) {
        box->entries[(box->first + box->count - 1u) % ROOM_ENTRIES].commands += commands;
        return;
    }
    box->entries[(box->first + box->count++) % ROOM_ENTRIES] = (struct room_entry){commands, now_us};
}

void room_landed(struct room *room, uint16_t worker, unsigned class)
{
    struct room_inbox *box = find(room, worker, class);
    if (box && box->flying)
        box->flying--;
}

void room_told(struct room *room, uint16_t worker, unsigned class, uint64_t entries, int64_t now_us)
{
    struct room_inbox *box = find(room, worker, class);
    if (!box)
        return;
    for (entries += box->flying; box->count > entries; box->count--) {
        box->commands -= box->entries[box->first].commands;
        box->first = (uint8_t)((box->first + 1u) % ROOM_ENTRIES);
        box->moved_us = now_us;
    }
    if (box->commands < ROOM_LYING)
        list_remove(&box->heavy);
    if (!box->count)
        box->jammed = false;
    box->lying = box->count > 0 && now_us - box->entries[box->first].at_us >= ROOM_LYING_US;
}

static bool is_full(struct room_inbox *box, int64_t now_us)
{
    if (box->commands < ROOM_LYING || !(box->lying || box->commands >= ROOM_COMMANDS))
        return false;
    if (now_us - box->moved_us >= ROOM_JAM_US)
        box->jammed = true;
    return !box->jammed;
}

bool room_any_full(const struct room *room, unsigned class, int64_t now_us)
{
    for (const struct list *l = room->heavy.next; l != &room->heavy; l = l->next) {
        struct room_inbox *box = container_of(l, struct room_inbox, heavy);
        if (box->class == class && is_full(box, now_us))
            return true;
    }
    return false;
}

bool room_is_full(struct room *room, uint16_t worker, unsigned class, int64_t now_us)
{
    struct room_inbox *box = find(room, worker, class);
    if (!box || !is_full(box, now_us))
        return false;
    if (list_empty(&box->link))
        list_append(&room->full, &box->link);
    return true;
}

bool room_recheck(struct room *room, int64_t now_us)
{
    bool changed = false;
    list_for_each (l, tmp, &room->full)
        if (!is_full(container_of(l, struct room_inbox, link), now_us)) {
            list_remove(l);
            changed = true;
        }
    return changed;
}
