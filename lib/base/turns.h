/* Who comes next of many who want the same: deficit round robin (Shreedhar and Varghese, 1995). Each party has its turn
 * of a quantum of work, in a circle; who takes more than its quantum owes it for its next turns.
 * Owns: the circle of a struct turns. The parties are embedded and their owners'. May call: lib/base/list. Loop rule:
 * none, pure. */
#ifndef MUSTER_BASE_TURNS_H
#define MUSTER_BASE_TURNS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/list.h"

#define TURNS_BUCKETS 64 /* parties are found among those of a bucket */

struct turns {
    struct list circle; /* of struct turn, the one whose turn it is first */
    struct list buckets[TURNS_BUCKETS];
    int64_t quantum;
};

/* A party that has work. */
struct turn {
    struct list link, bucket;
    uint32_t key;
    int64_t left; /* of the quantum; less than 0: owed */
};

void turns_init(struct turns *turns, int64_t quantum);
/* Joins at the end of the circle with a quantum. Nobody of that key is there. */
void turns_join(struct turns *turns, struct turn *turn, uint32_t key);
/* Has no more work. */
void turns_leave(struct turn *turn);
/* NULL when nobody of that key is there. */
struct turn *turns_find(const struct turns *turns, uint32_t key);
/* Whose turn it is, of those who can use it (`can` NULL: all); who can't keeps its place. NULL: nobody can. */
typedef bool turns_can_fn(const void *arg, const struct turn *turn);
struct turn *turns_next(struct turns *turns, turns_can_fn *can, const void *arg);
/* It has taken so much; its turn is over when nothing of the quantum is left. */
void turns_spend(struct turns *turns, struct turn *turn, int64_t cost);
/* In the order of turns; NULL behind the last. */
struct turn *turns_first(const struct turns *turns);
struct turn *turns_after(const struct turns *turns, const struct turn *turn);

#endif
