#include "dispatcher/commands.h"

#include <inttypes.h>
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/page_token.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_device.h"
#include "proto/command_id.h"

/* Blocks looked through at a time: a rare state can be far away. */
#define BLOCKS_AT_ONCE 32

struct found {
    uint32_t seq, time;
    uint8_t state;
};

/* ListCommands, and GetCommand as a list of one. */
struct commands {
    struct request r;
    bool single;
    int64_t batch;
    uint32_t wanted; /* bit per state */
    uint32_t limit;
    int64_t after; /* seq; or the one seq when single */
    struct page_filter filter;
    struct view_batch view;
    int32_t *blocks;
    size_t block_count, next_block;
    struct found *found; /* one more than limit, so that the end is known */
    uint32_t count;
};

static void command_not_found(struct commands *c)
{
    if (c->single)
        request_refuse(&c->r, STATUS_NOT_FOUND, "COMMAND_NOT_FOUND", "there is no such command");
    else
        request_refuse(&c->r, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "there is no batch %" PRId64, c->batch);
}

static const char *id_of(const struct pg_result *ids, uint32_t seq, int *row)
{
    while (*row < pg_rows(ids) && pg_int(ids, *row, 0) < seq)
        ++*row;
    return *row < pg_rows(ids) && pg_int(ids, *row, 0) == seq ? pg_text(ids, *row, 1) : "";
}

/* Results: ids, results of devices, both in order of seq. */
static void on_details(struct request *r, const struct pg_result *const *results)
{
    struct commands *c = (struct commands *)r;
    uint32_t n = c->count < c->limit ? c->count : c->limit;
    int said = pg_rows(results[1]), id_row = 0, result_row = 0;
    bool more = c->count > n;
    /* Results beyond the page's bytes were left out: the page ends with the last that is there. */
    if (said && pg_int(results[1], 0, 2) > said) {
        int64_t last = pg_int(results[1], said - 1, 0);
        while (n && c->found[n - 1].seq > last)
            n--;
        more = true;
    }
    Muster__V1__CommandStatus **list = request_alloc(r, n, sizeof *list);
    for (uint32_t i = 0; list && i < n; i++) {
        struct present_command p = {.tenant = r->tenant,
                                    .batch = c->batch,
                                    .created_ms = c->view.created_ms,
                                    .seq = c->found[i].seq,
                                    .time = c->found[i].time,
                                    .state = c->found[i].state};
        p.device_id = id_of(results[0], p.seq, &id_row);
        while (result_row < said && pg_int(results[1], result_row, 0) < p.seq)
            result_row++;
        if (result_row < said && pg_int(results[1], result_row, 0) == p.seq)
            p.result = pg_bytes(results[1], result_row, 1);
        list[i] = present_command(&r->arena, &p);
    }
    if (c->single) {
        Muster__V1__GetCommandResponse out = MUSTER__V1__GET_COMMAND_RESPONSE__INIT;
        out.command = list ? list[0] : NULL;
        request_reply(r, &out.base);
        return;
    }
    Muster__V1__ListCommandsResponse out = MUSTER__V1__LIST_COMMANDS_RESPONSE__INIT;
    char token[PAGE_TOKEN_MAX];
    if (more && n) {
        page_token_write(token, &c->filter, c->found[n - 1].seq, NULL);
        out.next_page_token = token;
    }
    out.commands = list;
    out.n_commands = n;
    request_reply(r, &out.base);
}

static void ask_details(struct commands *c)
{
    uint32_t n = c->count < c->limit ? c->count : c->limit;
    if (c->single && !n) {
        command_not_found(c);
        return;
    }
    int32_t *seqs = request_alloc(&c->r, n, sizeof *seqs);
    if (!seqs) {
        request_store_failed(&c->r, ERR_NOMEM, NULL);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        seqs[i] = (int32_t)c->found[i].seq;
    struct pg_txn *txn = request_txn(&c->r);
    db_device_ids(txn, c->r.tenant, seqs, n);
    db_batch_results(txn, c->batch, seqs, n, PAGE_BYTES);
    request_query(&c->r, txn, on_details);
}

static bool wanted(const struct commands *c, uint32_t seq, uint8_t state)
{
    if (c->single)
        return seq == c->after;
    return seq > c->after && (!c->wanted || c->wanted >> state_of(state) & 1);
}

static void look_on(struct commands *c);

static void on_blocks(void *arg, enum err err, struct view_block *blocks, size_t n)
{
    struct commands *c = arg;
    if (err != ERR_OK) {
        request_store_failed(&c->r, err, NULL);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const struct view_block *b = &blocks[i];
        for (unsigned slot = bitmap_next(&b->targets, 0); slot < BLOCK_SLOTS && c->count <= c->limit;
             slot = bitmap_next(&b->targets, slot + 1)) {
            uint32_t seq = block_seq(b->block, slot);
            if (wanted(c, seq, b->states[slot]))
                c->found[c->count++] = (struct found){seq, b->times[slot], b->states[slot]};
        }
    }
    if (c->count > c->limit || c->next_block == c->block_count)
        ask_details(c);
    else
        look_on(c);
}

static void look_on(struct commands *c)
{
    size_t n = c->block_count - c->next_block;
    if (n > BLOCKS_AT_ONCE)
        n = BLOCKS_AT_ONCE;
    const int32_t *blocks = c->blocks + c->next_block;
    c->next_block += n;
    view_load(c->r.d, &c->view, blocks, n, on_blocks, c);
}

/* Keeps the blocks that can have what is wanted. False without memory. */
static bool keep_blocks(struct commands *c, const struct pg_result *list)
{
    size_t n = pg_int_array(list, 0, 0, NULL, 0);
    int64_t *wide = request_alloc(&c->r, n, sizeof *wide);
    c->blocks = request_alloc(&c->r, n, sizeof *c->blocks);
    c->found = request_alloc(&c->r, c->limit + 1, sizeof *c->found);
    if (!wide || !c->blocks || !c->found)
        return false;
    pg_int_array(list, 0, 0, wide, n);
    for (size_t i = 0; i < n; i++) {
        bool has = c->single ? wide[i] == c->after / BLOCK_SLOTS : (wide[i] + 1) * BLOCK_SLOTS > c->after + 1;
        if (has)
            c->blocks[c->block_count++] = (int32_t)wide[i];
    }
    return true;
}

/* Results: the batch, its blocks. */
static void on_batch(struct request *r, const struct pg_result *const *results)
{
    struct commands *c = (struct commands *)r;
    if (!pg_rows(results[0])) {
        command_not_found(c);
        return;
    }
    struct db_batch row;
    db_batch_read(results[0], 0, &row);
    c->view = batches_view(r->tenant, &row);
    if (!keep_blocks(c, results[1]))
        request_store_failed(r, ERR_NOMEM, NULL);
    else if (!c->block_count)
        ask_details(c);
    else
        look_on(c);
}

static void ask_batch(struct commands *c)
{
    struct pg_txn *txn = request_txn(&c->r);
    db_batch_get(txn, c->r.tenant, c->batch);
    db_batch_blocks(txn, c->batch);
    request_query(&c->r, txn, on_batch);
}

/* A bit per state; 0 for any, which is also what the filter "unspecified" means. */
static uint32_t filter_of(struct status *st, const Muster__V1__ListCommandsRequest *in)
{
    uint32_t states = 0;
    bool any = in->n_states == 0;
    for (size_t i = 0; i < in->n_states; i++) {
        validate_enum(st, "states", &muster__v1__command_state__descriptor, (int)in->states[i], true);
        any |= in->states[i] == 0;
        if ((unsigned)in->states[i] < STATE_COUNT)
            states |= 1u << in->states[i];
    }
    return any ? 0 : states;
}

void list_commands(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ListCommandsRequest *in = (const Muster__V1__ListCommandsRequest *)request;
    struct commands *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct status st = {0};
    struct page_token token;
    validate_number(&st, "batch_id", in->batch_id);
    c->batch = in->batch_id;
    c->limit = validate_page_size(&st, in->page_size, 1000, 10000);
    c->wanted = filter_of(&st, in);
    c->filter = page_filter_new(grpc_call_method(call)->path, c->r.tenant);
    page_filter_add_int(&c->filter, c->batch);
    page_filter_add_int(&c->filter, c->wanted);
    page_token_read(&token, &st, &c->filter, in->page_token, -1);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    c->after = token.after;
    ask_batch(c);
}

void get_command(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__GetCommandRequest *in = (const Muster__V1__GetCommandRequest *)request;
    struct commands *c = request_begin(call, service, sizeof *c);
    if (!c)
        return;
    struct command_id id;
    struct status st = {0};
    c->single = true;
    c->limit = 1;
    if (!command_id_read(&id, in->command_id, strlen(in->command_id))) {
        status_violation(&st, "command_id", "is no command id");
        request_fail(&c->r, &st);
    } else if (id.tenant != (uint32_t)c->r.tenant) {
        command_not_found(c);
    } else {
        c->batch = (int64_t)id.batch;
        c->after = id.seq;
        ask_batch(c);
    }
}
