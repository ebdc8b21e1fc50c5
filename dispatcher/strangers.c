#include "dispatcher/strangers.h"

#include <stdlib.h>

#include "lib/base/log.h"

struct strangers {
    struct reign *reign;
    void (*done)(struct reign *r, enum err err);
    uint64_t next;    /* where the walk goes on */
    unsigned pending; /* answers that this step waits for */
    uint64_t removed;
    enum err err;
};

static void step_done(struct strangers *s);

static void removed(void *arg, enum err err)
{
    struct strangers *s = arg;

    if (err)
        s->err = err;
    step_done(s);
}

/* Whether it is of a batch that is at work there. */
static bool belongs(const struct reign *r, const struct live_kept *kept)
{
    struct open_batch *batch = open_set_find(&r->set, kept->place.batch);

    if (!batch || batch->stage != OPEN_RUNNING)
        return false;
    if (!kept->in_block)
        return true;
    const struct open_block *block = open_batch_block(batch, kept->place.block);
    return block && block->remaining && batch->tenant == kept->place.tenant;
}

static void remove_one(struct strangers *s, const struct live_kept *kept)
{
    s->pending++;
    s->removed++;
    if (kept->in_block)
        live_close(s->reign->live, kept->place, removed, s);
    else
        live_drop_spec(s->reign->live, kept->place.batch, removed, s);
}

static void scanned(void *arg, enum err err, const struct live_kept *kept, size_t count, uint64_t next)
{
    struct strangers *s = arg;

    s->next = next;
    s->err = err ? err : s->err;
    /* The reign may have ended meanwhile: then its picture is gone. It is held, so `reign` itself is there. */
    for (size_t i = 0; !err && !s->reign->over && i < count; i++)
        if (!belongs(s->reign, &kept[i]))
            remove_one(s, &kept[i]);
    step_done(s);
}

static void step(struct strangers *s)
{
    s->pending = 1;
    live_scan(s->reign->live, s->next, scanned, s);
}

/* The step's answers are all there: the next one, or the end. */
static void step_done(struct strangers *s)
{
    if (--s->pending > 0)
        return;
    if (!s->err && s->next && !s->reign->over) {
        step(s);
        return;
    }
    struct strangers end = *s;
    free(s);
    if (!reign_back(end.reign))
        return;
    if (end.removed)
        log_info("redis_cleaned", "keys=%llu", (unsigned long long)end.removed);
    end.done(end.reign, end.err);
}

void strangers_remove(struct reign *r, void (*done)(struct reign *r, enum err err))
{
    struct strangers *s = malloc(sizeof *s);

    if (!s)
        abort();
    *s = (struct strangers){.reign = reign_hold(r), .done = done};
    step(s);
}
