#include "dispatcher/fold.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/owned.h"
#include "proto/ack_log.h"

#define COMPACT_ROW_BYTES 60000 /* a row of a log written anew is cut here */
#define COMPACT_TIME_MS   1000  /* entries of one such row are of one second */

void fold_init(struct fold_log *log)
{
    *log = (struct fold_log){0};
    list_init(&log->streams);
    list_init(&log->due);
    list_init(&log->dirty);
    list_init(&log->resting);
}

static void drop_row(struct fold_log *log, struct log_row *row)
{
    log->rows--;
    log->bytes -= row->bytes;
    list_remove(&row->link);
    free(row);
}

static void drop_stream(struct fold_log *log, struct log_stream *s)
{
    list_for_each (l, tmp, &s->rows)
        drop_row(log, container_of(l, struct log_row, link));
    list_remove(&s->link);
    log->stream_count--;
    free(s);
}

void fold_free(struct fold_log *log)
{
    list_for_each (l, tmp, &log->streams)
        drop_stream(log, container_of(l, struct log_stream, link));
    struct list *lists[] = {&log->due, &log->dirty, &log->resting};
    for (size_t i = 0; i < 3; i++)
        while (list_pop(lists[i]))
            ;
    fold_init(log);
}

size_t fold_cursors(const struct fold_log *log, int64_t *streams, int64_t *ns, size_t max)
{
    size_t n = 0;
    for (struct list *l = log->streams.next; l != &log->streams && n < max; l = l->next, n++) {
        const struct log_stream *s = container_of(l, struct log_stream, link);
        streams[n] = (int64_t)s->id;
        ns[n] = (int64_t)s->last_n;
    }
    return n;
}

void fold_unknown(const struct open_set *set, struct slice entries, struct buf *ids)
{
    struct ack_log_group g;
    while (ack_log_next(&entries, &g) == 1)
        if (!open_set_find(set, g.batch) && !open_set_is_closed(set, g.batch))
            buf_put_u64le(ids, g.batch);
}

static struct log_stream *get_stream(struct fold_log *log, uint64_t id)
{
    for (struct list *l = log->streams.next; l != &log->streams; l = l->next)
        if (container_of(l, struct log_stream, link)->id == id)
            return container_of(l, struct log_stream, link);
    struct log_stream *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->id = id;
    list_init(&s->rows);
    list_append(&log->streams, &s->link);
    log->stream_count++;
    return s;
}

static struct log_row *add_row(struct fold_log *log, struct log_stream *s, uint64_t n, size_t bytes)
{
    struct log_row *row = calloc(1, sizeof *row);
    if (!row)
        return NULL;
    row->n = n;
    row->bytes = (uint32_t)bytes;
    list_append(&s->rows, &row->link);
    owned(row);
    log->rows++;
    log->bytes += bytes;
    return row;
}

/* One more entry of `row` waits for `b`. Entries of a row come together, so the last one is the row's or none is. */
static void add_ref(struct fold_log *log, struct open_block *b, struct log_row *row)
{
    if (!b->ref_count || b->refs[b->ref_count - 1].row != row) {
        if (b->ref_count == b->ref_cap) {
            uint32_t cap = b->ref_cap ? b->ref_cap * 2 : 1;
            struct open_ref *refs = realloc(b->refs, cap * sizeof *refs);
            if (!refs) {
                log->failed = true;
                return;
            }
            owned(refs);
            b->refs = refs;
            b->ref_cap = cap;
        }
        b->refs[b->ref_count++] = (struct open_ref){row, 0};
    }
    b->refs[b->ref_count - 1].entries++;
    row->live++;
    log->live++;
}

static void take_group(struct fold_log *log, struct open_set *set, struct log_row *row, const struct ack_log_group *g,
                       int64_t at_ms, int64_t now_ms)
{
    struct open_batch *batch = open_set_find(set, g->batch);
    struct open_block *b = NULL;
    if (!batch || batch->tenant != g->tenant)
        return;
    batch->folds++;
    for (uint32_t i = 0; i < g->count; i++) {
        uint32_t seq = ack_log_seq(g, i);
        if (!b || b->block != block_of(seq))
            b = open_batch_block(batch, block_of(seq));
        if (b && open_block_logged(set, b, slot_of(seq), ack_log_state(g, i), at_ms)) {
            add_ref(log, b, row);
            fold_changed(log, b, false, now_ms);
        } else if (b && open_block_is_dirty(b, slot_of(seq))) {
            /* Said before, but not stored: until then this row is needed too. */
            add_ref(log, b, row);
        }
    }
}

bool fold_take(struct fold_log *log, struct open_set *set, uint64_t stream, uint64_t n, int64_t at_ms,
               struct slice entries, int64_t now_ms)
{
    struct log_stream *s = get_stream(log, stream);
    if (s && n <= s->last_n)
        return true;
    struct log_row *row = s ? add_row(log, s, n, entries.len + FOLD_ROW_COST) : NULL;
    if (!row) {
        log->failed = true;
        return true;
    }
    s->last_n = n;
    struct ack_log_group g;
    int more;
    while ((more = ack_log_next(&entries, &g)) == 1)
        take_group(log, set, row, &g, at_ms, now_ms);
    log->forgettable = log->forgettable || !row->live;
    return more == 0;
}

static void move(struct open_block *b, struct list *to)
{
    list_remove(&b->link);
    list_append(to, &b->link);
}

void fold_changed(struct fold_log *log, struct open_block *b, bool force, int64_t now_ms)
{
    if (!b->dirty || b->due)
        return;
    if (b->dirty == 1 || !b->dirty_ms)
        b->dirty_ms = now_ms;
    b->changed_ms = now_ms;
    b->due = force || !b->remaining || (b->dirty >= FOLD_OLD_ENTRIES && now_ms - b->dirty_ms >= FOLD_OLD_MS);
    move(b, b->due ? &log->due : &log->dirty);
}

void fold_age(struct fold_log *log, int64_t now_ms)
{
    list_for_each (l, tmp, &log->dirty) {
        struct open_block *b = container_of(l, struct open_block, link);
        if (now_ms - b->changed_ms < FOLD_QUIET_MS)
            break;
        b->due = b->dirty >= FOLD_ENTRIES;
        move(b, b->due ? &log->due : &log->resting);
    }
}

struct open_block *fold_next(struct fold_log *log)
{
    struct list *l = list_pop(&log->due);
    return l ? container_of(l, struct open_block, link) : NULL;
}

static void clear_refs(struct fold_log *log, struct open_block *b)
{
    for (uint32_t i = 0; i < b->ref_count; i++) {
        b->refs[i].row->live -= b->refs[i].entries;
        log->forgettable = log->forgettable || !b->refs[i].row->live;
        log->live -= b->refs[i].entries;
    }
    free(b->refs);
    b->refs = NULL;
    b->ref_count = b->ref_cap = 0;
}

void fold_stored(struct fold_log *log, struct open_block *b)
{
    clear_refs(log, b);
    open_block_clean(b);
    b->due = false;
    b->dirty_ms = 0;
}

size_t fold_forget(struct fold_log *log, int64_t *streams, int64_t *ns, size_t max)
{
    size_t count = 0;
    log->forgettable = false;
    list_for_each (l, tmp, &log->streams) {
        struct log_stream *s = container_of(l, struct log_stream, link);
        while (!list_empty(&s->rows) && count < max) {
            struct log_row *row = container_of(s->rows.next, struct log_row, link);
            if (row->live)
                break;
            s->forget_n = row->n;
            drop_row(log, row);
        }
        if (s->forget_n && count < max) {
            streams[count] = (int64_t)s->id;
            ns[count++] = (int64_t)s->forget_n;
            s->forget_n = 0;
        }
    }
    return count;
}

/* --- writing the log anew --------------------------------------------------------------------------------------- */
bool fold_compact_pays(const struct fold_log *log)
{
    return log->live && log->bytes > FOLD_COMPACT_COST && log->live * FOLD_ENTRY_COST < log->bytes / 2;
}

struct waiting {
    struct open_block *b;
    int64_t at_ms;
    uint16_t slot;
};

static int by_second_and_batch(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;
    int64_t s = x->at_ms / COMPACT_TIME_MS, t = y->at_ms / COMPACT_TIME_MS;
    if (s != t)
        return s < t ? -1 : 1;
    if (x->b->batch->id != y->b->batch->id)
        return x->b->batch->id < y->b->batch->id ? -1 : 1;
    if (x->b->block != y->b->block)
        return x->b->block < y->b->block ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Returns owned: every dirty command of the three lists, sorted; their refs are cleared. */
static struct waiting *gather(struct fold_log *log, size_t *count)
{
    struct list *lists[] = {&log->due, &log->dirty, &log->resting};
    size_t n = 0, k = 0;
    for (size_t i = 0; i < 3; i++)
        list_for_each (l, tmp, lists[i])
            n += container_of(l, struct open_block, link)->dirty;
    struct waiting *all = malloc((n + 1) * sizeof *all);
    for (size_t i = 0; all && i < 3; i++)
        list_for_each (l, tmp, lists[i]) {
            struct open_block *b = container_of(l, struct open_block, link);
            for (unsigned slot = open_block_next_dirty(b, 0); slot < BLOCK_SLOTS;
                 slot = open_block_next_dirty(b, slot + 1))
                all[k++] = (struct waiting){b, open_block_time(b, slot), (uint16_t)slot};
            clear_refs(log, b);
        }
    if (all) {
        assert(k == n);
        qsort(all, n, sizeof *all, by_second_and_batch);
        *count = n;
    }
    return all;
}

/* One row from all[from] on; returns the index behind it. */
static size_t compact_row(struct fold_log *log, struct log_stream *own, uint64_t n, const struct waiting *all,
                          size_t from, size_t count, struct buf *out, int64_t *at_ms)
{
    size_t i = from;
    struct log_row *row = add_row(log, own, n, 0);
    if (!row) {
        log->failed = true;
        return count;
    }
    *at_ms = all[from].at_ms;
    while (i < count && all[i].at_ms / COMPACT_TIME_MS == *at_ms / COMPACT_TIME_MS &&
           buf_len(out) < COMPACT_ROW_BYTES) {
        const struct open_batch *batch = all[i].b->batch;
        size_t end = i;
        while (end < count && all[end].b->batch == batch &&
               all[end].at_ms / COMPACT_TIME_MS == *at_ms / COMPACT_TIME_MS)
            end++;
        ack_log_put_group(out, batch->id, batch->tenant, (uint32_t)(end - i));
        for (; i < end; i++) {
            ack_log_put_entry(out, block_seq(all[i].b->block, all[i].slot), open_block_state(all[i].b, all[i].slot));
            add_ref(log, all[i].b, row);
        }
    }
    row->bytes = (uint32_t)(buf_len(out) + FOLD_ROW_COST);
    log->bytes += row->bytes;
    own->last_n = n;
    return i;
}

bool fold_compact(struct fold_log *log, uint64_t own_id, uint64_t first_n,
                  void (*each)(void *arg, int64_t at_ms, struct slice entries), void *arg)
{
    size_t count = 0;
    struct log_stream *own = get_stream(log, own_id);
    struct waiting *all = own ? gather(log, &count) : NULL;
    if (!all) {
        log->failed = true;
        return false;
    }
    struct buf out = {0};
    for (size_t i = 0; i < count && !log->failed;) {
        int64_t at_ms;
        i = compact_row(log, own, first_n++, all, i, count, &out, &at_ms);
        log->failed = log->failed || out.failed;
        if (!log->failed)
            each(arg, at_ms, buf_slice(&out));
        buf_reset(&out);
    }
    buf_free(&out);
    free(all);
    return !log->failed;
}
