/* ListDeviceCommands: one device's history; declared in commands.h. */
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/commands.h"
#include "dispatcher/page_token.h"
#include "dispatcher/pending.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "dispatcher/view.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_device.h"
#include "lib/store/live.h"
#include "proto/ack_log.h"

struct history;

struct entry {
    struct history *h;
    struct present_command command;
    bool open;
    const struct pending_command *pending; /* what keeps it; NULL: nothing */
};

struct history {
    struct request r;
    const char *device_id;
    uint32_t seq, limit;
    int64_t before;
    struct page_filter filter;
    struct entry *entries; /* newest first */
    size_t count, waiting; /* answers of Redis */
    bool more;
    struct pending_command *pending; /* of those that have not ended */
    size_t pending_count;
};

static void reply(struct history *h)
{
    Muster__V1__ListDeviceCommandsResponse out = MUSTER__V1__LIST_DEVICE_COMMANDS_RESPONSE__INIT;
    Muster__V1__CommandStatus **list = request_alloc(&h->r, h->count, sizeof *list);
    char token[PAGE_TOKEN_MAX];
    for (size_t i = 0; list && i < h->count; i++) {
        const struct pending_command *p = h->entries[i].pending;
        list[i] = present_command(&h->r.arena, &h->entries[i].command);
        if (!list[i] || !p)
            continue;
        list[i]->pending = p->list;
        list[i]->n_pending = p->count;
        list[i]->expires_at = present_time(&h->r.arena, p->expires_ms);
    }
    if (h->more && h->count) {
        page_token_write(token, &h->filter, h->entries[h->count - 1].command.batch, NULL);
        out.next_page_token = token;
    }
    out.commands = list;
    out.n_commands = h->count;
    request_reply(&h->r, &out.base);
}

/* --- what keeps those that have not ended ------------------------------------------------------------------------- */

static void on_pending(void *arg, enum err err, const struct pg_error *error)
{
    struct history *h = arg;
    if (err != ERR_OK)
        request_store_failed(&h->r, err, error);
    else
        reply(h);
}

static void ask_pending(struct history *h)
{
    h->pending = request_alloc(&h->r, h->count, sizeof *h->pending);
    for (size_t i = 0; h->pending && i < h->count; i++) {
        struct entry *e = &h->entries[i];
        const struct present_command *c = &e->command;
        if (!e->open || state_is_terminal(state_of(c->state)))
            continue;
        struct pending_command *p = &h->pending[h->pending_count++];
        *p = (struct pending_command){
            .batch = c->batch, .state = c->state, .at_ms = c->time ? block_time_at(c->created_ms, c->time) : 0};
        e->pending = p;
    }
    if (h->pending_count)
        pending_find(h->r.d, &h->r.arena, h->r.tenant, h->seq, h->pending, h->pending_count, on_pending, h);
    else
        reply(h);
}

/* --- Redis -------------------------------------------------------------------------------------------------------- */

static void on_state(void *arg, enum err err, const struct slice *states, size_t count)
{
    struct entry *e = arg;
    struct state_string s;
    if (err == ERR_OK && count == 1 && state_string_parse(&s, states[0])) {
        uint8_t state = state_string_get(&s, slot_of(e->command.seq));
        if (state)
            e->command.state = state_merge(e->command.state, state);
    }
    if (--e->h->waiting == 0)
        ask_pending(e->h);
}

static void ask_redis(struct history *h)
{
    uint32_t block = block_of(h->seq);
    /* One more, so that nothing is answered before all is asked. */
    h->waiting = 1;
    for (size_t i = 0; i < h->count && live_up(h->r.d->live); i++) {
        if (!h->entries[i].open)
            continue;
        h->waiting++;
        live_states(h->r.d->live, (uint32_t)h->r.tenant, (uint64_t)h->entries[i].command.batch, &block, 1, on_state,
                    &h->entries[i]);
    }
    if (--h->waiting == 0)
        ask_pending(h);
}

static struct entry *find(struct history *h, uint64_t batch)
{
    size_t low = 0, high = h->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if ((uint64_t)h->entries[mid].command.batch > batch)
            low = mid + 1;
        else
            high = mid;
    }
    return low < h->count && (uint64_t)h->entries[low].command.batch == batch ? &h->entries[low] : NULL;
}

static void apply_log(struct history *h, const struct pg_result *log)
{
    for (int row = 0; row < pg_rows(log); row++) {
        struct slice entries = pg_bytes(log, row, 1);
        struct ack_log_group g;
        while (ack_log_next(&entries, &g) == 1) {
            struct entry *e = g.tenant == (uint32_t)h->r.tenant ? find(h, g.batch) : NULL;
            for (uint32_t i = 0; e && i < g.count; i++)
                if (ack_log_seq(&g, i) == h->seq)
                    view_log_entry(&e->command.state, &e->command.time, ack_log_state(&g, i), pg_int(log, row, 0),
                                   e->command.created_ms);
        }
    }
}

/* Copies what outlives the rows. */
static void keep_row(struct history *h, const struct pg_result *r, int i)
{
    struct db_device_command row;
    db_device_command_read(r, i, &row);
    struct entry *e = &h->entries[h->count++];
    e->h = h;
    e->open = !row.closed_ms;
    e->command = (struct present_command){.tenant = h->r.tenant,
                                          .batch = row.batch,
                                          .created_ms = row.created_ms,
                                          .seq = h->seq,
                                          .time = row.time,
                                          .state = row.state ? row.state : state_byte(STATE_QUEUED, 0),
                                          .device_id = h->device_id};
    if (row.result.len)
        e->command.result =
            (struct slice){(const uint8_t *)arena_copy(&h->r.arena, row.result.data, row.result.len), row.result.len};
    if (row.result.len && !e->command.result.data)
        e->command.result.len = 0;
    h->more = row.total > (int64_t)h->count;
}

/* Results: the log, the commands. */
static void on_commands(struct request *r, const struct pg_result *const *results)
{
    struct history *h = (struct history *)r;
    size_t n = (size_t)pg_rows(results[1]);
    if (n > h->limit)
        n = h->limit;
    h->entries = request_alloc(r, n, sizeof *h->entries);
    if (!h->entries) {
        request_store_failed(r, ERR_NOMEM, NULL);
        return;
    }
    for (size_t i = 0; i < n; i++)
        keep_row(h, results[1], (int)i);
    apply_log(h, results[0]);
    ask_redis(h);
}

static void on_device(struct request *r, const struct pg_result *const *results)
{
    struct history *h = (struct history *)r;
    if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_NOT_FOUND, "DEVICE_NOT_FOUND", "there is no device %s", h->device_id);
        return;
    }
    struct db_device device;
    db_device_read(results[0], 0, &device);
    h->seq = device.seq;
    struct pg_txn *txn = request_txn(r);
    db_device_log(txn, h->seq);
    db_device_commands(txn, r->tenant, h->seq, h->before, (int32_t)h->limit + 1, PAGE_BYTES);
    request_query(r, txn, on_commands);
}

void list_device_commands(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListDeviceCommandsRequest *in = (const Muster__V1__ListDeviceCommandsRequest *)request;
    struct history *h = request_begin(call, service, sizeof *h);
    if (!h)
        return;
    struct status st = {0};
    struct page_token token;
    grpc_call_take_request(call);
    h->device_id = in->device_id;
    validate_id(&st, "device_id", in->device_id);
    h->limit = validate_page_size(&st, in->page_size, 100, 1000);
    h->filter = page_filter_new(grpc_call_method(call)->path, h->r.tenant);
    page_filter_add(&h->filter, in->device_id, strlen(in->device_id));
    page_token_read(&token, &st, &h->filter, "page_token", in->page_token, INT64_MAX);
    if (st.code != STATUS_OK) {
        request_fail(&h->r, &st);
        return;
    }
    h->before = token.after;
    struct pg_txn *txn = request_txn(&h->r);
    db_device_get(txn, h->r.tenant, in->device_id);
    request_query(&h->r, txn, on_device);
}
