#include "dispatcher/leader_clear.h"

#include <stdlib.h>

#include "dispatcher/leader_write.h"

struct clearer {
    unsigned under_way;
    bool backoff;
};

struct clear_move {
    struct reign *reign;
    struct open_batch *batch;
};

struct clearer *clearer_new(struct reign *r)
{
    (void)r;
    return calloc(1, sizeof(struct clearer));
}

void clearer_free(struct clearer **c)
{
    free(*c);
    *c = NULL;
}

static void pump(struct reign *r);

/* route_failed and busy serve again: a failed move, moves under way. */
static void cleared(void *arg, enum err err)
{
    struct clear_move m = *(struct clear_move *)arg;
    free(arg);
    if (!reign_back(m.reign))
        return;
    struct reign *r = m.reign;
    struct open_batch *batch = m.batch;
    r->clearer->under_way--;
    if (err) {
        r->clearer->backoff = true;
        batch->route_failed = true;
    }
    if (--batch->busy == 0) {
        list_append(batch->route_failed ? &r->clearing : &r->closing, &batch->work);
        batch->stage = batch->route_failed ? OPEN_CLEARING : OPEN_CLOSING;
        write_pump(r);
    }
    pump(r);
}

static struct clear_move *begin(struct reign *r, struct open_batch *batch)
{
    struct clear_move *m = malloc(sizeof *m);
    if (!m)
        abort();
    *m = (struct clear_move){reign_hold(r), batch};
    r->clearer->under_way++;
    reign_busy(batch);
    return m;
}

static void pump(struct reign *r)
{
    while (!r->clearer->backoff && r->clearer->under_way < CLEAR_MOVES && reign_live(r) && !list_empty(&r->clearing)) {
        struct open_batch *batch = container_of(list_pop(&r->clearing), struct open_batch, work);
        batch->route_failed = false;
        for (uint32_t i = 0; i < batch->block_count; i++)
            live_close(r->live, block_place(&batch->blocks[i]), cleared, begin(r, batch));
        live_drop_spec(r->live, batch->id, cleared, begin(r, batch));
    }
}

void clear_batch(struct reign *r, struct open_batch *batch)
{
    list_append(&r->clearing, &batch->work);
    pump(r);
}

void clearer_tick(struct reign *r)
{
    r->clearer->backoff = false;
    pump(r);
}
