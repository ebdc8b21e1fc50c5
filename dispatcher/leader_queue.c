#include "dispatcher/leader_queue.h"

#include <stdlib.h>

#include "lib/base/owned.h"

/* A tenant with batches in one class. */
struct queue_tenant {
    struct turn turn;
    struct list batches; /* of open_batch.queue, by number */
    size_t count;        /* of `batches` */
};

void queue_init(struct route_queue *q)
{
    *q = (struct route_queue){0};
    for (int i = 0; i < QUEUE_CLASSES; i++)
        turns_init(&q->classes[i], QUEUE_TURN);
}

static void tenant_free(struct queue_tenant *t)
{
    turns_leave(&t->turn);
    free(t);
}

static struct queue_tenant *tenant_of(struct turn *turn)
{
    return turn ? container_of(turn, struct queue_tenant, turn) : NULL;
}

void queue_free(struct route_queue *q)
{
    for (int i = 0; i < QUEUE_CLASSES; i++)
        for (struct queue_tenant *t; (t = tenant_of(turns_first(&q->classes[i])));) {
            while (list_pop(&t->batches))
                ;
            tenant_free(t);
        }
    queue_init(q);
}

static unsigned class_of(const struct open_batch *batch)
{
    return batch->priority < 1 ? 0 : batch->priority > QUEUE_CLASSES ? QUEUE_CLASSES - 1 : batch->priority - 1u;
}

void queue_add(struct route_queue *q, struct open_batch *batch)
{
    if (!list_empty(&batch->queue))
        return;
    struct turns *class = &q->classes[class_of(batch)];
    struct queue_tenant *t = tenant_of(turns_find(class, batch->tenant));
    if (!t) {
        t = calloc(1, sizeof *t);
        if (!t)
            abort(); /* a fresh process does better than one that has forgotten a batch */
        list_init(&t->batches);
        turns_join(class, &t->turn, batch->tenant);
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
    struct queue_tenant *t = tenant_of(turns_find(&q->classes[class_of(batch)], batch->tenant));
    if (t && --t->count == 0)
        tenant_free(t);
}

bool queue_has(const struct route_queue *q, unsigned class)
{
    return turns_first(&q->classes[class]) != NULL;
}

size_t queue_heaviest(const struct route_queue *q, struct queue_heavy *out, size_t max)
{
    size_t parties = 0, n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < QUEUE_CLASSES; i++)
            for (struct turn *l = turns_first(&q->classes[i]); l; l = turns_after(&q->classes[i], l)) {
                const struct queue_tenant *t = tenant_of(l);
                if (pass == 0)
                    parties++;
                else if (t->count * parties >= q->batches && n < max)
                    out[n++] = (struct queue_heavy){l->key, (uint8_t)i};
            }
    return n;
}

void queue_set_spec(struct route_queue *q, struct open_batch *batch, bool spec)
{
    if (!list_empty(&batch->queue) && batch->spec != spec)
        q->specless = spec ? q->specless - 1 : q->specless + 1;
    batch->spec = spec;
}

/* The batch's next block with open commands, or NULL; those in front of it without any are passed over. */
static struct open_block *next_block(struct open_batch *batch)
{
    for (; batch->route_next < batch->block_count; batch->route_next++) {
        struct open_block *b = &batch->blocks[batch->route_next];
        if (b->remaining && (!batch->partial || b->again))
            return b;
    }
    return NULL;
}

static struct open_batch *first_batch(const struct turn *turn)
{
    return container_of(container_of(turn, struct queue_tenant, turn)->batches.next, struct open_batch, queue);
}

/* Its first batch can be routed. */
static bool can_route(const void *arg, const struct turn *turn)
{
    const struct route_queue *q = arg;
    struct open_batch *batch = first_batch(turn);
    if (!batch->spec || (q->waits && q->waits(q->arg, turn->key)))
        return false;
    struct open_block *b = next_block(batch);
    return !b || !q->fits || q->fits(q->arg, b);
}

struct open_block *queue_pick(struct route_queue *q, struct open_batch **finished)
{
    *finished = NULL;
    for (int i = 0; i < QUEUE_CLASSES; i++) {
        struct turn *turn = turns_next(&q->classes[i], can_route, q);
        if (!turn)
            continue;
        struct open_batch *batch = first_batch(turn);
        struct open_block *b = next_block(batch);
        if (b) {
            batch->route_next++;
            turns_spend(&q->classes[i], turn, b->remaining + QUEUE_BLOCK_COST);
        }
        if (batch->route_next == batch->block_count)
            queue_remove(q, batch);
        if (!b)
            *finished = batch;
        return b;
    }
    return NULL;
}

size_t queue_specless(struct route_queue *q, struct open_batch **out, size_t max, size_t bytes)
{
    size_t n = 0;
    for (int i = 0; i < QUEUE_CLASSES; i++)
        for (struct turn *l = turns_first(&q->classes[i]); l; l = turns_after(&q->classes[i], l)) {
            struct queue_tenant *t = tenant_of(l);
            size_t of_tenant = 0;
            list_for_each (m, tmp, &t->batches) {
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
    return n;
}
