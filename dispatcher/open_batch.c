#include "dispatcher/open_batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/owned.h"

#define BUCKETS_MIN 256

void open_set_init(struct open_set *set)
{
    memset(set, 0, sizeof *set);
    set->next_expiry_ms = INT64_MAX;
    open_counts_init(&set->open);
}

static void batch_free(struct open_batch *batch)
{
    for (uint32_t i = 0; i < batch->block_count; i++) {
        free(batch->blocks[i].cells);
        free(batch->blocks[i].refs);
    }
    free(batch->targets);
    free(batch->told);
    free(batch);
}

void open_set_free(struct open_set *set)
{
    for (size_t i = 0; i < set->bucket_count; i++)
        for (struct open_batch *b = set->buckets[i], *next; b; b = next) {
            next = b->next;
            batch_free(b);
        }
    free(set->buckets);
    open_counts_free(&set->open);
    open_set_init(set);
}

static struct open_batch **bucket(const struct open_set *set, uint64_t id)
{
    return &set->buckets[id & (set->bucket_count - 1)];
}

struct open_batch *open_set_find(const struct open_set *set, uint64_t id)
{
    if (!set->bucket_count)
        return NULL;
    struct open_batch *b = *bucket(set, id);
    while (b && b->id != id)
        b = b->next;
    return b;
}

void open_set_each(const struct open_set *set, void (*each)(void *arg, struct open_batch *batch), void *arg)
{
    for (size_t i = 0; i < set->bucket_count; i++)
        for (struct open_batch *b = set->buckets[i]; b; b = b->next)
            each(arg, b);
}

static bool grow(struct open_set *set)
{
    struct open_set bigger = {.bucket_count = set->bucket_count ? set->bucket_count * 2 : BUCKETS_MIN};
    bigger.buckets = calloc(bigger.bucket_count, sizeof *bigger.buckets);
    if (!bigger.buckets)
        return false;
    for (size_t i = 0; i < set->bucket_count; i++)
        for (struct open_batch *b = set->buckets[i], *next; b; b = next) {
            next = b->next;
            b->next = *bucket(&bigger, b->id);
            *bucket(&bigger, b->id) = b;
        }
    free(set->buckets);
    set->buckets = bigger.buckets;
    set->bucket_count = bigger.bucket_count;
    return true;
}

struct open_batch *open_set_add(struct open_set *set, uint64_t id, uint32_t blocks, size_t target_bytes)
{
    assert(!open_set_find(set, id));
    struct open_batch *batch = NULL;
    if (set->batches >= set->bucket_count && !grow(set))
        goto fail;
    batch = calloc(1, sizeof *batch + blocks * sizeof *batch->blocks);
    if (!batch || !(batch->targets = malloc(target_bytes ? target_bytes : 1)))
        goto fail;
    batch->id = id;
    list_init(&batch->queue);
    list_init(&batch->work);
    batch->next = *bucket(set, id);
    *bucket(set, id) = batch;
    set->batches++;
    return batch;
fail:
    free(batch);
    set->failed = true;
    return NULL;
}

/* Takes those of its commands that are not terminal out of the counts, or puts them in. */
static void count_open(struct open_set *set, struct open_block *b, bool in)
{
    for (unsigned slot = b->first; b->counts && b->remaining && slot < (unsigned)b->first + b->span; slot++) {
        uint8_t state = open_block_state(b, slot);
        if (!state || state_is_terminal(state_of(state)))
            continue;
        if (in)
            open_counts_add(&set->open, b->counts, slot);
        else
            open_counts_take(&set->open, b->counts, slot);
    }
}

void open_set_remove(struct open_set *set, struct open_batch *batch)
{
    assert(!batch->busy && list_empty(&batch->queue)); /* who counts what waits there takes it out */
    struct open_batch **at = bucket(set, batch->id);
    while (*at != batch)
        at = &(*at)->next;
    *at = batch->next;
    set->batches--;
    set->remaining -= batch->remaining;
    open_set_note_closed(set, batch->id);
    list_remove(&batch->work);
    for (uint32_t i = 0; i < batch->block_count; i++) {
        count_open(set, &batch->blocks[i], false);
        list_remove(&batch->blocks[i].link);
    }
    batch_free(batch);
}

void open_set_note_closed(struct open_set *set, uint64_t id)
{
    set->closed[id % OPEN_CLOSED_MEMORY] = id;
}

bool open_set_is_closed(const struct open_set *set, uint64_t id)
{
    return set->closed[id % OPEN_CLOSED_MEMORY] == id;
}

/* --- cells ------------------------------------------------------------------------------------------------------ */
static bool bit_is_set(const uint8_t *bits, unsigned i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static void set_bit(uint8_t *bits, unsigned i, bool on)
{
    unsigned bit = 1u << i % 8;
    bits[i / 8] = (uint8_t)(on ? bits[i / 8] | bit : bits[i / 8] & ~bit);
}

static uint8_t *cell_times(const struct open_block *b)
{
    return b->cells + b->span;
}

static uint8_t *cell_changed(const struct open_block *b)
{
    return b->cells + b->span + 4 * (size_t)b->span;
}

static uint8_t *cell_ended(const struct open_block *b)
{
    return cell_changed(b) + b->span / 8;
}

bool open_block_targets(const struct open_block *b, unsigned slot)
{
    unsigned i = slot - b->first;
    return slot >= b->first && i < b->span && bit_is_set(b->targets, i);
}

static bool make_cells(struct open_set *set, struct open_block *b)
{
    if (b->cells)
        return true;
    b->cells = calloc(1, (size_t)b->span * 5 + b->span / 4);
    if (!b->cells) {
        set->failed = true;
        return false;
    }
    for (unsigned i = 0; i < b->span; i++)
        if (open_block_targets(b, b->first + i))
            b->cells[i] = state_byte(STATE_QUEUED, 0);
    return true;
}

uint8_t open_block_state(const struct open_block *b, unsigned slot)
{
    if (!open_block_targets(b, slot))
        return 0;
    return b->cells ? b->cells[slot - b->first] : state_byte(STATE_QUEUED, 0);
}

static unsigned count_targets(const uint8_t *targets, size_t n)
{
    unsigned count = 0;
    for (size_t i = 0; i < n; i++)
        count += (unsigned)__builtin_popcount(targets[i]);
    return count;
}

/* Counts what is not terminal in stored states; also clears what the bitmap does not address. */
static unsigned count_remaining(struct open_block *b)
{
    unsigned n = 0;
    for (unsigned i = 0; i < b->span; i++) {
        if (!open_block_targets(b, b->first + i))
            b->cells[i] = 0;
        else if (!state_is_terminal(state_of(b->cells[i])))
            n++;
    }
    return n;
}

bool open_batch_put(struct open_set *set, struct open_batch *batch, uint32_t block, unsigned first,
                    struct slice targets, struct slice states)
{
    struct open_block *b = &batch->blocks[batch->block_count];
    size_t span = targets.len * 8;
    if (!targets.len || first % 8 || first + span > BLOCK_SLOTS || (states.len && states.len != span) ||
        (batch->block_count && b[-1].block >= block))
        return false;
    uint8_t *copy = batch->block_count ? (uint8_t *)(uintptr_t)b[-1].targets + b[-1].span / 8 : batch->targets;
    memcpy(copy, targets.data, targets.len);
    *b = (struct open_block){
        .batch = batch, .block = block, .first = (uint16_t)first, .span = (uint16_t)span, .targets = copy};
    list_init(&b->link);
    b->remaining = (uint16_t)count_targets(copy, targets.len);
    if (states.len) {
        if (!make_cells(set, b))
            return false;
        memcpy(b->cells, states.data, span);
        b->remaining = (uint16_t)count_remaining(b);
        for (unsigned i = 0; i < b->span; i++)
            b->put_back = (uint16_t)(b->put_back + (state_of(b->cells[i]) == STATE_HELD));
    }
    batch->block_count++;
    batch->unsettled++;
    batch->remaining += b->remaining;
    set->remaining += b->remaining;
    b->counts = open_counts_of(&set->open, batch->tenant, block);
    set->failed = set->failed || set->open.failed;
    if (b->counts && b->cells)
        count_open(set, b, true);
    else if (b->counts)
        open_counts_add_all(&set->open, b->counts, first, copy, targets.len);
    if (!b->remaining && b->cells)
        open_block_settle(b);
    return true;
}

void open_block_put_times(struct open_block *b, struct slice times)
{
    if (b->cells && times.len == 4 * (size_t)b->span)
        memcpy(cell_times(b), times.data, times.len);
}

struct open_block *open_batch_block(struct open_batch *batch, uint32_t block)
{
    uint32_t low = 0, high = batch->block_count;
    /* A batch to all has every block: then the first guess is right. */
    if (block < high && batch->blocks[block].block == block)
        return &batch->blocks[block];
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (batch->blocks[mid].block < block)
            low = mid + 1;
        else
            high = mid;
    }
    return low < batch->block_count && batch->blocks[low].block == block ? &batch->blocks[low] : NULL;
}

static void set_cell(struct open_set *set, struct open_block *b, unsigned i, uint8_t old, uint8_t state, int64_t at_ms)
{
    uint8_t *changed = cell_changed(b);
    b->cells[i] = state;
    b->put_back = (uint16_t)(b->put_back + (state_of(state) == STATE_HELD) - (state_of(old) == STATE_HELD));
    b->came_back = b->came_back || (state_of(state) < STATE_SENT && state_attempts(state));
    store_u32le(cell_times(b) + 4 * (size_t)i, block_time_since(b->batch->created_ms, at_ms));
    if (!bit_is_set(changed, i)) {
        set_bit(changed, i, true);
        b->dirty++;
    }
    if (state_is_terminal(state_of(state)) && !state_is_terminal(state_of(old))) {
        b->remaining--;
        b->batch->remaining--;
        set->remaining--;
        if (b->counts)
            open_counts_take(&set->open, b->counts, b->first + i);
    }
}

static bool merge(struct open_set *set, struct open_block *b, unsigned slot, uint8_t state, int64_t at_ms)
{
    if (b->settled || !open_block_targets(b, slot))
        return false;
    uint8_t old = open_block_state(b, slot), new = state_merge(old, state);
    if (new == old || !make_cells(set, b))
        return false;
    set_cell(set, b, slot - b->first, old, new, at_ms);
    return true;
}

bool open_block_merge(struct open_set *set, struct open_block *b, unsigned slot, uint8_t state, int64_t at_ms)
{
    bool over = state_is_terminal(state_of(open_block_state(b, slot)));
    if (!merge(set, b, slot, state, at_ms))
        return false;
    if (!over && state_is_terminal(state_of(state)))
        set_bit(cell_ended(b), slot - b->first, true);
    return true;
}

static bool is_outcome(enum command_state state)
{
    return state == STATE_SUCCEEDED || state == STATE_FAILED || state == STATE_REJECTED;
}

bool open_block_logged(struct open_set *set, struct open_block *b, unsigned slot, uint8_t state, int64_t at_ms)
{
    uint8_t old = open_block_state(b, slot);
    unsigned i = slot - b->first;
    bool ended = !b->settled && state_is_terminal(state_of(old)) && bit_is_set(cell_ended(b), i);
    if (!ended || is_outcome(state_of(old)) || !is_outcome(state_of(state)))
        return merge(set, b, slot, state, at_ms);
    set_cell(set, b, i, old, state_byte(state_of(state), state_attempts(state_merge(old, state))), at_ms);
    set_bit(cell_ended(b), i, false);
    return true;
}

unsigned open_block_merge_string(struct open_set *set, struct open_block *b, const struct state_string *s,
                                 bool overtaken, int64_t at_ms)
{
    unsigned changes = 0;
    for (unsigned i = 0; i < s->count; i++) {
        uint8_t state = s->states[i], old = open_block_state(b, s->first + i);
        bool held = state_of(state) == STATE_HELD, waits = held && b->batch->retry_after && state_waits(state, old);
        if (overtaken && state_of(state) == STATE_SENT && old == state_byte(STATE_QUEUED, state_attempts(state)))
            continue;
        if (state_of(state) == STATE_ROUTED || (held && !waits))
            state = state_byte(STATE_QUEUED, state_attempts(state));
        changes += open_block_merge(set, b, s->first + i, state, at_ms);
    }
    return changes;
}

void open_block_release(struct open_set *set, struct open_block *b, unsigned slot, int64_t at_ms)
{
    uint8_t old = open_block_state(b, slot);
    if (state_of(old) == STATE_HELD && b->cells)
        set_cell(set, b, slot - b->first, old, state_byte(STATE_QUEUED, state_attempts(old)), at_ms);
}

void open_block_put_back(struct open_set *set, struct open_block *b, const struct state_string *s,
                         const struct bitmap *only, int64_t at_ms)
{
    for (unsigned slot = bitmap_next(only, 0); slot < BLOCK_SLOTS; slot = bitmap_next(only, slot + 1))
        if (state_of(state_string_get(s, slot)) == STATE_HELD)
            open_block_merge(set, b, slot, state_string_get(s, slot), at_ms);
}

unsigned open_block_apply(struct open_set *set, struct open_block *b, enum command_event event,
                          const struct bitmap *only, int64_t at_ms)
{
    unsigned changes = 0;
    for (unsigned slot = b->first; slot < (unsigned)b->first + b->span; slot++) {
        uint8_t old = only && !bitmap_test(only, slot) ? 0 : open_block_state(b, slot);
        enum command_state next = state_next(state_of(old), event);
        if (next != STATE_NONE)
            changes += open_block_merge(set, b, slot, state_byte(next, state_attempts(old)), at_ms);
    }
    return changes;
}

struct bitmap open_block_bitmap(const struct open_block *b)
{
    struct bitmap targets = {{0}};
    memcpy(targets.bytes + b->first / 8, b->targets, b->span / 8);
    return targets;
}

void open_block_string(const struct open_block *b, struct buf *out)
{
    struct bitmap targets = open_block_bitmap(b);
    size_t start = buf_len(out);
    enum command_state unsent = b->batch->held ? STATE_HELD : STATE_QUEUED;
    state_string_put(out, &targets, state_byte(unsent, 0));
    if (!b->cells || out->failed)
        return;
    unsigned first = bitmap_next(&targets, 0);
    uint8_t *p = buf_head(out) + start + STATE_STRING_HEADER;
    for (unsigned slot = first; slot < BLOCK_SLOTS; slot = bitmap_next(&targets, slot + 1)) {
        uint8_t state = b->cells[slot - b->first];
        if (state_of(state) < STATE_SENT)
            state = state_byte(unsent, state_attempts(state));
        p[slot - first] = state;
    }
}

struct slice open_block_states(const struct open_block *b)
{
    return (struct slice){b->cells, b->span};
}

struct slice open_block_times(const struct open_block *b)
{
    return (struct slice){cell_times(b), 4 * (size_t)b->span};
}

bool open_block_is_dirty(const struct open_block *b, unsigned slot)
{
    unsigned i = slot - b->first;
    return b->cells && slot >= b->first && i < b->span && bit_is_set(cell_changed(b), i);
}

unsigned open_block_next_dirty(const struct open_block *b, unsigned from)
{
    const uint8_t *changed = b->cells ? cell_changed(b) : NULL;
    for (unsigned i = from > b->first ? from - b->first : 0; changed && i < b->span; i++)
        if (bit_is_set(changed, i))
            return b->first + i;
    return BLOCK_SLOTS;
}

int64_t open_block_time(const struct open_block *b, unsigned slot)
{
    return block_time_at(b->batch->created_ms, load_u32le(cell_times(b) + 4 * (size_t)(slot - b->first)));
}

void open_block_clean(struct open_block *b)
{
    if (b->cells)
        memset(cell_changed(b), 0, b->span / 4); /* and what was ended here, behind it */
    b->dirty = 0;
}

void open_block_settle(struct open_block *b)
{
    assert(!b->settled && !b->remaining && !b->dirty);
    state_count(b->batch->counts, b->cells, b->span);
    b->batch->counts[STATE_NONE] = 0;
    if (!b->batch->keep_cells) {
        free(b->cells);
        b->cells = NULL;
    }
    b->settled = true;
    b->batch->unsettled--;
}

/* --- growing ----------------------------------------------------------------------------------------------------- */

/* Devices that may join before a batch must be read anew: a million. Memory that is not used costs nothing. */
#define ROOM_BLOCKS 1024

static void make_block(struct open_batch *batch, uint32_t i)
{
    struct open_block *b = &batch->blocks[i];
    *b = (struct open_block){
        .batch = batch, .block = i, .span = BLOCK_SLOTS, .targets = batch->targets + (size_t)i * BITMAP_BYTES};
    list_init(&b->link);
}

struct open_batch *open_set_add_growing(struct open_set *set, uint64_t id, uint32_t blocks)
{
    uint32_t room = blocks + ROOM_BLOCKS;
    struct open_batch *batch = open_set_add(set, id, room, 0);
    uint8_t *targets = batch ? calloc(room, BITMAP_BYTES) : NULL;
    if (!targets) {
        set->failed = true;
        return NULL; /* the set is not used any more */
    }
    free(batch->targets);
    batch->targets = targets;
    owned(targets);
    batch->growing = true;
    batch->block_room = room;
    return open_batch_extend(batch, blocks) ? batch : NULL;
}

bool open_batch_extend(struct open_batch *batch, uint32_t blocks)
{
    bool passed =
        batch->route_next == batch->block_count; /* who has routed all has routed these: nobody is there yet */
    if (blocks > batch->block_room)
        return false;
    for (; batch->block_count < blocks; batch->block_count++) {
        make_block(batch, batch->block_count);
        batch->unsettled++;
    }
    if (passed)
        batch->route_next = batch->block_count;
    return true;
}

unsigned open_block_join(struct open_set *set, struct open_block *b, const struct bitmap *slots, int64_t at_ms)
{
    uint8_t *targets = b->batch->targets + (size_t)b->block * BITMAP_BYTES;
    unsigned n = 0;
    b->counts = open_counts_of(&set->open, b->batch->tenant, b->block);
    set->failed = set->failed || set->open.failed;
    for (unsigned slot = bitmap_next(slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(slots, slot + 1)) {
        if (bit_is_set(targets, slot))
            continue;
        set_bit(targets, slot, true);
        if (b->cells && at_ms)
            set_cell(set, b, slot, 0, state_byte(STATE_QUEUED, 0), at_ms);
        else if (b->cells)
            b->cells[slot] = state_byte(STATE_QUEUED, 0);
        if (b->counts)
            open_counts_add(&set->open, b->counts, slot);
        n++;
    }
    b->remaining = (uint16_t)(b->remaining + n);
    b->batch->remaining += n;
    set->remaining += n;
    return n;
}

bool open_batch_place(struct open_set *set, struct open_batch *batch, uint32_t block, unsigned first,
                      struct slice targets, struct slice states)
{
    struct bitmap whole;
    if (block >= batch->block_count || !bitmap_untrim(&whole, first, targets) ||
        (states.len && states.len != 8 * targets.len))
        return false;
    struct open_block *b = &batch->blocks[block];
    open_block_join(set, b, &whole, 0);
    if (!states.len || !make_cells(set, b))
        return !states.len;
    for (size_t i = 0; i < states.len; i++)
        if (state_of(states.data[i])) { /* who has just joined may have none */
            b->cells[first + i] = states.data[i];
            b->put_back = (uint16_t)(b->put_back + (state_of(states.data[i]) == STATE_HELD));
            if (b->counts && state_is_terminal(state_of(states.data[i])) && open_block_targets(b, first + (unsigned)i))
                open_counts_take(&set->open, b->counts, first + (unsigned)i);
        }
    unsigned was = b->remaining;
    b->remaining = (uint16_t)count_remaining(b);
    batch->remaining -= was - b->remaining;
    set->remaining -= was - b->remaining;
    return true;
}

void open_batch_seal(struct open_batch *batch)
{
    if (!batch->growing)
        return;
    batch->growing = false;
    for (uint32_t i = 0; i < batch->block_count; i++) {
        struct open_block *b = &batch->blocks[i];
        if (b->settled || b->remaining || b->dirty)
            continue;
        if (b->cells) {
            open_block_settle(b);
        } else { /* nobody is there */
            b->settled = true;
            batch->unsettled--;
        }
    }
}
