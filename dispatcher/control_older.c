#include "dispatcher/control_older.h"

#include <stdlib.h>

#include "dispatcher/control.h"
#include "lib/store/db_supersede.h"

struct control_older {
    struct reign *reign;
    struct open_batch *batch;
    int64_t *ids; /* that are still waited for */
    size_t count;
    bool known; /* they have been read */
    bool told;  /* that nothing is waited for any more */
    bool reading;
    bool over; /* freed; the question is still under way */
};

static void read_ids(struct control_older *o);

struct control_older *control_older_new(struct reign *r, struct open_batch *batch)
{
    struct control_older *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    o->reign = r;
    o->batch = batch;
    read_ids(o);
    return o;
}

static void destroy(struct control_older *o)
{
    free(o->ids);
    free(o);
}

void control_older_free(struct control_older **older)
{
    struct control_older *o = *older;
    *older = NULL;
    if (o && o->reading)
        o->over = true;
    else if (o)
        destroy(o);
}

static void got_ids(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct control_older *o = arg;
    (void)error, (void)count;
    o->reading = false;
    if (!reign_back(o->reign) || o->over) {
        destroy(o);
        return;
    }
    if (err || !pg_rows(results[0]))
        return; /* asked again with the next tick */
    o->count = pg_int_array(results[0], 0, 0, NULL, 0);
    o->ids = calloc(o->count + 1, sizeof *o->ids);
    if (!o->ids)
        abort();
    pg_int_array(results[0], 0, 0, o->ids, o->count);
    o->known = true;
}

static void read_ids(struct control_older *o)
{
    struct pg_txn *txn = pg_txn_new(o->reign->pg, PG_ANY_LANE);
    if (txn)
        db_supersede_older(txn, o->batch->id);
    o->reading = true;
    reign_hold(o->reign);
    pg_txn_submit(txn, got_ids, o);
}

bool control_older_holds(const struct control_older *o)
{
    return !o->told;
}

/* One that the leader does not know is closed, or held for approval: then it ends for these devices before it is sent.
 */
static bool waits_for(const struct control_older *o, int64_t id)
{
    const struct open_batch *batch = open_set_find(&o->reign->set, (uint64_t)id);
    return batch && batch->stage == OPEN_RUNNING && !control_settled(batch);
}

bool control_older_tick(struct control_older *o)
{
    if (!o->known && !o->reading)
        read_ids(o);
    if (!o->known || o->told || !o->reign->loaded)
        return false;
    size_t kept = 0;
    for (size_t i = 0; i < o->count; i++)
        if (waits_for(o, o->ids[i]))
            o->ids[kept++] = o->ids[i];
    o->count = kept;
    o->told = !kept;
    return o->told;
}
