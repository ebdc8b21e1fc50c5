/* Every key of Redis: what is left of batches that are closed, and of workers that are not there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/verify.h"
#include "lib/store/db_open.h"

#define KIND(name) MUSTER__V1__DIFFERENCE__DIFFERENCE_##name
#define ASK_MAX    1000 /* batches that PostgreSQL is asked about at a time */

/* A trace of a batch that was not among the open ones: it may have been accepted since. */
struct trace {
    Muster__V1__Difference kind;
    struct live_place place;
};

struct keys {
    uint64_t next; /* cursor */
    size_t left;   /* lists of open batches being read */
    struct trace traces[ASK_MAX];
    size_t count;
};

struct listed {
    struct verify *v;
    uint32_t tenant, block;
};

static void go_on(struct verify *v);

static bool is_open(const struct verify *v, uint64_t batch)
{
    const uint8_t *ids = buf_slice(&v->open).data;
    size_t low = 0, high = buf_len(&v->open) / 8;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (load_u64le(ids + 8 * mid) < batch)
            low = mid + 1;
        else
            high = mid;
    }
    return low < buf_len(&v->open) / 8 && load_u64le(ids + 8 * low) == batch;
}

/* What does not fit is looked at with the next look. */
static void keep_trace(struct verify *v, Muster__V1__Difference kind, struct live_place place)
{
    struct keys *k = v->part;
    if (is_open(v, place.batch))
        return;
    if (*v->tenant && (!place.tenant || !verify_tenant(v, place.tenant)))
        return;
    if (k->count == ASK_MAX)
        v->more = true;
    else
        k->traces[k->count++] = (struct trace){.kind = kind, .place = place};
}

/* --- batches that PostgreSQL does not have open ------------------------------------------------------------------- */

static void got_some(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct verify *v = arg;
    (void)error, (void)count;
    if (!verify_back(v, err))
        return;
    struct keys *k = v->part;
    for (size_t i = 0; i < k->count; i++) {
        const struct trace *t = &k->traces[i];
        bool open = false;
        for (int row = 0; row < pg_rows(results[0]) && !open; row++)
            open = (uint64_t)pg_int(results[0], row, 0) == t->place.batch;
        if (open)
            continue;
        struct verify_finding *f = verify_note(v, t->kind, t->place.tenant, t->place.block, t->place.batch, 0, 1);
        snprintf(f->postgres, sizeof f->postgres, "closed, or never accepted");
        snprintf(f->redis, sizeof f->redis, "there");
    }
    k->count = 0;
    go_on(v);
}

static void ask(struct verify *v)
{
    struct keys *k = v->part;
    int64_t ids[ASK_MAX];
    for (size_t i = 0; i < k->count; i++)
        ids[i] = (int64_t)k->traces[i].place.batch;
    struct pg_txn *txn = pg_txn_new(v->r.d->pg, PG_ANY_LANE);
    if (txn)
        db_open_some(txn, ids, k->count);
    verify_go(v);
    pg_txn_submit(txn, got_some, v);
}

/* --- keys --------------------------------------------------------------------------------------------------------- */

static void got_listed(void *arg, enum err err, const uint64_t *batches, size_t count)
{
    struct listed l = *(struct listed *)arg;
    struct verify *v = l.v;
    free(arg);
    if (!verify_back(v, err))
        return;
    for (size_t i = 0; i < count; i++)
        keep_trace(v, KIND(LISTED_LEFT), (struct live_place){l.tenant, l.block, batches[i]});
    if (--((struct keys *)v->part)->left == 0)
        go_on(v);
}

static void read_list(struct verify *v, struct live_place place)
{
    struct listed *l = malloc(sizeof *l);
    if (!l) {
        verify_failed(v, ERR_NOMEM);
        return;
    }
    *l = (struct listed){v, place.tenant, place.block};
    ((struct keys *)v->part)->left++;
    verify_go(v);
    live_batches(v->r.d->live, place.tenant, place.block, got_listed, l);
}

static void look_at_worker(struct verify *v, const struct live_key *key)
{
    const struct verify_worker *w = verify_worker(v, key->worker);
    /* The lease of nobody: called dead by who saw it listed, it stays when the leader has forgotten it meanwhile. */
    bool nobody = key->worker == LIVE_UNKNOWN_WORKER && key->kind == LIVE_KEY_LEASE;
    if (w || *v->tenant || nobody)
        return;
    bool inbox = key->kind == LIVE_KEY_INBOX;
    struct verify_finding *f =
        verify_note(v, inbox ? KIND(INBOX_OF_NOBODY) : KIND(WORKER_NOT_LISTED), 0, 0, 0, key->worker, 1);
    snprintf(f->redis, sizeof f->redis, inbox ? "an inbox" : "a lease");
}

static void look_at_key(struct verify *v, const struct live_key *key)
{
    v->summary.keys++;
    switch (key->kind) {
    case LIVE_KEY_STATE:
    case LIVE_KEY_VALUES:
        keep_trace(v, KIND(STATES_LEFT), key->place);
        break;
    case LIVE_KEY_SPEC:
    case LIVE_KEY_CANCEL:
        keep_trace(v, KIND(SPEC_LEFT), key->place);
        break;
    case LIVE_KEY_OPEN:
        if (verify_tenant(v, key->place.tenant))
            read_list(v, key->place);
        break;
    case LIVE_KEY_INBOX:
    case LIVE_KEY_LEASE:
        look_at_worker(v, key);
        break;
    case LIVE_KEY_OTHER:
        break;
    }
}

static void got_keys(void *arg, enum err err, uint64_t next, const struct live_key *keys, size_t count)
{
    struct verify *v = arg;
    if (!verify_back(v, err))
        return;
    struct keys *k = v->part;
    k->next = next;
    k->left = 1;
    for (size_t i = 0; i < count; i++)
        look_at_key(v, &keys[i]);
    if (--k->left == 0 && verify_on(v))
        go_on(v);
}

static void scan(struct verify *v)
{
    verify_go(v);
    live_keys(v->r.d->live, ((struct keys *)v->part)->next, got_keys, v);
}

static void go_on(struct verify *v)
{
    const struct keys *k = v->part;
    if (k->count)
        ask(v);
    else if (k->next)
        scan(v);
    else
        verify_next(v);
}

void verify_keys(struct verify *v)
{
    v->part = calloc(1, sizeof(struct keys));
    if (v->part)
        scan(v);
    else
        verify_no_memory(v);
}
