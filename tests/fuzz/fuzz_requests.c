/* Every method of the dispatcher, from the bytes of a request to its answer: the real handlers with their validation,
 * admission by API key, and the readers of rows. The input chooses the method and is the request, and then what
 * PostgreSQL and Redis say, whether the caller reads, and when it goes away. Each call ends exactly once. */
#include <ev.h>
#include <sodium.h>

#include "dispatcher/accept.h"
#include "dispatcher/auth.h"
#include "dispatcher/event_watch.h"
#include "dispatcher/gate_keeper.h"
#include "dispatcher/leader.h"
#include "dispatcher/mailboxes.h"
#include "dispatcher/refusals.h"
#include "dispatcher/request.h"
#include "dispatcher/service_admin.h"
#include "dispatcher/service_command.h"
#include "dispatcher/service_control.h"
#include "dispatcher/service_device.h"
#include "dispatcher/service_event.h"
#include "dispatcher/submit.h"
#include "dispatcher/verify.h"
#include "dispatcher/watch.h"
#include "lib/base/clock.h"
#include "lib/base/fnv.h"
#include "lib/store/live.h"
#include "lib/store/live_look.h"
#include "muster/v1/admin_service.pb-c.h"
#include "tests/fuzz/call.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/rows.h"

#define STEPS_MAX   300
#define PENDING_MAX 1024
#define NOW_MS      1700000000000
#define TENANT      7

/* --- stores ------------------------------------------------------------------------------------------------------- */

enum question { ASK_ROWS, ASK_STATES, ASK_PRESENCE, ASK_WORKERS, ASK_WAITING, ASK_NUMBER };

static struct pending {
    enum question what;
    struct pg_txn *txn;
    size_t count;
    union {
        pg_done_fn *rows;
        live_states_fn *states;
        live_bytes_fn *bytes;
        live_workers_fn *workers;
        live_waiting_fn *waiting;
        live_int_fn *integer;
    } fn;
    void *arg;
} pending[PENDING_MAX];
static size_t pending_count;
static bool redis_is_up;

static void ask(struct pending p)
{
    check(pending_count < PENDING_MAX);
    pending[pending_count++] = p;
}

void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg)
{
    ask((struct pending){.what = ASK_ROWS, .txn = txn, .fn.rows = done, .arg = arg});
}

bool pg_up(const struct pg *pg)
{
    (void)pg;
    return true;
}

bool live_up(const struct live *live)
{
    (void)live;
    return redis_is_up;
}

void live_publish(struct live *live, const char *text)
{
    (void)live, (void)text;
}

void live_states(struct live *live, uint32_t tenant, uint64_t batch, const uint32_t *blocks, size_t count,
                 live_states_fn *done, void *arg)
{
    (void)live, (void)tenant, (void)batch, (void)blocks;
    check(count > 0);
    ask((struct pending){.what = ASK_STATES, .count = count, .fn.states = done, .arg = arg});
}

void live_presence(struct live *live, uint32_t tenant, uint32_t block, live_bytes_fn *done, void *arg)
{
    (void)live, (void)tenant, (void)block;
    ask((struct pending){.what = ASK_PRESENCE, .fn.bytes = done, .arg = arg});
}

void live_workers(struct live *live, live_workers_fn *done, void *arg)
{
    (void)live;
    ask((struct pending){.what = ASK_WORKERS, .fn.workers = done, .arg = arg});
}

void live_workers_all(struct live *live, live_workers_fn *done, void *arg)
{
    live_workers(live, done, arg);
}

void live_waiting(struct live *live, uint32_t tenant, uint32_t block, uint16_t slot, live_waiting_fn *done, void *arg)
{
    (void)live, (void)tenant, (void)block;
    check(slot < BLOCK_SLOTS);
    ask((struct pending){.what = ASK_WAITING, .fn.waiting = done, .arg = arg});
}

void live_worker_there(struct live *live, uint16_t worker, live_int_fn *done, void *arg)
{
    (void)live, (void)worker;
    ask((struct pending){.what = ASK_NUMBER, .fn.integer = done, .arg = arg});
}

void live_inbox_waiting(struct live *live, uint16_t worker, live_int_fn *done, void *arg)
{
    (void)live, (void)worker;
    ask((struct pending){.what = ASK_NUMBER, .fn.integer = done, .arg = arg});
}

void live_generation_get(struct live *live, live_int_fn *done, void *arg)
{
    (void)live;
    ask((struct pending){.what = ASK_NUMBER, .fn.integer = done, .arg = arg});
}

void live_inbox_push(struct live *live, uint16_t worker, enum live_class class, struct slice items, live_int_fn *done,
                     void *arg)
{
    (void)live, (void)worker, (void)class;
    touch(items);
    ask((struct pending){.what = ASK_NUMBER, .fn.integer = done, .arg = arg});
}

/* A change of a gate is carried out some time later. */
static struct list gate_waits;

void gate_keeper_changed(struct gate_keeper *keeper, uint64_t number, struct gate_wait *wait)
{
    (void)keeper;
    if (!wait)
        return;
    wait->number = number;
    list_append(&gate_waits, &wait->link);
}

static void confirm_gates(void)
{
    struct list *l = list_pop(&gate_waits);
    if (!l)
        return;
    struct gate_wait *wait = container_of(l, struct gate_wait, link);
    wait->confirmed_ms = NOW_MS;
    wait->done(wait);
}

/* A reader of everything there is: fuzz_verify has it. */
void verify_run(struct grpc_call *call, void *service, const ProtobufCMessage *request)
{
    struct status st = {0};
    (void)service, (void)request;
    grpc_call_finish(call, status_set(&st, STATUS_UNIMPLEMENTED, NULL, "not here"));
}

void verify_cancelled(struct grpc_call *call, void *service)
{
    (void)call, (void)service;
}

int64_t leader_now_ms(struct leader *leader)
{
    (void)leader;
    return NOW_MS;
}

bool leader_accepted(struct leader *leader, uint64_t id, const struct db_accept *batch)
{
    (void)leader, (void)id;
    for (size_t i = 0; i < batch->block_count; i++)
        touch(batch->targets[i]);
    for (size_t i = 0; batch->values && i < batch->block_count; i++)
        touch(batch->values->blocks[i]);
    return id & 1;
}

void leader_devices(struct leader *leader, uint32_t tenant)
{
    (void)leader, (void)tenant;
}

void leader_hint(struct leader *leader, enum leader_hint_kind kind, uint64_t batch)
{
    (void)leader, (void)kind, (void)batch;
}

int64_t clock_mono_us(void)
{
    return 1000000000;
}

int64_t clock_wall_ms(void)
{
    return NOW_MS;
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static void answer_states(const struct pending *p, struct slice *in, enum err err)
{
    struct slice states[PENDING_MAX];
    struct buf cells[PENDING_MAX] = {{0}};
    size_t n = p->count < PENDING_MAX ? p->count : PENDING_MAX;
    for (size_t i = 0; i < n; i++) {
        if (in->len > 0)
            rows_cell(in, &cells[i]);
        states[i] = buf_slice(&cells[i]);
    }
    p->fn.states(p->arg, err, states, err ? 0 : n);
    for (size_t i = 0; i < n; i++)
        buf_free(&cells[i]);
}

/* What is open for a device: as many as there are bytes for. */
static void answer_waiting(const struct pending *p, struct slice *in, enum err err)
{
    struct live_pending open[8] = {{0, 0}};
    size_t n = take_u8(in) % 9;
    uint16_t worker = take_u8(in);
    for (size_t i = 0; i < n; i++)
        open[i] = (struct live_pending){take_u8(in), take_u8(in)};
    p->fn.waiting(p->arg, err, err ? 0 : worker, open, err ? 0 : n);
}

static void answer(struct slice *in)
{
    struct pending p = pending[0];
    struct buf cell = {0};
    memmove(pending, pending + 1, --pending_count * sizeof *pending);
    if (p.what == ASK_ROWS) {
        rows_answer(p.txn, p.fn.rows, p.arg, in);
        return;
    }
    enum err err = take_u8(in) & 7 ? ERR_OK : ERR_UNAVAILABLE;
    struct live_worker worker = {.number = take_u8(in), .alive = !err};
    switch (p.what) {
    case ASK_STATES:
        answer_states(&p, in, err);
        break;
    case ASK_PRESENCE:
        rows_cell(in, &cell);
        p.fn.bytes(p.arg, err, err ? (struct slice){NULL, 0} : buf_slice(&cell));
        break;
    case ASK_WORKERS:
        p.fn.workers(p.arg, err, &worker, err ? 0 : 1);
        break;
    case ASK_WAITING:
        answer_waiting(&p, in, err);
        break;
    default:
        if (p.fn.integer)
            p.fn.integer(p.arg, err, err ? 0 : worker.number);
    }
    buf_free(&cell);
}

/* --- a call's life ------------------------------------------------------------------------------------------------ */

/* FNV-1a, folded. */
static uint16_t hash_of(const char *path)
{
    uint32_t h = fnv_add(FNV_BEGIN, path, strlen(path));
    return (uint16_t)(h ^ h >> 16);
}

/* The method whose hash comes next, so that inputs mean the same when there are more methods. */
static const struct grpc_method *method_of(uint16_t choice)
{
    const struct grpc_method *const tables[] = {service_command_methods, service_device_methods, service_admin_methods,
                                                service_control_methods, service_event_methods};
    const struct grpc_method *best = NULL;
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct grpc_method *m = tables[t]; m->path; m++)
            if (!best || (uint16_t)(hash_of(m->path) - choice) < (uint16_t)(hash_of(best->path) - choice))
                best = m;
    return best;
}

static void give_message(struct grpc_call *call, struct dispatcher *d, struct slice body)
{
    call->request = protobuf_c_message_unpack(call->method->request, NULL, body.len, body.data);
    if (!call->request) { /* the server refuses it, and the handler never hears of it */
        struct status st = {0};
        grpc_call_finish(call, status_set(&st, STATUS_INTERNAL, NULL, "unreadable"));
        return;
    }
    call->taken = false;
    call->method->message(call, d, call->request);
    if (!call->taken) {
        protobuf_c_message_free_unpacked(call->request, NULL);
        call->request = NULL;
    }
}

/* Like the server: admission first, then the message. */
static bool admit(struct grpc_call *call, struct dispatcher *d, const struct caller *caller, struct slice *in)
{
    uint8_t how = take_u8(in);
    if (how < 200) {
        call->data = (void *)(uintptr_t)caller;
        return true;
    }
    call->authorization = copy_text(take_bytes(in, how - 100));
    bool at_once = auth_admit(call, d);
    for (unsigned i = 0; i < 10 && !at_once && !call->finished && !call->accepted && pending_count > 0; i++)
        answer(in);
    return at_once || call->accepted;
}

static void cancel(struct grpc_call *call, struct dispatcher *d)
{
    if (call->finished || call->cancelled || !call->method->cancelled)
        return;
    call->cancelled = true;
    call->method->cancelled(call, d);
}

static void go_on(struct grpc_call *call, struct dispatcher *d, struct slice *in)
{
    uint8_t how = take_u8(in);
    switch (how & 7) {
    case 0:
        call->pending = how & 8 ? 1 << 20 : 0;
        if (call->on_drain && !call->pending)
            call->on_drain(call, d);
        break;
    case 1:
        confirm_gates();
        ev_run(d->loop, EVRUN_NOWAIT);
        break;
    case 2: {
        struct slice text = take_bytes(in, how >> 3);
        watches_event(d->watches, text);
        event_watches_told(d->event_watches, text);
        break;
    }
    case 3:
        if (how >> 3 == 31)
            cancel(call, d);
        break;
    default:
        if (pending_count > 0)
            answer(in);
    }
}

/* The caller has gone, and the stores answer no more. */
static void let_end(struct grpc_call *call, struct dispatcher *d)
{
    struct slice none = {NULL, 0};
    cancel(call, d);
    for (unsigned i = 0; i < PENDING_MAX && (pending_count > 0 || !list_empty(&gate_waits)); i++) {
        struct slice no = {(const uint8_t *)"\xff", 1};
        if (pending_count > 0)
            answer(pending[0].what == ASK_ROWS ? &no : &none);
        else
            confirm_gates(); /* after which it may ask more */
    }
    check(pending_count == 0 && list_empty(&gate_waits));
    watches_end(d->watches);
    event_watches_end(d->event_watches);
    check(call->finished);
}

static void run_call(struct dispatcher *d, struct slice *in)
{
    static const struct caller admin = {
        .kind = CALL_CALLER, .key = 1, .tenant = TENANT, .role = MUSTER__V1__ROLE__ROLE_ADMIN};
    struct grpc_call call = {.method = method_of(take_u16(in))};
    check(call.method);
    redis_is_up = !(take_u8(in) & 1);
    if (admit(&call, d, &admin, in)) {
        give_message(&call, d, take_bytes(in, take_u16(in)));
        for (unsigned i = 0; i < STEPS_MAX && !call.finished && in->len > 0; i++) {
            if (call.method->client_streaming && !call.paused && !call.ended) {
                call.ended = true;
                call.method->end(&call, d);
            } else {
                go_on(&call, d, in);
            }
        }
    }
    let_end(&call, d);
    if (call.request)
        protobuf_c_message_free_unpacked(call.request, NULL);
    free(call.authorization);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_init("fuzz", SILENT);
    check(sodium_init() >= 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    struct dispatcher d = {.loop = ev_default_loop(0)};
    list_init(&d.exports);
    list_init(&gate_waits);
    request_limits(&d);
    d.auth = auth_new();
    d.acceptor = acceptor_new(d.loop, NULL, submit_committed, &d);
    d.watches = watches_new(&d);
    d.event_watches = event_watches_new(&d);
    d.mailboxes = mailboxes_new();
    d.refusals = refusals_new(d.loop, NULL);
    check(d.auth && d.acceptor && d.watches && d.event_watches && d.mailboxes && d.refusals);
    run_call(&d, &in);
    check(list_empty(&d.exports) && d.figures.watchers == 0 && d.figures.event_watchers == 0 && d.calls.count == 0 &&
          d.streams.count == 0);
    refusals_free(&d.refusals);
    mailboxes_free(&d.mailboxes);
    event_watches_free(&d.event_watches);
    watches_free(&d.watches);
    acceptor_free(&d.acceptor);
    auth_free(&d.auth);
    return 0;
}
