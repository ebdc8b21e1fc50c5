#include "workers/report.h"

#include <stdlib.h>

#include "lib/store/live_look.h"
#include "workers/attach.h"
#include "workers/lease.h"
#include "workers/routed.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define BLOCKS_MAX 30000 /* of a report, which is read in one piece; who has devices in more can't tell */

/* One session: where it is, and in the lowest bit whether it holds nothing and expects nothing. */
static void note(void *arg, struct session *s)
{
    bool idle = s->held_count == 0 && !s->more && !s->asked;
    if (s->receiving)
        buf_put_u64le(arg, (uint64_t)s->tenant << 33 | (uint64_t)s->seq << 1 | idle);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t block_key(uint64_t key)
{
    return key / (2 * BLOCK_SLOTS);
}

static size_t count_blocks(const uint64_t *keys, size_t n)
{
    size_t blocks = 0;
    for (size_t i = 0; i < n; i++)
        blocks += i == 0 || block_key(keys[i]) != block_key(keys[i - 1]);
    return blocks;
}

static void put_blocks(struct worker *w, uint64_t number, const uint64_t *keys, size_t n)
{
    uint16_t slots[BLOCK_SLOTS];
    for (size_t from = 0, to; from < n; from = to) {
        size_t count = 0;
        for (to = from; to < n && block_key(keys[to]) == block_key(keys[from]); to++)
            slots[count++] = (uint16_t)(slot_of((uint32_t)(keys[to] >> 1)) | (keys[to] & 1 ? REPORT_IDLE : 0));
        live_report_put(w->live, lease_number(w->lease), number, (uint32_t)(keys[from] >> 33),
                        block_of((uint32_t)(keys[from] >> 1)), slots, count);
    }
}

void report_send(struct worker *w, uint64_t number)
{
    struct buf sessions = {0};
    int64_t waiting = (int64_t)routed_waiting(w->routed);
    session_table_each(w->sessions, note, &sessions);
    uint64_t *keys = (uint64_t *)(void *)buf_head(&sessions);
    size_t n = buf_len(&sessions) / sizeof *keys;
    if (n)
        qsort(keys, n, sizeof *keys, compare);
    if (w->options.answer_self || sessions.failed || count_blocks(keys, n) > BLOCKS_MAX)
        waiting = -1;
    else
        put_blocks(w, number, keys, n);
    live_report_end(w->live, lease_number(w->lease), number, waiting);
    buf_free(&sessions);
}

struct check {
    struct worker *worker;
    uint32_t tenant, block;
};

static void presence_known(void *arg, enum err err, struct slice presence)
{
    struct check c = *(struct check *)arg;
    struct worker *w = c.worker;
    free(arg);
    for (unsigned slot = 0; !err && slot < BLOCK_SLOTS; slot++) {
        uint32_t seq = block_seq(c.block, slot);
        size_t at = (size_t)slot * 2;
        const struct session *s = session_table_get(w->sessions, c.tenant, seq);
        bool here = s && s->receiving;
        bool there = presence.len >= at + 2 && load_u16le(presence.data + at) == lease_number(w->lease);
        if (here != there)
            attach_change(w->attach, c.tenant, seq);
    }
}

void report_check(struct worker *w, uint32_t tenant, uint32_t block)
{
    struct check *c = malloc(sizeof *c);
    if (!c || w->options.answer_self) {
        free(c);
        return;
    }
    *c = (struct check){w, tenant, block};
    live_presence(w->live, tenant, block, presence_known, c);
}
