/* A run of Verify, from the request to its summary: the real comparisons, with the readers of PostgreSQL's rows and of
 * all that Redis may hold. The input is what they answer, in which order, how time passes and when the caller goes
 * away. */
#include <ev.h>

#include "dispatcher/auth.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/verify.h"
#include "lib/base/clock.h"
#include "lib/store/live.h"
#include "muster/v1/admin_service.pb-c.h"
#include "tests/fuzz/call.h"
#include "tests/fuzz/replies.h"
#include "tests/fuzz/rows.h"

#define STEPS_MAX  2000
#define ASKED_MAX  64 /* transactions under way */
#define REPLY_DEEP 3
#define NOW_MS     1700000000000

static struct asked {
    struct pg_txn *txn;
    pg_done_fn *done;
    void *arg;
} asked[ASKED_MAX];
static size_t asked_count;
static int64_t now_us;
/* What the caller has got. */
static uint32_t findings;
static bool summed_up;

int64_t clock_mono_us(void)
{
    return now_us;
}

int64_t clock_wall_ms(void)
{
    return NOW_MS + now_us / 1000;
}

bool pg_up(const struct pg *pg)
{
    (void)pg;
    return true;
}

void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg)
{
    check(asked_count < ASKED_MAX);
    asked[asked_count++] = (struct asked){txn, done, arg};
}

static void answer_rows(struct slice *in)
{
    struct asked a = asked[0];
    memmove(asked, asked + 1, --asked_count * sizeof *asked);
    rows_answer(a.txn, a.done, a.arg, in);
}

static void see(const ProtobufCMessage *message)
{
    const Muster__V1__VerifyResponse *r = (const Muster__V1__VerifyResponse *)message;
    check(!summed_up && (r->finding != NULL) != (r->summary != NULL));
    if (r->finding) {
        findings++;
        check(r->finding->count > 0 && findings <= VERIFY_FOUND_MAX);
        return;
    }
    summed_up = true;
    check(r->summary->found == findings && r->summary->left <= findings);
}

/* --- what Redis says ---------------------------------------------------------------------------------------------- */

static void put_bulk(struct buf *out, struct slice s)
{
    buf_printf(out, "$%zu\r\n", s.len);
    buf_put(out, s.data, s.len);
    buf_put_str(out, "\r\n");
}

/* Names of keys and fields, numbers, members of the list of open batches. */
static void put_word(struct buf *out, struct slice *in)
{
    static const char *const words[] = {"{t%u.b%u}:state:%u",
                                        "{t%u.b%u}:open",
                                        "batch:%u",
                                        "cancel:%u",
                                        "confirm:%u",
                                        "{w%u}:inbox:urgent",
                                        "worker:%u",
                                        "%u.%u",
                                        "end",
                                        "%u",
                                        "0",
                                        "-1",
                                        "first%u",
                                        "{t%u.b%u}:",
                                        "worker:x",
                                        "65535"};
    char text[64];
    uint8_t which = take_u8(in), a = take_u8(in), b = take_u8(in), c = take_u8(in);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, words[which % 16], a, b, c);
#pragma GCC diagnostic pop
    put_bulk(out, (struct slice){(const uint8_t *)text, strlen(text)});
}

/* States of slots that follow each other, or numbers of slots or workers, 16 bits each. */
static void put_columns(struct buf *out, bool states, struct slice *in)
{
    struct buf bytes = {0};
    uint16_t first = take_u16(in) % BLOCK_SLOTS, n = take_u16(in) % BLOCK_SLOTS;
    struct slice some = take_bytes(in, take_u8(in) & 15);
    if (states)
        buf_put(&bytes, (uint8_t[]){1, 0, (uint8_t)first, (uint8_t)(first >> 8)}, 4);
    for (unsigned i = 0; i < n; i++) {
        uint8_t byte = some.len ? some.data[i % some.len] : 0;
        buf_put_u8(&bytes, states ? byte : (uint8_t)(first + i * byte));
        if (!states)
            buf_put_u8(&bytes, (uint8_t)((first + i * byte) >> 8 & 0x83));
    }
    put_bulk(out, buf_slice(&bytes));
    buf_free(&bytes);
}

static void put_reply(struct buf *out, struct slice *in, unsigned deep)
{
    uint8_t how = take_u8(in);
    switch (deep < REPLY_DEEP ? how & 7 : how & 3) {
    case 0:
        buf_printf(out, ":%d\r\n", (how >> 3) - 1);
        break;
    case 1:
        put_word(out, in);
        break;
    case 2:
        put_bulk(out, take_bytes(in, how >> 3));
        break;
    case 3:
        put_columns(out, how & 8, in);
        break;
    case 4:
        buf_put_str(out, how & 8 ? "$-1\r\n" : how & 16 ? "*-1\r\n" : "+OK\r\n");
        break;
    default:
        buf_printf(out, "*%d\r\n", how >> 4);
        for (unsigned i = 0; i < how >> 4; i++)
            put_reply(out, in, deep + 1);
    }
}

static void answer_redis(struct slice *in)
{
    uint8_t how = take_u8(in);
    struct buf bytes = {0};
    void *reply = NULL;
    if (how == 255) {
        replies_answer(NULL);
        return;
    }
    if (how == 254)
        buf_put_str(&bytes, "-ERR it says no\r\n");
    else
        put_reply(&bytes, in, 0);
    redisReader *reader = replies_reader();
    redisReaderFeed(reader, (const char *)buf_slice(&bytes).data, buf_len(&bytes));
    check(redisReaderGetReply(reader, &reply) == REDIS_OK && reply);
    replies_answer(reply);
    freeReplyObject(reply);
    redisReaderFree(reader);
    buf_free(&bytes);
}

/* --- a run -------------------------------------------------------------------------------------------------------- */

static void pass_time(struct grpc_call *call, struct dispatcher *d, uint8_t how)
{
    struct verify *v = call->data;
    now_us += how * 20000;
    if (!ev_is_active(&v->wait))
        return;
    ev_timer_stop(d->loop, &v->wait);
    ev_invoke(d->loop, &v->wait, EV_TIMER);
}

static void cancel(struct grpc_call *call, struct dispatcher *d)
{
    if (call->finished || call->cancelled)
        return;
    call->cancelled = true;
    verify_cancelled(call, d);
}

static void step(struct grpc_call *call, struct dispatcher *d, struct slice *in)
{
    uint8_t how = take_u8(in);
    if (how >= 250)
        cancel(call, d);
    else if (how >= 200)
        pass_time(call, d, (uint8_t)(how - 200));
    else if (asked_count && (how & 1 || !replies_due))
        answer_rows(in);
    else if (replies_due)
        answer_redis(in);
    else
        pass_time(call, d, how);
}

static void let_end(struct grpc_call *call, struct dispatcher *d)
{
    cancel(call, d);
    while (asked_count) {
        struct slice no = {(const uint8_t *)"\xff", 1};
        answer_rows(&no);
    }
    while (replies_due)
        replies_answer(NULL);
    check(call->finished);
}

static const struct grpc_method method = {.path = "/muster.v1.AdminService/Verify",
                                          .request = &muster__v1__verify_request__descriptor,
                                          .response = &muster__v1__verify_response__descriptor,
                                          .server_streaming = true,
                                          .message = verify_run,
                                          .cancelled = verify_cancelled};

static void run(struct dispatcher *d, struct slice *in)
{
    static const struct caller admin = {
        .kind = CALL_CALLER, .key = 1, .tenant = 7, .role = MUSTER__V1__ROLE__ROLE_ADMIN};
    Muster__V1__VerifyRequest request = MUSTER__V1__VERIFY_REQUEST__INIT;
    struct grpc_call call = {.method = &method, .data = (void *)(uintptr_t)&admin, .see = see};
    uint8_t how = take_u8(in);
    request.repair = how & 1;
    request.tenant = how & 2 ? (char *)(uintptr_t) "acme" : request.tenant;
    verify_run(&call, d, &request.base);
    for (unsigned i = 0; i < STEPS_MAX && !call.finished && in->len > 0; i++)
        step(&call, d, in);
    let_end(&call, d);
    check((call.code == STATUS_OK && !call.cancelled) == summed_up);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    struct dispatcher d = {.loop = ev_default_loop(0)};
    log_init("fuzz", SILENT);
    request_limits(&d);
    d.live = live_new(NULL, "redis://x");
    findings = 0;
    summed_up = false;
    now_us = 1000000000;
    run(&d, &in);
    check(d.calls.count == 0 && d.streams.count == 0);
    live_free(&d.live);
    return 0;
}
