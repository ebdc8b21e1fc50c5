/* The gRPC client and the server's promises to its handlers, both in one loop over loopback sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "grpc/testing/test.pb-c.h"
#include "lib/base/grpc_client.h"
#include "lib/base/grpc_server.h"

#define SERVICE         "/test.Service/"
#define EMPTY           (&grpc__testing__empty__descriptor)
#define SIMPLE_RESPONSE (&grpc__testing__simple_response__descriptor)

struct fixture {
    struct ev_loop *loop;
    struct stream_hub *hub;
    struct grpc_server *server;
    struct grpc_client *client;
    char target[32];
    struct grpc_call *held; /* a call whose handler has not finished */
    const Grpc__Testing__SimpleRequest *taken;
    struct grpc_call *admitting;
    bool admit_later;
    int cancelled, messages;
    size_t sent, most_pending;
    char seen[64];
};

/* --- the server's side -----------------------------------------------------------------------------------------------
 */

static void echo(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    struct fixture *f = service;
    const Grpc__Testing__SimpleRequest *request = (const Grpc__Testing__SimpleRequest *)message;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    const char *value = grpc_call_metadata(call, "authorization", NULL);
    snprintf(f->seen, sizeof f->seen, "%s", value ? value : "");
    response.payload = request->payload;
    f->messages++;
    grpc_call_reply(call, &response.base);
}

static void refuse(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)service, (void)message;
    struct status st = {0};
    status_violation(&st, "payload", "caf\xC3\xA9 100%%\n");
    status_metadata(&st, "limit", "3");
    grpc_call_finish(call, &st);
}

static void hold(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    struct fixture *f = service;
    f->held = call;
    f->taken = (const Grpc__Testing__SimpleRequest *)message;
    grpc_call_take_request(call);
}

static void count_cancelled(struct grpc_call *call, void *service)
{
    (void)call;
    ((struct fixture *)service)->cancelled++;
}

static void finish_when_cancelled(struct grpc_call *call, void *service)
{
    ((struct fixture *)service)->cancelled++;
    grpc_call_finish(call, NULL);
}

static void send_more(struct grpc_call *call, void *service)
{
    struct fixture *f = service;
    static uint8_t bytes[10000];
    Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    payload.body = (ProtobufCBinaryData){sizeof bytes, bytes};
    response.payload = &payload;
    while (f->sent < 3000000 && grpc_call_pending(call) < 50000) {
        grpc_call_send(call, &response.base);
        f->sent += sizeof bytes;
    }
    if (grpc_call_pending(call) > f->most_pending)
        f->most_pending = grpc_call_pending(call);
    if (f->sent >= 3000000)
        grpc_call_finish(call, NULL);
}

static void stream_out(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)message;
    grpc_call_on_drain(call, send_more);
    send_more(call, service);
}

static void stream_in(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)call;
    struct fixture *f = service;
    const Grpc__Testing__SimpleRequest *request = (const Grpc__Testing__SimpleRequest *)message;
    f->messages++;
    f->sent += request->payload ? request->payload->body.len : 0;
}

static void stream_in_end(struct grpc_call *call, void *service)
{
    (void)service;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    grpc_call_reply(call, &response.base);
}

#define TYPES                                                                                                          \
    .request = &grpc__testing__simple_request__descriptor, .response = &grpc__testing__simple_response__descriptor
static const struct grpc_method methods[] = {
    {.path = SERVICE "Echo", TYPES, .message = echo},
    {.path = SERVICE "Fail", TYPES, .message = refuse},
    {.path = SERVICE "Hold", TYPES, .message = hold, .cancelled = count_cancelled},
    {.path = SERVICE "HoldUntilCancelled", TYPES, .message = hold, .cancelled = finish_when_cancelled},
    {.path = SERVICE "Out", TYPES, .server_streaming = true, .message = stream_out, .cancelled = finish_when_cancelled},
    {.path = SERVICE "In",
     TYPES,
     .client_streaming = true,
     .message = stream_in,
     .end = stream_in_end,
     .cancelled = finish_when_cancelled},
    {.path = NULL},
};

static bool admit(struct grpc_call *call, void *service)
{
    struct fixture *f = service;
    if (!f->admit_later)
        return true;
    f->admitting = call;
    return false;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->loop = ev_loop_new(0);
    f->hub = stream_hub_new(f->loop);
    f->server = grpc_server_new(f->hub, NULL);
    grpc_server_add(f->server, methods, admit, f);
    assert_int_equal(grpc_server_listen(f->server, "127.0.0.1:0", NULL), ERR_OK);
    snprintf(f->target, sizeof f->target, "127.0.0.1:%d", grpc_server_port(f->server));
    f->client = grpc_client_new(f->hub, f->target, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    grpc_client_free(&f->client);
    grpc_server_free(&f->server);
    stream_hub_free(&f->hub);
    ev_loop_destroy(f->loop);
    free(f);
    return 0;
}

/* --- the client's side
 * ------------------------------------------------------------------------------------------------ */

struct outcome {
    int messages, statuses;
    size_t bytes;
    struct status status;
};

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    (void)call;
    struct outcome *o = arg;
    const Grpc__Testing__SimpleResponse *r = (const Grpc__Testing__SimpleResponse *)response;
    o->messages++;
    o->bytes += r->payload ? r->payload->body.len : 0;
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    (void)call;
    struct outcome *o = arg;
    o->statuses++;
    o->status = *status;
}

static const struct grpc_client_handler handler = {.on_message = on_message, .on_status = on_status};

static struct grpc_client_call *start(struct fixture *f, const char *path, int64_t timeout_ms, struct outcome *o)
{
    *o = (struct outcome){0};
    return grpc_client_start(f->client, path, SIMPLE_RESPONSE, timeout_ms, &handler, o);
}

static void send_bytes(struct grpc_client_call *call, size_t n)
{
    Grpc__Testing__SimpleRequest request = GRPC__TESTING__SIMPLE_REQUEST__INIT;
    Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
    payload.body.data = calloc(1, n + 1);
    payload.body.len = n;
    request.payload = &payload;
    grpc_client_send(call, &request.base);
    free(payload.body.data);
}

static struct grpc_client_call *start_unary(struct fixture *f, const char *path, int64_t timeout_ms, struct outcome *o)
{
    struct grpc_client_call *call = start(f, path, timeout_ms, o);
    send_bytes(call, 100);
    grpc_client_end(call);
    return call;
}

#define RUN_UNTIL(f, condition)                                                                                        \
    do {                                                                                                               \
        while (!(condition))                                                                                           \
            ev_run((f)->loop, EVRUN_ONCE);                                                                             \
    } while (0)

static enum status_code unary(struct fixture *f, const char *path, size_t size, struct status *st)
{
    Grpc__Testing__SimpleRequest request = GRPC__TESTING__SIMPLE_REQUEST__INIT;
    Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
    payload.body.data = calloc(1, size + 1);
    payload.body.len = size;
    request.payload = &payload;
    ProtobufCMessage *m = grpc_client_unary(f->client, path, &request.base, SIMPLE_RESPONSE, 10000, st);
    free(payload.body.data);
    if (m) {
        assert_int_equal(st->code, STATUS_OK);
        assert_int_equal(((Grpc__Testing__SimpleResponse *)m)->payload->body.len, size);
        protobuf_c_message_free_unpacked(m, NULL);
    }
    return st->code;
}

static void unary_calls_of_many_sizes(void **state)
{
    struct fixture *f = *state;
    struct status st;
    grpc_client_metadata(f->client, "authorization", "Bearer xyz");
    const size_t sizes[] = {0, 1, 16383, 16384, 70000, 3000000, 40000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_int_equal(unary(f, SERVICE "Echo", sizes[i], &st), STATUS_OK);
    assert_string_equal(f->seen, "Bearer xyz");
    assert_int_equal(grpc_server_stats(f->server)->connections_total, 1);
    assert_int_equal(grpc_server_stats(f->server)->calls_total, 7);
}

static void errors_come_with_their_details(void **state)
{
    struct fixture *f = *state;
    struct status st;
    assert_int_equal(unary(f, SERVICE "Fail", 1, &st), STATUS_INVALID_ARGUMENT);
    assert_string_equal(st.message, "payload: caf\xC3\xA9 100%\n");
    assert_string_equal(st.reason, "INVALID_FIELD");
    assert_int_equal(st.violation_count, 1);
    assert_string_equal(st.violations[0].field, "payload");
    assert_string_equal(st.metadata[0].value, "3");
    assert_int_equal(unary(f, SERVICE "Nothing", 1, &st), STATUS_UNIMPLEMENTED);
    assert_int_equal(grpc_server_stats(f->server)->calls_failed, 2);
}

static void a_server_that_is_not_there_is_unavailable(void **state)
{
    struct fixture *f = *state;
    struct status st;
    grpc_server_free(&f->server);
    assert_int_equal(unary(f, SERVICE "Echo", 1, &st), STATUS_UNAVAILABLE);
    grpc_client_free(&f->client);
    f->client = grpc_client_new(f->hub, "no port here", NULL);
    assert_int_equal(unary(f, SERVICE "Echo", 1, &st), STATUS_UNAVAILABLE);
}

static void a_lost_connection_is_made_again(void **state)
{
    struct fixture *f = *state;
    struct status st;
    struct outcome o;
    assert_int_equal(unary(f, SERVICE "Echo", 1, &st), STATUS_OK);
    start_unary(f, SERVICE "Hold", 0, &o);
    RUN_UNTIL(f, f->held);
    grpc_server_free(&f->server);
    assert_int_equal(f->cancelled, 1);
    RUN_UNTIL(f, o.statuses);
    assert_int_equal(o.status.code, STATUS_UNAVAILABLE);
    /* The call has outlived its server; finishing it goes nowhere. */
    assert_true(grpc_call_cancelled(f->held));
    assert_int_equal(f->taken->payload->body.len, 100);
    grpc_call_finish(f->held, NULL);

    f->server = grpc_server_new(f->hub, NULL);
    grpc_server_add(f->server, methods, NULL, f);
    assert_int_equal(grpc_server_listen(f->server, f->target, NULL), ERR_OK);
    assert_int_equal(unary(f, SERVICE "Echo", 1, &st), STATUS_OK);
}

static void deadlines_end_both_sides(void **state)
{
    struct fixture *f = *state;
    struct outcome o;
    start_unary(f, SERVICE "Hold", 50, &o);
    RUN_UNTIL(f, f->cancelled && o.statuses);
    assert_int_equal(o.status.code, STATUS_DEADLINE_EXCEEDED);
    assert_in_range(grpc_call_time_left(f->held), 0, 50); /* the client's may come to it before its own */
    /* Taken, it is still there. */
    assert_int_equal(f->taken->payload->body.len, 100);
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    grpc_call_reply(f->held, &response.base);
    RUN_UNTIL(f, grpc_server_stats(f->server)->calls == 0);
    assert_int_equal(o.messages, 0);
}

static void cancelling_tells_the_handler(void **state)
{
    struct fixture *f = *state;
    struct outcome o;
    struct grpc_client_call *call = start_unary(f, SERVICE "HoldUntilCancelled", 0, &o);
    RUN_UNTIL(f, f->held);
    grpc_client_cancel(call);
    RUN_UNTIL(f, f->cancelled && o.statuses);
    assert_int_equal(o.status.code, STATUS_CANCELLED);
    assert_int_equal(o.statuses, 1);
    RUN_UNTIL(f, grpc_server_stats(f->server)->calls == 0);
}

static void an_answer_may_come_later(void **state)
{
    struct fixture *f = *state;
    struct outcome o;
    start_unary(f, SERVICE "Hold", 10000, &o);
    RUN_UNTIL(f, f->held);
    assert_true(grpc_call_time_left(f->held) > 1000);
    assert_memory_equal(grpc_call_peer(f->held), "127.0.0.1:", 10);
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    response.payload = f->taken->payload;
    grpc_call_reply(f->held, &response.base);
    RUN_UNTIL(f, o.statuses);
    assert_int_equal(o.status.code, STATUS_OK);
    assert_int_equal(o.bytes, 100);
}

static void a_stream_of_responses_is_drained_piece_by_piece(void **state)
{
    struct fixture *f = *state;
    struct outcome o;
    start_unary(f, SERVICE "Out", 0, &o);
    RUN_UNTIL(f, o.statuses);
    assert_int_equal(o.status.code, STATUS_OK);
    assert_int_equal(o.bytes, 3000000);
    assert_true(f->most_pending < 70000);
}

static void send_part(struct grpc_client_call *call, void *arg)
{
    size_t *left = arg;
    while (*left > 0 && grpc_client_pending(call) < 100000) {
        send_bytes(call, 10000);
        *left -= 10000;
    }
    if (*left == 0)
        grpc_client_end(call);
}

struct upload {
    struct outcome o;
    size_t left;
};

static void on_upload_drain(struct grpc_client_call *call, void *arg)
{
    send_part(call, &((struct upload *)arg)->left);
}

static void a_stream_of_requests_waits_for_the_server(void **state)
{
    struct fixture *f = *state;
    const struct grpc_client_handler up = {on_message, on_status, on_upload_drain};
    struct upload u = {.left = 5000000};
    struct grpc_client_call *call = grpc_client_start(f->client, SERVICE "In", SIMPLE_RESPONSE, 0, &up, &u);
    send_part(call, &u.left);
    assert_true(u.left > 4000000);
    RUN_UNTIL(f, u.o.statuses);
    assert_int_equal(u.o.status.code, STATUS_OK);
    assert_int_equal(u.o.messages, 1);
    assert_int_equal(f->messages, 500);
    assert_int_equal(f->sent, 5000000);
}

static void many_calls_share_a_connection(void **state)
{
    struct fixture *f = *state;
    static struct outcome o[1000];
    for (size_t i = 0; i < 1000; i++)
        start_unary(f, SERVICE "Echo", 0, &o[i]);
    for (size_t i = 0; i < 1000; i++) {
        RUN_UNTIL(f, o[i].statuses);
        assert_int_equal(o[i].status.code, STATUS_OK);
        assert_int_equal(o[i].bytes, 100);
    }
    assert_int_equal(grpc_server_stats(f->server)->connections_total, 1);
}

static void an_admission_put_off(void **state)
{
    struct fixture *f = *state;
    struct outcome o;
    f->admit_later = true;
    start_unary(f, SERVICE "Echo", 0, &o);
    RUN_UNTIL(f, f->admitting);
    assert_int_equal(f->messages, 0);
    grpc_call_accept(f->admitting);
    RUN_UNTIL(f, o.statuses);
    assert_int_equal(o.status.code, STATUS_OK);

    /* Refused later. */
    f->admitting = NULL;
    start_unary(f, SERVICE "Echo", 0, &o);
    RUN_UNTIL(f, f->admitting);
    struct status st = {0};
    grpc_call_finish(f->admitting, status_set(&st, STATUS_UNAUTHENTICATED, "API_KEY_INVALID", "no"));
    RUN_UNTIL(f, o.statuses);
    assert_int_equal(o.status.code, STATUS_UNAUTHENTICATED);

    /* Accepted when the caller has gone: nothing happens, nothing leaks. */
    for (int last = 0; last < 2; last++) {
        f->admitting = NULL;
        f->messages = 0;
        start_unary(f, SERVICE "Echo", 20, &o);
        RUN_UNTIL(f, f->admitting && o.statuses && grpc_call_cancelled(f->admitting));
        if (last)
            grpc_server_free(&f->server);
        grpc_call_accept(f->admitting);
        assert_int_equal(f->messages, 0);
    }
}

static void set_flag(void *arg)
{
    *(bool *)arg = true;
}

static void a_drained_server_ends_when_its_calls_have(void **state)
{
    struct fixture *f = *state;
    struct outcome held, refused;
    bool drained = false;
    start_unary(f, SERVICE "Hold", 0, &held);
    RUN_UNTIL(f, f->held);
    grpc_server_drain(f->server, 10000, set_flag, &drained);
    for (int i = 0; i < 20; i++)
        ev_run(f->loop, EVRUN_ONCE);
    assert_false(drained);
    /* The client has heard GOAWAY; a new call would need a new connection, which nobody accepts. */
    start_unary(f, SERVICE "Echo", 0, &refused);
    RUN_UNTIL(f, refused.statuses);
    assert_int_equal(refused.status.code, STATUS_UNAVAILABLE);
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    grpc_call_reply(f->held, &response.base);
    RUN_UNTIL(f, held.statuses && drained);
    assert_int_equal(held.status.code, STATUS_OK);
    assert_int_equal(grpc_server_stats(f->server)->connections, 0);
}

static void a_drain_takes_no_longer_than_allowed(void **state)
{
    struct fixture *f = *state;
    struct outcome o;
    bool drained = false;
    start_unary(f, SERVICE "HoldUntilCancelled", 0, &o);
    RUN_UNTIL(f, f->held);
    grpc_server_drain(f->server, 50, set_flag, &drained);
    RUN_UNTIL(f, drained && o.statuses);
    assert_int_equal(o.status.code, STATUS_UNAVAILABLE);
    assert_int_equal(f->cancelled, 1);
}

static void freeing_the_client_ends_its_calls(void **state)
{
    struct fixture *f = *state;
    struct outcome o, waiting;
    start_unary(f, SERVICE "HoldUntilCancelled", 0, &o);
    RUN_UNTIL(f, f->held);
    start_unary(f, SERVICE "Echo", 0, &waiting);
    grpc_client_free(&f->client);
    assert_int_equal(o.status.code, STATUS_UNAVAILABLE);
    assert_int_equal(o.statuses + waiting.statuses, 2);
    RUN_UNTIL(f, f->cancelled);
}

static void free_client(struct grpc_client_call *call, void *arg, const struct status *status)
{
    (void)call, (void)status;
    grpc_client_free(&((struct fixture *)arg)->client);
}

static void the_client_may_be_freed_in_on_status(void **state)
{
    struct fixture *f = *state;
    const struct grpc_client_handler h = {on_message, free_client, NULL};
    struct outcome o;
    start_unary(f, SERVICE "Hold", 0, &o);
    (void)grpc_client_start(f->client, SERVICE "Nothing", SIMPLE_RESPONSE, 0, &h, f);
    RUN_UNTIL(f, !f->client);
    assert_int_equal(o.statuses, 1);
    RUN_UNTIL(f, !f->held || f->cancelled);
    if (f->held)
        grpc_call_finish(f->held, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unary_calls_of_many_sizes),
        TEST(errors_come_with_their_details),
        TEST(a_server_that_is_not_there_is_unavailable),
        TEST(a_lost_connection_is_made_again),
        TEST(deadlines_end_both_sides),
        TEST(cancelling_tells_the_handler),
        TEST(an_answer_may_come_later),
        TEST(a_stream_of_responses_is_drained_piece_by_piece),
        TEST(a_stream_of_requests_waits_for_the_server),
        TEST(many_calls_share_a_connection),
        TEST(an_admission_put_off),
        TEST(a_drained_server_ends_when_its_calls_have),
        TEST(a_drain_takes_no_longer_than_allowed),
        TEST(freeing_the_client_ends_its_calls),
        TEST(the_client_may_be_freed_in_on_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
