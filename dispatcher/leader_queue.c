#include "dispatcher/leader_queue.h"
#include "lib/base/owned.h"

#include <stdlib.h>

struct queue_tenant {
    struct list link;
    struct list batches; /* of open_batch.queue, by number */
    uint32_t tenant;
    int64_t budget; /* commands left of this turn */
    size_t count;   /* of `batches` */
};

void queue_init(struct route_queue *q)
{
    *q = (struct route_queue){0};
    for (int i = 0; i < QUEUE_CLASSES; i++)
        list_init(&q->classes[i]);
}

static void tenant_free(struct queue_tenant *t)
{
    list_remove(&t->link);
    free(t);
}

void queue_free(struct route_queue *q)
{
    for (int i = 0; i < QUEUE_CLASSES; i++)
        list_for_each (l, tmp, &q->classes[i]) {
            struct queue_tenant *t = container_of(l, struct queue_tenant, link);
            while (list_pop(&t->batches))
                ;
            tenant_free(t);
        }
    queue_init(q);
}

static struct list *class_of(struct route_queue *q, const struct open_batch *batch)
{
    return &q->classes[batch->priority < 1               ? 0
                       : batch->priority > QUEUE_CLASSES ? QUEUE_CLASSES - 1
                                                         : batch->priority - 1];
}

static struct queue_tenant *find_tenant(struct list *class, uint32_t tenant)
{
    for (struct list *l = class->next; l != class; l = l->next)
        if (container_of(l, struct queue_tenant, link)->tenant == tenant)
            return container_of(l, struct queue_tenant, link);
    return NULL;
}

void queue_add(struct route_queue *q, struct open_batch *batch)
{
    if (!list_empty(&batch->queue))
        return;
    struct list *class = class_of(q, batch);
    struct queue_tenant *t = find_tenant(class, batch->tenant);
    if (!t) {
        t = calloc(1, sizeof *t);
        if (!t)
            abort(); /* a fresh process does better than one that has forgotten a batch */
        t->tenant = batch->tenant;
        t->budget = QUEUE_TURN;
        list_init(&t->batches);
        list_append(class, &t->link);
        owned(t);
    }
    struct list *at = &t->batches;
    while (at->prev != &t->batches && container_of(at->prev, struct open_batch, queue)->id > batch->id)
        at = at->prev;
    list_insert(at, &batch->queue);
    t->count++;
    q->batches++;
    q->specless += !batch->spec;
}

void queue_remove(struct route_queue *q, struct open_batch *batch)
{
    if (list_empty(&batch->queue))
        return;
    list_remove(&batch->queue);
    q->batches--;
    q->specless -= !batch->spec;
    struct queue_tenant *t = find_tenant(class_of(q, batch), batch->tenant);
    if (t && --t->count == 0)
        tenant_free(t);
}

size_t queue_heaviest(const struct route_queue *q, struct queue_heavy *out, size_t max)
{
    size_t parties = 0, n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < QUEUE_CLASSES; i++)
            for (const struct list *l = q->classes[i].next; l != &q->classes[i]; l = l->next) {
                const struct queue_tenant *t = container_of(l, struct queue_tenant, link);
                if (pass == 0)
                    parties++;
                else if (t->count * parties >= q->batches && n < max)
                    out[n++] = (struct queue_heavy){t->tenant, (uint8_t)i};
            }
    return n;
}

void queue_set_spec(struct route_queue *q, struct open_batch *batch, bool spec)
{
    if (!list_empty(&batch->queue) && batch->spec != spec)
        q->specless = spec ? q->specless - 1 : q->specless + 1;
    batch->spec = spec;
}

/* Takes the block off the tenant's turn. */
static void charge(struct list *class, struct queue_tenant *t, unsigned commands)
{
    t->budget -= commands;
    if (t->budget > 0)
        return;
    t->budget += QUEUE_TURN;
    list_remove(&t->link);
    list_append(class, &t->link);
}

/* The tenant's first open block, or NULL with its batch in *finished when that has none. */
static struct open_block *pick_block(struct open_batch *batch)
{
    while (batch->route_next < batch->block_count) {
        struct open_block *b = &batch->blocks[batch->route_next++];
        if (b->remaining && (!batch->partial || b->again))
            return b;
    }
    return NULL;
}

/* The first tenant whose front batch can be routed. */
static struct queue_tenant *next_tenant(const struct route_queue *q, struct list *class)
{
    for (struct list *l = class->next; l != class; l = l->next) {
        struct queue_tenant *t = container_of(l, struct queue_tenant, link);
        if (q->waits && q->waits(q->waits_arg, t->tenant))
            continue;
        if (container_of(t->batches.next, struct open_batch, queue)->spec)
            return t;
    }
    return NULL;
}

struct open_block *queue_pick(struct route_queue *q, unsigned classes, struct open_batch **finished)
{
    *finished = NULL;
    for (int i = 0; i < QUEUE_CLASSES; i++) {
        struct queue_tenant *t = classes >> i & 1 ? next_tenant(q, &q->classes[i]) : NULL;
        if (!t)
            continue;
        struct open_batch *batch = container_of(t->batches.next, struct open_batch, queue);
        struct open_block *b = pick_block(batch);
        if (b)
            charge(&q->classes[i], t, b->remaining);
        if (batch->route_next == batch->block_count)
            queue_remove(q, batch);
        if (!b)
            *finished = batch;
        return b;
    }
    return NULL;
}

size_t queue_specless(struct route_queue *q, unsigned classes, struct open_batch **out, size_t max, size_t bytes)
{
    size_t n = 0;
    for (int i = 0; i < QUEUE_CLASSES; i++) {
        if (!(classes >> i & 1))
            continue;
        list_for_each (l, tmp, &q->classes[i]) {
            struct queue_tenant *t = container_of(l, struct queue_tenant, link);
            size_t of_tenant = 0;
            list_for_each (m, tmp2, &t->batches) {
                if (of_tenant == (max + 3) / 4)
                    break;
                struct open_batch *batch = container_of(m, struct open_batch, queue);
                if (batch->spec || batch->filling)
                    continue;
                if (n == max || (n && batch->command_bytes > bytes))
                    return n;
                bytes -= batch->command_bytes < bytes ? batch->command_bytes : bytes;
                out[n++] = batch;
                of_tenant++;
            }
        }
    }
    return n;
}
