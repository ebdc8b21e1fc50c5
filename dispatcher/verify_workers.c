/* Workers: what they say they have, their leases, and presence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/verify.h"
#include "lib/base/clock.h"
#include "proto/inbox.h"

#define ASK_S    0.05 /* between questions whether a report is there */
#define SILENT_S 3    /* a worker that has not told by then is silent */

/* --- reports ------------------------------------------------------------------------------------------------------ */

struct asking {
    uint64_t number; /* of the reports */
    int64_t until_us;
    size_t left;
};

struct asked {
    struct verify *v;
    size_t worker;
};

static void ask_all(struct verify *v);

static int compare(const void *a, const void *b)
{
    const struct verify_report *x = a, *y = b;
    if (x->tenant != y->tenant)
        return x->tenant < y->tenant ? -1 : 1;
    if (x->block != y->block)
        return x->block < y->block ? -1 : 1;
    return x->worker < y->worker ? -1 : x->worker > y->worker;
}

struct verify_report *verify_report(struct verify *v, uint32_t tenant, uint32_t block, uint16_t worker)
{
    struct verify_report key = {.tenant = tenant, .block = block, .worker = worker};
    return v->report_count ? bsearch(&key, v->reports, v->report_count, sizeof key, compare) : NULL;
}

static uint16_t slot_at(const struct verify *v, const struct verify_report *r, size_t i)
{
    return load_u16le(buf_slice(&v->slots).data + r->at + 2 * i);
}

struct bitmap verify_report_slots(const struct verify *v, const struct verify_report *r)
{
    struct bitmap here = {{0}};
    for (size_t i = 0; i < r->count; i++)
        bitmap_set(&here, slot_at(v, r, i) % BLOCK_SLOTS);
    return here;
}

bool verify_report_idle(const struct verify *v, const struct verify_report *r, unsigned slot)
{
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (slot_at(v, r, mid) % BLOCK_SLOTS < slot)
            low = mid + 1;
        else
            high = mid;
    }
    return low < r->count && slot_at(v, r, low) == (slot | REPORT_IDLE);
}

/* All have told, or are silent. */
static void asked_all(struct verify *v)
{
    const struct buf *told = &v->told_by_workers;
    for (size_t i = 0; i < v->worker_count; i++) {
        const struct verify_worker *w = &v->workers[i];
        v->summary.workers += w->alive && w->ended && w->number != LIVE_UNKNOWN_WORKER;
        if (*v->tenant)
            continue; /* they are no tenant's */
        if (w->alive && !w->ended)
            snprintf(verify_note(v, MUSTER__V1__DIFFERENCE__DIFFERENCE_WORKER_SILENT, 0, 0, 0, w->number, 1)->redis,
                     sizeof(((struct verify_finding *)0)->redis), "has its lease");
        if (!w->alive)
            snprintf(verify_note(v, MUSTER__V1__DIFFERENCE__DIFFERENCE_WORKER_NOT_REAPED, 0, 0, 0, w->number, 1)->redis,
                     sizeof(((struct verify_finding *)0)->redis), "no lease");
    }
    v->report_count = buf_len(told) / sizeof *v->reports;
    v->reports = malloc(buf_len(told) + 1);
    if (!v->reports) {
        verify_no_memory(v);
        return;
    }
    if (v->report_count) {
        memcpy(v->reports, buf_slice(told).data, buf_len(told));
        qsort(v->reports, v->report_count, sizeof *v->reports, compare);
    }
    buf_free(&v->told_by_workers);
    verify_next(v);
}

static void keep_report(struct verify *v, uint16_t worker, const struct live_report *r)
{
    struct verify_report report = {.tenant = r->tenant,
                                   .block = r->block,
                                   .worker = worker,
                                   .count = (uint16_t)(r->slots.len / 2),
                                   .at = buf_len(&v->slots)};
    buf_put(&v->told_by_workers, &report, sizeof report);
    buf_put(&v->slots, r->slots.data, r->slots.len);
    if (v->told_by_workers.failed || v->slots.failed)
        verify_failed(v, ERR_NOMEM);
}

static void got_report(void *arg, enum err err, int64_t waiting, const struct live_report *reports, size_t count)
{
    struct asked asked = *(struct asked *)arg;
    struct verify *v = asked.v;
    free(arg);
    if (!verify_back(v, err == ERR_NOT_FOUND ? ERR_OK : err))
        return;
    struct asking *a = v->part;
    struct verify_worker *w = &v->workers[asked.worker];
    if (!err) {
        w->ended = true;
        w->telling = waiting >= 0;
        w->waiting = waiting;
        for (size_t i = 0; i < count; i++)
            keep_report(v, w->number, &reports[i]);
    }
    if (verify_on(v) && --a->left == 0)
        ask_all(v);
}

static void ask_again(struct verify *v)
{
    struct asking *a = v->part;
    for (size_t i = 0; i < v->worker_count; i++) {
        if (!v->workers[i].alive || v->workers[i].ended)
            continue;
        struct asked *asked = malloc(sizeof *asked);
        if (!asked) {
            verify_no_memory(v);
            return;
        }
        *asked = (struct asked){v, i};
        a->left++;
        verify_go(v);
        live_report_get(v->r.d->live, v->workers[i].number, a->number, got_report, asked);
    }
}

static void ask_all(struct verify *v)
{
    const struct asking *a = v->part;
    bool all = true;
    for (size_t i = 0; i < v->worker_count; i++)
        all = all && (!v->workers[i].alive || v->workers[i].ended);
    if (all || clock_mono_us() >= a->until_us)
        asked_all(v);
    else
        verify_after(v, ASK_S, ask_again);
}

static void got_inbox(void *arg, enum err err, int64_t waiting)
{
    struct asked asked = *(struct asked *)arg;
    free(arg);
    if (!verify_back(asked.v, err))
        return;
    struct asking *a = asked.v->part;
    asked.v->workers[asked.worker].inbox = waiting;
    if (--a->left == 0)
        ask_all(asked.v);
}

static void tell_to_report(struct verify *v, size_t i)
{
    struct asking *a = v->part;
    struct asked *asked = malloc(sizeof *asked);
    struct buf item = {0};
    inbox_put(&item, &(struct inbox_item){.kind = INBOX_REPORT, .number = a->number});
    if (asked && !item.failed) {
        *asked = (struct asked){v, i};
        a->left++;
        verify_go(v);
        live_inbox_waiting(v->r.d->live, v->workers[i].number, got_inbox, asked);
        live_inbox_push(v->r.d->live, v->workers[i].number, LIVE_URGENT, buf_slice(&item), NULL, NULL);
    } else {
        free(asked);
        verify_failed(v, ERR_NOMEM);
    }
    buf_free(&item);
}

static void got_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct verify *v = arg;
    if (!verify_back(v, err))
        return;
    struct asking *a = v->part;
    v->workers = calloc(count + 1, sizeof *v->workers);
    if (!v->workers) {
        verify_no_memory(v);
        return;
    }
    v->worker_count = count;
    for (size_t i = 0; i < count; i++) {
        v->workers[i] = (struct verify_worker){.number = workers[i].number, .alive = workers[i].alive};
        if (workers[i].number == LIVE_UNKNOWN_WORKER)
            v->workers[i].ended = true; /* nobody, that is to be asked for again */
        else if (workers[i].alive)
            tell_to_report(v, i);
    }
    if (verify_on(v) && !a->left)
        asked_all(v);
}

void verify_workers(struct verify *v)
{
    struct asking *a = v->part = calloc(1, sizeof *a);
    if (!a) {
        verify_no_memory(v);
        return;
    }
    a->number = (uint64_t)clock_wall_ms() << 16 | (uint64_t)(rand() & 0xffff);
    a->until_us = clock_mono_us() + SILENT_S * 1000000;
    verify_go(v);
    live_workers(v->r.d->live, got_workers, v);
}

/* --- presence ----------------------------------------------------------------------------------------------------- */

struct presences {
    size_t tenant;
    uint32_t block;
    unsigned under_way;
};

struct presence {
    struct verify *v;
    uint32_t tenant, block;
};

static void pump(struct verify *v);

/* Devices of the block at one worker. */
struct at_worker {
    uint16_t number;
    struct bitmap slots;
};

static void note_bits(struct verify *v, Muster__V1__Difference kind, const struct presence *p, uint16_t worker,
                      const struct bitmap *slots, const char *redis, const char *said)
{
    unsigned n = bitmap_count(slots);
    if (!n)
        return;
    struct verify_finding *f = verify_note(v, kind, p->tenant, p->block, 0, worker, n);
    snprintf(f->redis, sizeof f->redis, "%s", redis);
    snprintf(f->workers, sizeof f->workers, "%s", said);
}

static void compare_presence(struct verify *v, const struct presence *p, const struct at_worker *at)
{
    const struct verify_worker *w = verify_worker(v, at->number);
    struct verify_report *report = verify_report(v, p->tenant, p->block, at->number);
    char here[48];
    struct bitmap only = at->slots, told = {{0}};
    snprintf(here, sizeof here, "worker %u", at->number);
    if (!w || !w->alive) {
        note_bits(v, MUSTER__V1__DIFFERENCE__DIFFERENCE_PRESENCE_OF_NOBODY, p, at->number, &only, here,
                  w ? "dead" : "there is none");
        return;
    }
    if (!w->telling)
        return;
    if (report)
        told = verify_report_slots(v, report);
    bitmap_and_not(&only, &told);
    note_bits(v, MUSTER__V1__DIFFERENCE__DIFFERENCE_PRESENCE_WITHOUT_SESSION, p, at->number, &only, here, "no session");
    if (!report)
        return;
    report->seen = true;
    only = told;
    bitmap_and_not(&only, &at->slots);
    note_bits(v, MUSTER__V1__DIFFERENCE__DIFFERENCE_SESSION_WITHOUT_PRESENCE, p, at->number, &only, "elsewhere or none",
              "sessions");
}

/* Workers are few in a block: a linear search. */
static size_t sort_presence(struct slice presence, struct at_worker *at, size_t max)
{
    size_t n = 0;
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++) {
        uint16_t number = live_presence_at(presence, slot);
        size_t i = 0;
        while (i < n && at[i].number != number)
            i++;
        if (!number || i == max)
            continue;
        if (i == n)
            at[n++] = (struct at_worker){.number = number};
        bitmap_set(&at[i].slots, slot);
    }
    return n;
}

static void got_presence(void *arg, enum err err, struct slice presence)
{
    struct presence p = *(struct presence *)arg;
    struct verify *v = p.v;
    free(arg);
    if (!verify_back(v, err))
        return;
    struct at_worker *at = calloc(BLOCK_SLOTS, sizeof *at);
    if (!at) {
        verify_no_memory(v);
        return;
    }
    size_t n = sort_presence(presence, at, BLOCK_SLOTS);
    for (size_t i = 0; i < n; i++)
        compare_presence(v, &p, &at[i]);
    free(at);
    ((struct presences *)v->part)->under_way--;
    v->summary.blocks++;
    pump(v);
}

/* What workers have in blocks where presence does not name them at all. */
static void look_at_unseen(struct verify *v)
{
    for (size_t i = 0; i < v->report_count; i++) {
        const struct verify_report *r = &v->reports[i];
        struct presence p = {v, r->tenant, r->block};
        struct bitmap here = verify_report_slots(v, r);
        if (!r->seen && verify_tenant(v, r->tenant))
            note_bits(v, MUSTER__V1__DIFFERENCE__DIFFERENCE_SESSION_WITHOUT_PRESENCE, &p, r->worker, &here,
                      "elsewhere or none", "sessions");
    }
}

static void pump(struct verify *v)
{
    struct presences *all = v->part;
    while (all->under_way < VERIFY_MOVES && all->tenant < v->tenant_count) {
        const struct verify_tenant *t = &v->tenants[all->tenant];
        if (all->block >= t->blocks) {
            all->tenant++;
            all->block = 0;
            continue;
        }
        struct presence *p = malloc(sizeof *p);
        if (!p) {
            verify_no_memory(v);
            return;
        }
        *p = (struct presence){v, t->id, all->block++};
        all->under_way++;
        verify_go(v);
        live_presence(v->r.d->live, p->tenant, p->block, got_presence, p);
    }
    if (all->under_way)
        return;
    look_at_unseen(v);
    verify_next(v);
}

void verify_presence(struct verify *v)
{
    v->part = calloc(1, sizeof(struct presences));
    if (v->part)
        pump(v);
    else
        verify_no_memory(v);
}
