#include "lib/base/turns.h"

#include <stddef.h>

void turns_init(struct turns *turns, int64_t quantum)
{
    list_init(&turns->circle);
    for (int i = 0; i < TURNS_BUCKETS; i++)
        list_init(&turns->buckets[i]);
    turns->quantum = quantum;
}

void turns_join(struct turns *turns, struct turn *turn, uint32_t key)
{
    turn->key = key;
    turn->left = turns->quantum;
    list_append(&turns->circle, &turn->link);
    list_append(&turns->buckets[key % TURNS_BUCKETS], &turn->bucket);
}

void turns_leave(struct turn *turn)
{
    list_remove(&turn->link);
    list_remove(&turn->bucket);
}

struct turn *turns_find(const struct turns *turns, uint32_t key)
{
    const struct list *bucket = &turns->buckets[key % TURNS_BUCKETS];
    for (struct list *l = bucket->next; l != bucket; l = l->next)
        if (container_of(l, struct turn, bucket)->key == key)
            return container_of(l, struct turn, bucket);
    return NULL;
}

static void to_the_end(struct turns *turns, struct turn *turn)
{
    turn->left += turns->quantum;
    list_remove(&turn->link);
    list_append(&turns->circle, &turn->link);
}

struct turn *turns_next(struct turns *turns, turns_can_fn *can, const void *arg)
{
    for (bool owed = true; owed;) {
        owed = false;
        list_for_each (l, tmp, &turns->circle) {
            struct turn *turn = container_of(l, struct turn, link);
            if (can && !can(arg, turn))
                continue;
            if (turn->left > 0)
                return turn;
            owed = true; /* somebody can, but must let others go first: each time around it owes less */
            to_the_end(turns, turn);
        }
    }
    return NULL;
}

void turns_spend(struct turns *turns, struct turn *turn, int64_t cost)
{
    turn->left -= cost;
    if (turn->left <= 0)
        to_the_end(turns, turn);
}

struct turn *turns_first(const struct turns *turns)
{
    return turns->circle.next == &turns->circle ? NULL : container_of(turns->circle.next, struct turn, link);
}

struct turn *turns_after(const struct turns *turns, const struct turn *turn)
{
    return turn->link.next == &turns->circle ? NULL : container_of(turn->link.next, struct turn, link);
}
