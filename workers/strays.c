#include "workers/strays.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/block.h"
#include "lib/store/live.h"
#include "proto/inbox.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

/* What is on its way to Redis gets there, or its sender is reaped, within less. */
#define LATELY_US (60 * 1000000ll)
#define MARK_US   (10 * 1000000ll)
#define MARKS     (LATELY_US / MARK_US + 2)
/* Devices noted; beyond, it is taken for granted that one of them has gone. */
#define UNSURE_MAX 65536

struct strays {
    struct worker *worker;
    struct buf unsure; /* uint64_t tenant << 32 | seq */
    bool many;
    /* Which sessions there had been, when: a ring. */
    struct mark {
        int64_t at_us;
        uint32_t generation;
    } marks[MARKS];
    unsigned last;
};

struct strays *strays_new(struct worker *worker)
{
    struct strays *strays = calloc(1, sizeof *strays);
    if (strays)
        strays->worker = worker;
    return strays;
}

void strays_free(struct strays **strays)
{
    if (!*strays)
        return;
    buf_free(&(*strays)->unsure);
    free(*strays);
    *strays = NULL;
}

/* --- having taken one away ---------------------------------------------------------------------------------------- */

void strays_unsure(struct strays *strays, uint32_t tenant, uint32_t seq)
{
    uint64_t key = (uint64_t)tenant << 32 | seq;
    if (buf_len(&strays->unsure) < UNSURE_MAX * sizeof key)
        buf_put(&strays->unsure, &key, sizeof key);
    else
        strays->many = true;
    strays->many = strays->many || strays->unsure.failed;
}

/* Of one that is here another worker may have a session still, and was not told. */
static bool put_takeovers(const struct strays *strays, struct buf *items)
{
    const uint64_t *keys = (const uint64_t *)(const void *)buf_head(&strays->unsure);
    bool gone = strays->many;
    for (size_t i = 0, n = buf_len(&strays->unsure) / sizeof *keys; i < n; i++) {
        struct inbox_item item = {
            .kind = INBOX_TAKEOVER, .tenant = (uint32_t)(keys[i] >> 32), .seq = (uint32_t)keys[i]};
        const struct session *s = session_table_get(strays->worker->sessions, item.tenant, item.seq);
        if (s && s->receiving)
            inbox_put(items, &item);
        else
            gone = true;
    }
    return gone;
}

void strays_settled(struct strays *strays)
{
    struct buf items = {0};
    if (put_takeovers(strays, &items))
        inbox_put(&items, &(struct inbox_item){.kind = INBOX_CHECK});
    if (buf_len(&items) && !items.failed)
        live_tell_workers(strays->worker->live, LIVE_URGENT, buf_slice(&items));
    buf_free(&items);
    buf_free(&strays->unsure);
    strays->many = false;
}

/* --- having lost one ---------------------------------------------------------------------------------------------- */

void strays_mark(struct strays *strays)
{
    int64_t now = clock_mono_us();
    if (now - strays->marks[strays->last].at_us < MARK_US)
        return;
    strays->last = (strays->last + 1) % MARKS;
    strays->marks[strays->last] = (struct mark){now, strays->worker->generations};
}

/* The last session that had been there before lately began. */
static uint32_t before_lately(const struct strays *strays)
{
    int64_t limit = clock_mono_us() - LATELY_US;
    const struct mark *best = NULL;
    for (unsigned i = 0; i < MARKS; i++) {
        const struct mark *m = &strays->marks[i];
        if (m->at_us && m->at_us <= limit && (!best || m->at_us > best->at_us))
            best = m;
    }
    return best ? best->generation : 0;
}

struct look {
    struct worker *worker;
    uint32_t before;        /* sessions up to this generation are older */
    uint32_t tenant, block; /* of an answer of presence */
    struct buf keys;        /* tenant << 32 | block, of a walk over the sessions */
};

static bool is_new(const struct look *l, const struct session *s)
{
    return s->receiving && (int32_t)(s->generation - l->before) > 0;
}

static void presence_known(void *arg, enum err err, struct slice presence)
{
    struct look l = *(struct look *)arg;
    free(arg);
    for (unsigned slot = 0; !err && slot < BLOCK_SLOTS; slot++) {
        size_t at = (size_t)slot * 2;
        struct session *s = session_table_get(l.worker->sessions, l.tenant, block_seq(l.block, slot));
        if (!s || !is_new(&l, s) || (presence.len >= at + 2 && load_u16le(presence.data + at) != 0))
            continue;
        session_again(s); /* what went astray comes before what it has */
        log_info("stray_found", "tenant=%u seq=%u", s->tenant, s->seq);
    }
}

static void note_block(void *arg, struct session *s)
{
    struct look *l = arg;
    uint64_t key = (uint64_t)s->tenant << 32 | block_of(s->seq);
    if (is_new(l, s))
        buf_put(&l->keys, &key, sizeof key);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void strays_check(struct strays *strays)
{
    struct worker *w = strays->worker;
    struct look all = {.worker = w, .before = before_lately(strays)};
    session_table_each(w->sessions, note_block, &all);
    uint64_t *keys = (uint64_t *)(void *)buf_head(&all.keys);
    size_t n = all.keys.failed ? 0 : buf_len(&all.keys) / sizeof *keys;
    if (n)
        qsort(keys, n, sizeof *keys, compare);
    for (size_t i = 0; i < n; i++) {
        struct look *one = i && keys[i] == keys[i - 1] ? NULL : malloc(sizeof *one);
        if (!one)
            continue; /* seen, or a hint lost */
        *one = (struct look){w, all.before, (uint32_t)(keys[i] >> 32), (uint32_t)keys[i], {0}};
        live_presence(w->live, one->tenant, one->block, presence_known, one);
    }
    buf_free(&all.keys);
}
