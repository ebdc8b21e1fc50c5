/* The leader's picture from what PostgreSQL and Redis say: columns of blocks, rows of the acknowledgement log, state
 * strings, in any order, with any bytes; then folded, stored, forgotten, written anew. What remains must add up, and
 * what is terminal must stay so. */
#include "dispatcher/fold.h"
#include "dispatcher/open_batch.h"
#include "proto/ack_log.h"
#include "tests/fuzz/input.h"

#define BATCHES    4
#define BLOCKS_MAX 4
#define TENANT     7
#define STREAMS    3

static struct open_set set; /* large */
static struct fold_log folding;
static int64_t now_ms;
static uint64_t own_n; /* of the stream that the log is written anew to */

/* --- what must hold ----------------------------------------------------------------------------------------------- */

static void look_at_block(const struct open_block *b)
{
    unsigned remaining = 0, dirty = 0;
    for (unsigned slot = b->first; slot < (unsigned)b->first + b->span && !b->settled; slot++) {
        uint8_t state = open_block_state(b, slot);
        check(state == 0 || open_block_targets(b, slot));
        remaining += open_block_targets(b, slot) && !state_is_terminal(state_of(state));
        dirty += open_block_is_dirty(b, slot);
    }
    check(remaining == b->remaining && dirty == b->dirty);
    check(!b->due || !list_empty(&b->link));
}

static void look_at_batch(void *arg, struct open_batch *batch)
{
    uint64_t *all = arg;
    uint32_t remaining = 0, unsettled = 0, settled = 0;
    for (uint32_t i = 0; i < batch->block_count; i++) {
        look_at_block(&batch->blocks[i]);
        remaining += batch->blocks[i].remaining;
        unsettled += !batch->blocks[i].settled;
    }
    for (unsigned s = 0; s < STATE_COUNT; s++)
        settled += batch->counts[s];
    check(remaining == batch->remaining && unsettled == batch->unsettled);
    check(settled <= batch->block_count * BLOCK_SLOTS);
    *all += remaining;
}

static void look_at_all(void)
{
    uint64_t remaining = 0, live = 0, rows = 0;
    open_set_each(&set, look_at_batch, &remaining);
    check(remaining == set.remaining && !set.failed && !folding.failed);
    list_for_each (l, tmp, &folding.streams) {
        list_for_each (r, next, &container_of(l, struct log_stream, link)->rows) {
            live += container_of(r, struct log_row, link)->live;
            rows++;
        }
    }
    check(live == folding.live && rows == folding.rows);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static uint64_t take_id(struct slice *in)
{
    return 1 + take_u8(in) % BATCHES;
}

static int64_t take_time(struct slice *in)
{
    uint8_t how = take_u8(in);
    if (how >= 254)
        return how == 255 ? INT64_MAX : INT64_MIN;
    return now_ms + how - 100;
}

/* As leader_load.c does with the rows of a batch. */
static void add(struct slice *in)
{
    uint64_t id = take_id(in);
    unsigned n = take_u8(in) % (BLOCKS_MAX + 1);
    struct {
        uint32_t block;
        unsigned first;
        struct slice targets, states;
    } rows[BLOCKS_MAX];
    size_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        uint8_t how = take_u8(in);
        rows[i].block = (uint32_t)(how & 3) + i;
        rows[i].first = how & 4 ? take_u16(in) : take_u8(in) * 8u;
        rows[i].targets = take_bytes(in, take_u8(in) % 140);
        rows[i].states = take_bytes(in, how & 8 ? rows[i].targets.len * 8 : how & 16 ? take_u16(in) : 0);
        bytes += rows[i].targets.len;
    }
    if (open_set_find(&set, id) || open_set_is_closed(&set, id))
        return;
    struct open_batch *batch = open_set_add(&set, id, n, bytes);
    check(batch);
    batch->tenant = TENANT;
    batch->created_ms = take_time(in);
    for (unsigned i = 0; i < n; i++)
        if (!open_batch_put(&set, batch, rows[i].block, rows[i].first, rows[i].targets, rows[i].states))
            continue;
}

static struct open_block *choose(struct slice *in)
{
    struct open_batch *batch = open_set_find(&set, take_id(in));
    return batch ? open_batch_block(batch, take_u8(in) & 7) : NULL;
}

static void take_log(struct slice *in)
{
    uint64_t stream = take_u8(in) % STREAMS, n = take_u8(in);
    int64_t at_ms = take_time(in);
    struct slice raw = take_bytes(in, take_u16(in) % 2000);
    struct buf made = {0};
    if (n & 1) { /* entries that mean something */
        struct slice rest = raw;
        ack_log_put_group(&made, take_id(&rest), TENANT, (uint32_t)(rest.len / 3));
        while (rest.len >= 3)
            ack_log_put_entry(&made, take_u16(&rest) % (8 * BLOCK_SLOTS), take_u8(&rest));
    }
    uint8_t *exact = copy_exactly(n & 1 ? buf_slice(&made) : raw);
    struct slice entries = {exact, n & 1 ? buf_len(&made) : raw.len};
    struct buf unknown = {0};
    fold_unknown(&set, entries, &unknown);
    (void)fold_take(&folding, &set, stream, n, at_ms, entries, now_ms);
    buf_free(&unknown);
    buf_free(&made);
    free(exact);
}

static void merge(struct slice *in)
{
    struct open_block *b = choose(in);
    int64_t at_ms = take_time(in);
    struct slice text = take_bytes(in, take_u16(in) % 1100);
    struct state_string s;
    if (!b || !state_string_parse(&s, text))
        return;
    if (open_block_merge_string(&set, b, &s, text.len & 2, at_ms) && !b->settled)
        fold_changed(&folding, b, text.len & 1, now_ms);
}

static void apply(struct slice *in)
{
    struct open_block *b = choose(in);
    unsigned event = take_u8(in) % EVENT_COUNT;
    if (b && open_block_apply(&set, b, (enum command_event)event, NULL, take_time(in)))
        fold_changed(&folding, b, true, now_ms);
}

/* As leader_fold.c: stores what is due, and settles what is complete. */
static void store(void)
{
    struct open_block *b;
    struct state_string s;
    struct buf string = {0};
    while ((b = fold_next(&folding))) {
        check(open_block_states(b).len == b->span && open_block_times(b).len == 4 * (size_t)b->span);
        touch(open_block_states(b));
        touch(open_block_times(b));
        open_block_string(b, &string);
        check(buf_len(&string) == 0 || state_string_parse(&s, buf_slice(&string)));
        buf_reset(&string);
        fold_stored(&folding, b);
        if (!b->remaining)
            open_block_settle(b);
    }
    buf_free(&string);
}

static void see_row(void *arg, int64_t at_ms, struct slice entries)
{
    struct ack_log_group g;
    (void)at_ms;
    check(entries.len > 0);
    while (entries.len > 0)
        check(ack_log_next(&entries, &g) == 1);
    ++*(uint64_t *)arg;
}

static void forget(void)
{
    int64_t streams[4], ns[4];
    check(fold_forget(&folding, streams, ns, 4) <= 4);
}

static void compact(void)
{
    uint64_t rows = 0;
    check(fold_compact(&folding, STREAMS, own_n, see_row, &rows));
    own_n += rows;
    forget();
}

static void close_batch(struct slice *in)
{
    struct open_batch *batch = open_set_find(&set, take_id(in));
    if (batch && !batch->remaining && !batch->unsettled)
        open_set_remove(&set, batch);
}

static void step(struct slice *in)
{
    uint8_t op = take_u8(in);
    struct open_block *b;
    switch (op % 11) {
    case 0:
    case 1:
        add(in);
        break;
    case 2:
    case 3:
        take_log(in);
        break;
    case 4:
        merge(in);
        break;
    case 5:
        apply(in);
        break;
    case 6:
        store();
        break;
    case 7:
        now_ms += op * 50;
        fold_age(&folding, now_ms);
        break;
    case 8:
        forget();
        break;
    case 9:
        compact();
        break;
    default:
        close_batch(in);
        if ((b = choose(in)))
            open_block_put_times(b, take_bytes(in, take_u16(in)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    open_set_init(&set);
    fold_init(&folding);
    now_ms = 1700000000000;
    own_n = 1;
    for (unsigned i = 0; i < 100 && in.len > 0; i++) {
        step(&in);
        if (i % 8 == 7)
            look_at_all();
    }
    look_at_all();
    fold_free(&folding);
    open_set_free(&set);
    return 0;
}
