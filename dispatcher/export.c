#include "dispatcher/export.h"

#include <inttypes.h>
#include <string.h>

#include "dispatcher/batches.h"
#include "dispatcher/found.h"
#include "dispatcher/page_token.h"
#include "dispatcher/request.h"
#include "dispatcher/validate.h"
#include "lib/base/list.h"
#include "lib/store/db_batch.h"
#include "muster/v1/command_service.pb-c.h"

/* Blocks in one message: with the longest ids and a page of results it stays below the 4 MiB that clients take. */
#define PART_BLOCKS   8u
#define PART_COMMANDS (PART_BLOCKS * BLOCK_SLOTS)
/* Parts on their way at a time: PostgreSQL works on the next while one is encoded and sent. */
#define PARTS 3
/* What the reader has not taken: beyond, messages wait. With the parts it bounds the memory of an export, 16 MiB at
 * worst. */
#define PENDING_MAX (256u * 1024)
/* A tenant's exports at a time on one dispatcher. */
#define EXPORTS_MAX 16

enum part_state {
    PART_IDLE,
    PART_ASKED, /* for states or details */
    PART_READY, /* `message` can be sent */
};

struct export;
struct part {
    struct export *x;
    enum part_state state;
    struct found *found;
    size_t count, from, told; /* found; those before `from` are sent, those before `told` in `message` */
    int64_t last;             /* number of the last device of its blocks */
    struct buf message;
};

struct export
{
    struct request r;
    struct list link; /* of the dispatcher's exports, while there are parts */
    int64_t batch;
    struct found_filter wanted;
    struct page_filter filter;
    struct view_batch view;
    int32_t *blocks;
    size_t block_count, next_block;
    struct part parts[PARTS]; /* a ring, in the order of the blocks */
    size_t head;              /* the next to be sent */
    size_t asked;             /* parts whose answer is on its way */
    bool going;               /* go_on is on the stack */
    bool over;                /* cancelled or failed: ends with the last answer */
    struct status failure;
};

static void go_on(struct export *x);

static void end(struct export *x)
{
    list_remove(&x->link);
    for (size_t i = 0; i < PARTS; i++)
        buf_free(&x->parts[i].message);
    if (x->failure.code != STATUS_OK)
        request_fail(&x->r, &x->failure);
    else
        request_done(&x->r);
}

/* --- a part ------------------------------------------------------------------------------------------------------- */

static void fail(struct export *x, enum err err, const struct pg_error *error)
{
    if (!x->over) {
        x->r.d->figures.store_errors++;
        request_store_status(&x->failure, err, error);
    }
    x->over = true;
}

static void ask(struct part *p)
{
    p->state = PART_ASKED;
    p->x->asked++;
}

static void on_details(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct part *p = arg;
    struct export *x = p->x;
    char token[PAGE_TOKEN_MAX];
    (void)count;
    x->asked--;
    if (err == ERR_OK && !x->over) {
        size_t n = found_put(&p->message, &x->view, p->found + p->from, p->count - p->from, results, (struct slice){0});
        p->told = p->from + n;
        p->state = PART_READY;
        if (n > 0) {
            page_token_write(token, &x->filter, p->told < p->count ? p->found[p->told - 1].seq : p->last, NULL);
            found_put_token(&p->message, token);
        }
        if (p->message.failed)
            err = ERR_NOMEM;
    }
    if (err != ERR_OK)
        fail(x, err, error);
    go_on(x);
}

static void ask_details(struct part *p)
{
    struct export *x = p->x;
    struct pg_txn *txn = request_txn(&x->r);
    ask(p);
    if (txn && !found_ask(txn, &x->view, p->found + p->from, p->count - p->from))
        pg_txn_free(&txn);
    pg_txn_submit(txn, on_details, p);
}

static void on_blocks(void *arg, enum err err, struct view_block *blocks, size_t n)
{
    struct part *p = arg;
    struct export *x = p->x;
    x->asked--;
    p->state = PART_READY;
    p->count = p->from = p->told = 0;
    if (err != ERR_OK)
        fail(x, err, NULL);
    for (size_t i = 0; i < n && !x->over; i++)
        p->count = found_add(p->found, p->count, PART_COMMANDS, &blocks[i], &x->wanted);
    if (p->count && !x->over)
        ask_details(p);
    go_on(x);
}

static void load(struct part *p)
{
    struct export *x = p->x;
    const int32_t *blocks = x->blocks + x->next_block;
    size_t n = x->block_count - x->next_block;
    /* The first part is small, so that the first commands come at once. */
    size_t most = x->next_block ? PART_BLOCKS : 1;
    if (n > most)
        n = most;
    x->next_block += n;
    p->last = (int64_t)blocks[n - 1] * BLOCK_SLOTS + BLOCK_SLOTS - 1;
    ask(p);
    view_load(x->r.d, &x->view, blocks, n, on_blocks, p);
}

/* --- the stream --------------------------------------------------------------------------------------------------- */

static void send_ready(struct export *x)
{
    struct part *p = &x->parts[x->head];
    while (!x->over && p->state == PART_READY && grpc_call_pending(x->r.call) < PENDING_MAX) {
        if (p->told > p->from)
            grpc_call_send_bytes(x->r.call, buf_slice(&p->message));
        buf_reset(&p->message);
        p->from = p->told;
        if (p->from < p->count) {
            ask_details(p);
            return;
        }
        p->state = PART_IDLE;
        x->head = (x->head + 1) % PARTS;
        p = &x->parts[x->head];
    }
}

static void load_ahead(struct export *x)
{
    for (size_t i = 0; i < PARTS && !x->over && x->next_block < x->block_count; i++) {
        struct part *p = &x->parts[(x->head + i) % PARTS];
        if (p->state == PART_IDLE)
            load(p);
    }
}

/* Does what can be done now. May end the export. */
static void go_on(struct export *x)
{
    if (x->going)
        return;
    x->going = true;
    send_ready(x);
    load_ahead(x);
    x->going = false;
    bool done = x->next_block == x->block_count && x->parts[x->head].state == PART_IDLE;
    if (!x->asked && (x->over || done))
        end(x);
}

static void on_drain(struct grpc_call *call, void *service)
{
    (void)service;
    struct export *x = grpc_call_data(call);
    if (x && !list_empty(&x->link))
        go_on(x);
}

/* --- the start ---------------------------------------------------------------------------------------------------- */

static bool too_many(const struct export *x)
{
    size_t n = 0;
    list_for_each (l, next, &x->r.d->exports)
        n += container_of(l, struct export, link)->r.tenant == x->r.tenant;
    return n >= EXPORTS_MAX;
}

/* False without memory. */
static bool prepare(struct export *x, const struct pg_result *list)
{
    size_t n = pg_int_array(list, 0, 0, NULL, 0);
    int64_t *wide = request_alloc(&x->r, n, sizeof *wide);
    x->blocks = request_alloc(&x->r, n, sizeof *x->blocks);
    for (size_t i = 0; i < PARTS; i++) {
        x->parts[i].x = x;
        x->parts[i].found = request_alloc(&x->r, PART_COMMANDS, sizeof *x->parts[i].found);
    }
    if (x->r.arena.failed)
        return false;
    pg_int_array(list, 0, 0, wide, n);
    for (size_t i = 0; i < n; i++)
        if ((wide[i] + 1) * BLOCK_SLOTS > x->wanted.after + 1)
            x->blocks[x->block_count++] = (int32_t)wide[i];
    return true;
}

/* Results: the batch, its blocks. */
static void on_batch(struct request *r, const struct pg_result *const *results)
{
    struct export *x = (struct export *)r;
    struct db_batch row;
    if (x->over) {
        request_done(r);
    } else if (!pg_rows(results[0])) {
        request_refuse(r, STATUS_NOT_FOUND, "BATCH_NOT_FOUND", "there is no batch %" PRId64, x->batch);
    } else if (too_many(x)) {
        request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "OVERLOADED", "%d exports are running", EXPORTS_MAX);
    } else if (!prepare(x, results[1])) {
        request_store_failed(r, ERR_NOMEM, NULL);
    } else {
        db_batch_read(results[0], 0, &row);
        x->view = batches_view(r->tenant, &row);
        list_append(&r->d->exports, &x->link);
        go_on(x);
    }
}

void export_commands(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    const Muster__V1__ExportCommandsRequest *in = (const Muster__V1__ExportCommandsRequest *)request;
    struct export *x = request_begin(call, service, sizeof *x);
    if (!x)
        return;
    struct status st = {0};
    struct page_token token;
    list_init(&x->link);
    validate_number(&st, "batch_id", in->batch_id);
    x->batch = in->batch_id;
    x->wanted = (struct found_filter){.states = found_states(&st, in->states, in->n_states), .last = UINT32_MAX};
    x->filter = page_filter_new(grpc_call_method(call)->path, x->r.tenant);
    page_filter_add_int(&x->filter, x->batch);
    page_filter_add_int(&x->filter, x->wanted.states);
    page_token_read(&token, &st, &x->filter, "resume_token", in->resume_token, -1);
    if (st.code != STATUS_OK) {
        request_fail(&x->r, &st);
        return;
    }
    x->wanted.after = token.after;
    grpc_call_on_drain(call, on_drain);
    struct pg_txn *txn = request_txn(&x->r);
    db_batch_get(txn, x->r.tenant, x->batch);
    db_batch_blocks(txn, x->batch);
    request_query(&x->r, txn, on_batch);
}

void export_cancelled(struct grpc_call *call, void *service)
{
    (void)service;
    struct export *x = grpc_call_data(call);
    if (!x)
        return;
    x->over = true;
    if (!list_empty(&x->link))
        go_on(x);
}
