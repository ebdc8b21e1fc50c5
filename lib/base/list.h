/* Intrusive doubly linked list. An object's state can be the list it stands in.
 * Owns: struct list. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_BASE_LIST_H
#define MUSTER_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
/* Inserts `n` before `at`; before the head means at the tail. */
static inline void list_insert(struct list *at, struct list *n)
{
    n->next = at;
    n->prev = at->prev;
    at->prev->next = n;
    at->prev = n;
}
static inline void list_append(struct list *head, struct list *n)
{
    list_insert(head, n);
}
/* Takes `n` out of the list it stands in, and makes it a list of its own, so that it may be removed twice. */
static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
static inline struct list *list_pop(struct list *head)
{
    struct list *n = head->next;
    if (n == head)
        return NULL;
    list_remove(n);
    return n;
}

/* The current entry may be removed in the body; `tmp` is a second cursor. */
#define list_for_each(pos, tmp, head)                                                                                  \
    for (struct list *pos = (head)->next, *tmp = pos->next; pos != (head); pos = tmp, tmp = pos->next)

#endif
