#include "dispatcher/learn.h"

#include <stdlib.h>

#include "lib/base/owned.h"
#include "lib/store/db_open.h"

struct learner {
    bool begun;
    uint32_t *tenants; /* number, blocks; one after another */
    size_t count, next;
    uint32_t block, left;
    unsigned under_way;
};

struct learner *learner_new(struct reign *r)
{
    (void)r;
    return calloc(1, sizeof(struct learner));
}

void learner_free(struct learner **l)
{
    if (!*l)
        return;
    free((*l)->tenants);
    free(*l);
    *l = NULL;
}

static void pump(struct reign *r);

/* What could not be asked is learned by routing. */
static void learned(void *arg, enum err err)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    r->learner->under_way--;
    if (err)
        r->learner->left = 0;
    pump(r);
}

static void pump(struct reign *r)
{
    struct learner *l = r->learner;
    while (l->left && l->under_way < LEARN_MOVES && l->next < l->count) {
        if (l->block == l->tenants[2 * l->next + 1]) {
            l->next++;
            l->block = 0;
            continue;
        }
        l->left--;
        l->under_way++;
        live_learn(r->live, l->tenants[2 * l->next], l->block++, learned, reign_hold(r));
    }
}

static void got_tenants(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct reign *r = arg;
    (void)error, (void)count;
    if (!reign_back(r) || err)
        return;
    struct learner *l = r->learner;
    l->count = (size_t)pg_rows(results[0]);
    uint32_t *tenants = calloc(2 * l->count + 1, sizeof *tenants);
    if (!tenants)
        l->count = 0;
    owned(tenants);
    l->tenants = tenants;
    for (size_t i = 0; i < l->count; i++) {
        l->tenants[2 * i] = (uint32_t)pg_int(results[0], (int)i, 0);
        l->tenants[2 * i + 1] = (uint32_t)pg_int(results[0], (int)i, 1);
    }
    l->left = LEARN_BLOCKS;
    pump(r);
}

void learn_begin(struct reign *r)
{
    if (r->learner->begun)
        return;
    r->learner->begun = true;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn)
        db_open_tenants(txn);
    pg_txn_submit(txn, got_tenants, reign_hold(r));
}
