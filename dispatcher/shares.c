#include "dispatcher/shares.h"

#include <stdlib.h>

void shares_init(struct shares *s, const struct shares_limits *limits)
{
    *s = (struct shares){.limits = *limits};
    for (int i = 0; i < SHARES_BUCKETS; i++)
        list_init(&s->buckets[i]);
    list_init(&s->turn);
}

static struct share_tenant *find(const struct shares *s, uint32_t tenant)
{
    const struct list *bucket = &s->buckets[tenant % SHARES_BUCKETS];
    for (struct list *l = bucket->next; l != bucket; l = l->next) {
        struct share_tenant *t = container_of(l, struct share_tenant, bucket);
        if (t->number == tenant)
            return t;
    }
    return NULL;
}

static struct share_tenant *find_or_make(struct shares *s, uint32_t tenant)
{
    struct share_tenant *t = find(s, tenant);
    if (t || !(t = calloc(1, sizeof *t)))
        return t;
    t->number = tenant;
    list_init(&t->entries);
    list_append(&s->buckets[tenant % SHARES_BUCKETS], &t->bucket);
    return t;
}

bool shares_may(const struct shares *s, uint32_t tenant, size_t cost, int64_t now_us)
{
    const struct share_tenant *t = find(s, tenant);
    if (!t || !t->count) /* holds nothing: less than anybody */
        return true;
    bool much = t->count * s->tenants >= s->count;
    if (much && s->count >= s->limits.entries)
        return false;
    if (t->cost * s->tenants >= s->cost && s->cost + cost > s->limits.cost)
        return false;
    const struct share *first = container_of(t->entries.next, struct share, link);
    return !much || t->count < s->limits.spare || now_us - first->since_us < s->limits.patience_us;
}

static void count_in(struct shares *s, const struct share *e)
{
    struct share_tenant *t = e->tenant;
    if (t->count++ == 0) {
        list_append(&s->turn, &t->link);
        s->tenants++;
    }
    s->count++;
    t->cost += e->cost;
    s->cost += e->cost;
}

bool shares_add(struct shares *s, struct share *e, uint32_t tenant, size_t cost, int64_t now_us)
{
    struct share_tenant *t = find_or_make(s, tenant);
    if (!t)
        return false;
    e->tenant = t;
    e->cost = cost;
    e->since_us = now_us;
    count_in(s, e);
    list_append(&t->entries, &e->link);
    return true;
}

void shares_take(struct shares *s, struct share *e)
{
    struct share_tenant *t = e->tenant;
    list_remove(&e->link);
    t->taken++;
    s->count--;
    t->cost -= e->cost;
    s->cost -= e->cost;
    if (--t->count > 0)
        return;
    list_remove(&t->link);
    s->tenants--;
}

void shares_put_back(struct shares *s, struct share *e)
{
    e->tenant->taken--;
    count_in(s, e);
    list_insert(e->tenant->entries.next, &e->link);
}

void shares_let_go(struct share *e)
{
    struct share_tenant *t = e->tenant;
    e->tenant = NULL;
    if (--t->taken > 0 || t->count > 0)
        return;
    list_remove(&t->bucket);
    free(t);
}

void shares_remove(struct shares *s, struct share *e)
{
    shares_take(s, e);
    shares_let_go(e);
}

void shares_turn(struct shares *s, struct share_tenant *t)
{
    list_remove(&t->link);
    list_append(&s->turn, &t->link);
}
