#include "dispatcher/found.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/validate.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_device.h"
#include "muster/v1/command_service.pb-c.h"
#include "proto/command_status.h"

/* Numbers of both answers' fields. */
#define FIELD_COMMANDS 1
#define FIELD_TOKEN    2
/* Fetching so many devices too much costs less than another range of the index. */
#define GAP 8

uint32_t found_states(struct status *st, const Muster__V1__CommandState *states, size_t n)
{
    uint32_t bits = 0;
    bool any = n == 0;
    for (size_t i = 0; i < n; i++) {
        validate_enum(st, "states", &muster__v1__command_state__descriptor, (int)states[i], true);
        any |= states[i] == 0;
        if ((unsigned)states[i] < STATE_COUNT)
            bits |= 1u << states[i];
    }
    return any ? 0 : bits;
}

size_t found_add(struct found *list, size_t n, size_t max, const struct view_block *b,
                 const struct found_filter *filter)
{
    for (unsigned slot = bitmap_next(&b->targets, 0); slot < BLOCK_SLOTS && n < max;
         slot = bitmap_next(&b->targets, slot + 1)) {
        uint32_t seq = block_seq(b->block, slot);
        if (seq > filter->after && seq <= filter->last &&
            (!filter->states || filter->states >> state_of(b->states[slot]) & 1))
            list[n++] = (struct found){seq, b->times[slot], b->states[slot]};
    }
    return n;
}

bool found_ask(struct pg_txn *txn, const struct view_batch *batch, const struct found *list, size_t n)
{
    int32_t *firsts = malloc(n * sizeof *firsts), *lasts = malloc(n * sizeof *lasts);
    size_t runs = 0;
    for (size_t i = 0; firsts && lasts && i < n; i++) {
        int32_t seq = (int32_t)list[i].seq;
        if (!runs || seq - lasts[runs - 1] > GAP)
            firsts[runs++] = seq;
        lasts[runs - 1] = seq;
    }
    if (runs) {
        db_device_ids(txn, batch->tenant, firsts, lasts, runs);
        db_batch_results(txn, batch->id, firsts, lasts, runs, PAGE_BYTES);
    }
    free(firsts);
    free(lasts);
    return runs > 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

struct id_reader {
    const struct found *list;
    size_t n, at;
    struct slice *ids; /* one for each of the list */
    struct slice rest; /* of the text */
};

static struct slice next_id(struct slice *rest)
{
    const uint8_t *comma = rest->len ? memchr(rest->data, ',', rest->len) : NULL;
    struct slice id = {rest->data, comma ? (size_t)(comma - rest->data) : rest->len};
    size_t used = id.len + (comma ? 1 : 0);
    rest->data += used;
    rest->len -= used;
    return id;
}

static size_t lower_bound(const struct found *list, size_t n, uint32_t seq)
{
    size_t low = 0;
    while (low < n) {
        size_t mid = low + (n - low) / 2;
        if (list[mid].seq < seq)
            low = mid + 1;
        else
            n = mid;
    }
    return low;
}

/* Numbers come in order, and with them some that were not asked for. */
static void take_id(void *arg, struct slice number)
{
    struct id_reader *r = arg;
    struct slice id = next_id(&r->rest);
    uint32_t seq;
    if (!slice_u32be(&number, &seq))
        return;
    if (r->at == r->n || r->list[r->at].seq < seq || (r->at && r->list[r->at - 1].seq >= seq))
        r->at = lower_bound(r->list, r->n, seq);
    if (r->at < r->n && r->list[r->at].seq == seq)
        r->ids[r->at++] = id;
}

/* How many of the list can be told: results beyond the bytes of a page were left out. The first always is, or nobody
 * would come past it. */
static size_t told(const struct found *list, size_t n, const struct pg_result *said)
{
    int rows = pg_rows(said);
    if (!rows || pg_int(said, 0, 2) <= rows)
        return n;
    size_t before = lower_bound(list, n, (uint32_t)pg_int(said, rows - 1, 0) + 1);
    return before || !n ? before : 1;
}

static struct slice result_of(const struct pg_result *said, uint32_t seq, int *row)
{
    while (*row < pg_rows(said) && pg_int(said, *row, 0) < seq)
        ++*row;
    return *row < pg_rows(said) && pg_int(said, *row, 0) == seq ? pg_bytes(said, *row, 1) : (struct slice){0};
}

/* A time is told for what is final or sent: "back in the queue" has none. */
static int64_t updated_ms(const struct view_batch *batch, const struct found *f)
{
    enum command_state state = state_of(f->state);
    return f->time && (state_is_terminal(state) || state == STATE_SENT) ? block_time_at(batch->created_ms, f->time) : 0;
}

size_t found_put(struct buf *out, const struct view_batch *batch, const struct found *list, size_t n,
                 const struct pg_result *const *results, struct slice more)
{
    struct id_reader reader = {.list = list, .n = n, .rest = pg_bytes(results[0], 0, 1)};
    reader.ids = calloc(n ? n : 1, sizeof *reader.ids);
    if (!reader.ids) {
        out->failed = true;
        return 0;
    }
    pg_bytes_array(results[0], 0, 0, take_id, &reader);
    int row = 0;
    n = told(list, n, results[1]);
    for (size_t i = 0; i < n; i++)
        command_status_put(out, FIELD_COMMANDS,
                           &(struct command_status){.id = {(uint64_t)batch->id, (uint32_t)batch->tenant, list[i].seq},
                                                    .device_id = reader.ids[i],
                                                    .state = (uint8_t)state_of(list[i].state),
                                                    .attempts = (uint8_t)state_attempts(list[i].state),
                                                    .updated_ms = updated_ms(batch, &list[i]),
                                                    .result = result_of(results[1], list[i].seq, &row),
                                                    .more = more});
    free(reader.ids);
    return out->failed ? 0 : n;
}

void found_put_token(struct buf *out, const char *token)
{
    size_t len = strlen(token);
    if (!len)
        return;
    buf_put_u8(out, FIELD_TOKEN << 3 | 2);
    for (size_t left = len;; left >>= 7) {
        buf_put_u8(out, (uint8_t)(left < 0x80 ? left : (left | 0x80)));
        if (left < 0x80)
            break;
    }
    buf_put_str(out, token);
}
