/* How much stands in the workers' inboxes and is not taken yet, as the leader knows it, and where there is room for
 * more. Owns: struct room. May call: lib/base/list. Loop rule: none, pure.
 *
 * A worker takes what it finds, and says nothing: the length of an inbox, which Redis tells at each push and when
 * asked, says which of the entries pushed last are still there. What waits in an inbox waits in the order in which it
 * came, whoever's it is; what waits with the leader or with the worker is given in turns. So little is put where it
 * would lie. */
#ifndef MUSTER_DISPATCHER_LEADER_ROOM_H
#define MUSTER_DISPATCHER_LEADER_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/list.h"

#define ROOM_CLASSES 3
#define ROOM_COMMANDS                                                                                                  \
    65536 /* commands in an inbox; beyond, it is full: some ms of routing, while a worker's turn lasts */
/* The same once its first entry was seen lying there for so long: the worker has enough in its hands. */
#define ROOM_LYING    1024
#define ROOM_LYING_US 5000
/* A full inbox of which nothing is taken for so long is a jam: the worker takes urgent commands only, or nothing. Who
 * else has devices there need not wait for that, until it has been empty again. */
#define ROOM_JAM_US  2000000
#define ROOM_ENTRIES 32 /* known one by one; more count with the last */

struct room_inbox {
    struct list link;  /* of struct room's `full`, or alone */
    struct list heavy; /* of its `heavy`, or alone */
    uint16_t worker;
    uint8_t class;
    uint8_t first, count; /* of `entries`, a ring */
    bool lying, jammed;
    uint32_t commands; /* of all entries */
    uint32_t flying;   /* entries on their way there */
    int64_t moved_us;  /* when something was taken last, or it was empty */
    struct room_entry {
        uint32_t commands;
        int64_t at_us;
    } entries[ROOM_ENTRIES];
};

struct room {
    struct room_worker **workers; /* by number; NULL: nothing is known */
    struct list heavy;            /* inboxes with ROOM_LYING commands or more */
    struct list full;             /* those found full: to be asked for */
};

/* False without memory. */
bool room_init(struct room *room);
void room_free(struct room *room);
/* The worker is gone. */
void room_forget(struct room *room, uint16_t worker);
/* An entry of so many commands is on its way there. */
void room_pushed(struct room *room, uint16_t worker, unsigned class, uint32_t commands, int64_t now_us);
/* It is there, or was lost on the way. */
void room_landed(struct room *room, uint16_t worker, unsigned class);
/* So many entries were there, not counting those that are on their way now. */
void room_told(struct room *room, uint16_t worker, unsigned class, uint64_t entries, int64_t now_us);
/* Whether any inbox of the class is. */
bool room_any_full(const struct room *room, unsigned class, int64_t now_us);
/* Whether nothing more should go there; then it stands in `full` until room_told or room_recheck says otherwise. */
bool room_is_full(struct room *room, uint16_t worker, unsigned class, int64_t now_us);
/* Takes those out of `full` that are not any more. True when there were such. */
bool room_recheck(struct room *room, int64_t now_us);

#endif
