#include "dispatcher/commands.h"

#include <inttypes.h>
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/found.h"
#include "dispatcher/page_token.h"
#include "dispatcher/pending.h"
#include "dispatcher/present.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/store/db_batch.h"
#include "proto/command_id.h"

/* Blocks looked through at a time: a rare state can be far away. */
#define BLOCKS_AT_ONCE 32

/* ListCommands, and GetCommand as a list of one. */
struct commands {
    struct request r;
    bool single;
    int64_t batch;
    struct found_filter wanted;
    uint32_t limit;
    struct page_filter filter;
    struct view_batch view;
    int32_t *blocks;
    size_t block_count, next_block;
    struct found *found; /* one more than limit, so that the end is known */
    size_t count;
    struct pending_command pending; /* of a single one */
    struct slice more;              /* the same, encoded */
};

static void command_not_found(struct commands *c)
{
    if (c->single)
        request_refuse(&c->r, STATUS_NOT_FOUND, "COMMAND_NOT_FOUND", "there is no such command");
    else
        request_refuse(&c->r, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "there is no batch %" PRId64, c->batch);
}

static void on_details(struct request *r, const struct pg_result *const *results)
{
    struct commands *c = (struct commands *)r;
    struct buf out = {0};
    char token[PAGE_TOKEN_MAX];
    size_t n = c->count < c->limit ? c->count : c->limit,
           told = found_put(&out, &c->view, c->found, n, results, c->more);
    if (!c->single && told && told < c->count) {
        page_token_write(token, &c->filter, c->found[told - 1].seq, NULL);
        found_put_token(&out, token);
    }
    request_reply_bytes(r, &out);
    buf_free(&out);
}

static void ask_details(struct commands *c)
{
    size_t n = c->count < c->limit ? c->count : c->limit;
    if (!n && c->single) {
        command_not_found(c);
        return;
    }
    if (!n) {
        request_reply_bytes(&c->r, &(struct buf){0});
        return;
    }
    struct pg_txn *txn = request_txn(&c->r);
    if (!txn || !found_ask(txn, &c->view, c->found, n)) {
        pg_txn_free(&txn);
        request_store_failed(&c->r, ERR_NOMEM, NULL);
        return;
    }
    request_query(&c->r, txn, on_details);
}

/* --- what keeps a single one -------------------------------------------------------------------------------------- */

static void on_pending(void *arg, enum err err, const struct pg_error *error)
{
    struct commands *c = arg;
    if (err != ERR_OK) {
        request_store_failed(&c->r, err, error);
        return;
    }
    Muster__V1__CommandStatus more = MUSTER__V1__COMMAND_STATUS__INIT;
    more.pending = c->pending.list;
    more.n_pending = c->pending.count;
    more.expires_at = present_time(&c->r.arena, c->pending.expires_ms);
    uint8_t *bytes = request_alloc(&c->r, muster__v1__command_status__get_packed_size(&more), 1);
    if (bytes)
        c->more = (struct slice){bytes, muster__v1__command_status__pack(&more, bytes)};
    ask_details(c);
}

static void ask_pending(struct commands *c)
{
    const struct found *f = &c->found[0];
    c->pending = (struct pending_command){
        .batch = c->batch, .state = f->state, .at_ms = f->time ? block_time_at(c->view.created_ms, f->time) : 0};
    pending_find(c->r.d, &c->r.arena, c->r.tenant, f->seq, &c->pending, 1, on_pending, c);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static void look_on(struct commands *c);

static void on_blocks(void *arg, enum err err, struct view_block *blocks, size_t n)
{
    struct commands *c = arg;
    if (err != ERR_OK) {
        request_store_failed(&c->r, err, NULL);
        return;
    }
    for (size_t i = 0; i < n; i++)
        c->count = found_add(c->found, c->count, c->limit + 1, &blocks[i], &c->wanted);
    if (c->count <= c->limit && c->next_block < c->block_count)
        look_on(c);
    else if (c->single && c->count && !state_is_terminal(state_of(c->found[0].state)))
        ask_pending(c);
    else
        ask_details(c);
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
        if ((wide[i] + 1) * BLOCK_SLOTS > c->wanted.after + 1 && wide[i] * BLOCK_SLOTS <= c->wanted.last)
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
    c->wanted = (struct found_filter){.states = found_states(&st, in->states, in->n_states), .last = UINT32_MAX};
    c->filter = page_filter_new(grpc_call_method(call)->path, c->r.tenant);
    page_filter_add_int(&c->filter, c->batch);
    page_filter_add_int(&c->filter, c->wanted.states);
    page_token_read(&token, &st, &c->filter, "page_token", in->page_token, -1);
    if (st.code != STATUS_OK) {
        request_fail(&c->r, &st);
        return;
    }
    c->wanted.after = token.after;
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
        c->wanted = (struct found_filter){.after = (int64_t)id.seq - 1, .last = id.seq};
        ask_batch(c);
    }
}
