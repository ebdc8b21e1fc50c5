/* Calls of every kind between our client and our server, in one loop, with the nth allocation, or the nth recv, send,
 * accept or connect of either failing or falling short. What passes changes nothing; else the call ends once, soon,
 * with a status that says so, and nothing of it is left. */
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
#include "lib/base/log.h"
#include "tests/unit/inject.h"

#define SERVICE     "/test.Service/"
#define PAYLOAD     3000
#define MESSAGES    3
#define DEADLINE_MS 10000 /* never reached: who fails says so */
#define VALUE       "\1\2\3"

struct kind {
    const char *path;
    int sends, expects; /* messages */
};

static const struct kind kinds[] = {
    {SERVICE "Echo", 1, 1}, {SERVICE "Out", 1, MESSAGES}, {SERVICE "In", MESSAGES, 1}, {SERVICE "Refuse", 1, 0}};

struct run {
    const struct kind *kind;
    struct ev_loop *loop;
    int messages, statuses, trailers;
    size_t bytes;
    enum status_code code;
};

/* --- the server's side -------------------------------------------------------------------------------------------- */

static void answer(struct grpc_call *call, const ProtobufCMessage *message)
{
    const Grpc__Testing__SimpleRequest *request = (const Grpc__Testing__SimpleRequest *)message;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    response.payload = request->payload;
    grpc_call_send(call, &response.base);
}

static void echo(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    size_t len;
    const char *value = grpc_call_metadata(call, "x-bin", &len);
    (void)service;
    if (value)
        grpc_call_add_trailer(call, "y-bin", value, len);
    answer(call, message);
    grpc_call_finish(call, NULL);
}

static void out(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)service;
    grpc_call_add_initial(call, "hello", "there", 5);
    for (int i = 0; i < MESSAGES; i++)
        answer(call, message);
    grpc_call_finish(call, NULL);
}

static void in(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)service, (void)message;
    grpc_call_take_request(call);
}

static void in_end(struct grpc_call *call, void *service)
{
    (void)service;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    grpc_call_reply(call, &response.base);
}

static void refuse(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)service, (void)message;
    struct status st = {0};
    status_violation(&st, "payload", "is not wanted");
    grpc_call_finish(call, &st);
}

static void finish(struct grpc_call *call, void *service)
{
    (void)service;
    grpc_call_finish(call, NULL);
}

#define TYPES                                                                                                          \
    .request = &grpc__testing__simple_request__descriptor, .response = &grpc__testing__simple_response__descriptor
static const struct grpc_method methods[] = {
    {.path = SERVICE "Echo", TYPES, .message = echo},
    {.path = SERVICE "Out", TYPES, .server_streaming = true, .message = out},
    {.path = SERVICE "In", TYPES, .client_streaming = true, .message = in, .end = in_end, .cancelled = finish},
    {.path = SERVICE "Refuse", TYPES, .message = refuse},
    {.path = NULL},
};

/* --- the client's ------------------------------------------------------------------------------------------------- */

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct run *r = arg;
    const Grpc__Testing__SimpleResponse *m = (const Grpc__Testing__SimpleResponse *)response;
    (void)call;
    r->messages++;
    r->bytes += m->payload ? m->payload->body.len : 0;
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct run *r = arg;
    (void)call;
    r->statuses++;
    r->code = status->code;
}

static const struct grpc_client_handler handler = {.on_message = on_message, .on_status = on_status};

static bool start(struct run *r, struct grpc_client *client)
{
    static uint8_t bytes[PAYLOAD];
    Grpc__Testing__SimpleRequest request = GRPC__TESTING__SIMPLE_REQUEST__INIT;
    Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
    payload.body = (ProtobufCBinaryData){PAYLOAD, bytes};
    request.payload = &payload;
    struct grpc_client_call *call =
        grpc_client_start(client, r->kind->path, &grpc__testing__simple_response__descriptor, DEADLINE_MS, &handler, r);
    for (int i = 0; call && i < r->kind->sends; i++)
        grpc_client_send(call, &request.base);
    if (call)
        grpc_client_end(call);
    return call != NULL;
}

/* --- one run ------------------------------------------------------------------------------------------------------ */

static void look_at(const struct run *r, bool must_work)
{
    assert_int_equal(r->statuses, 1);
    assert_int_not_equal(r->code, STATUS_DEADLINE_EXCEEDED);
    assert_true(r->messages <= r->kind->expects);
    bool refused = r->kind->expects == 0;
    if (must_work)
        assert_int_equal(r->code, refused ? STATUS_INVALID_ARGUMENT : STATUS_OK);
    if (refused)
        assert_int_not_equal(r->code, STATUS_OK);
    else if (r->code == STATUS_OK)
        assert_int_equal(r->messages, r->kind->expects);
    if (r->code == STATUS_OK && r->kind->sends == 1)
        assert_int_equal(r->bytes, (size_t)r->messages * PAYLOAD);
}

static void once(void *arg, enum injection what)
{
    struct run r = {.kind = arg};
    char target[32];
    inject_hold();
    size_t descriptors = inject_descriptors();
    r.loop = ev_loop_new(EVBACKEND_EPOLL);
    struct stream_hub *hub = stream_hub_new(r.loop);
    inject_go_on();
    struct grpc_server *server = grpc_server_new(hub, NULL);
    inject_hold(); /* at the start: without memory for its methods the process ends */
    if (server)
        grpc_server_add(server, methods, NULL, NULL);
    inject_go_on();
    bool listening = server && grpc_server_listen(server, "127.0.0.1:0", NULL) == ERR_OK;
    snprintf(target, sizeof target, "127.0.0.1:%d", listening ? grpc_server_port(server) : 1);
    struct grpc_client *client = listening ? grpc_client_new(hub, target, NULL) : NULL;
    if (client)
        grpc_client_metadata(client, "x-bin", VALUE);
    bool started = client && start(&r, client);
    while (started && r.statuses == 0)
        ev_run(r.loop, EVRUN_ONCE);
    inject_hold();
    bool passes = what == INJECT_SHORT || what == INJECT_EINTR || what == INJECT_EAGAIN;
    if (!inject_happened() || passes)
        assert_true(started);
    if (started)
        look_at(&r, !inject_happened() || passes);
    grpc_client_free(&client);
    grpc_server_free(&server);
    stream_hub_free(&hub);
    ev_loop_destroy(r.loop);
    assert_int_equal(inject_descriptors(), descriptors);
    inject_go_on();
}

static void disturb(void **state, enum injection what, long least)
{
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        void *kind = (void *)(uintptr_t)&kinds[i];
        inject_arm(INJECT_NOTHING, 0, false);
        once(kind, INJECT_NOTHING);
        long n = inject_each(what, false, 1, once, kind);
        print_message("%s, %s: %ld places\n", kinds[i].path, inject_name(what), n);
        assert_true(n >= least);
    }
}

static void short_and_interrupted_calls_change_nothing(void **state)
{
    disturb(state, INJECT_SHORT, 3);
    disturb(state, INJECT_EINTR, 3);
    disturb(state, INJECT_EAGAIN, 3);
}

static void a_broken_connection_ends_the_call(void **state)
{
    disturb(state, INJECT_RESET, 3);
    disturb(state, INJECT_PIPE, 3);
    disturb(state, INJECT_ABORTED, 1);
}

static void without_memory_the_call_ends(void **state)
{
    disturb(state, INJECT_MEMORY, 50);
}

int main(void)
{
    inject_init();
    log_init("test_inject_grpc", (enum log_level)(LOG_ERROR + 1));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_and_interrupted_calls_change_nothing),
        cmocka_unit_test(a_broken_connection_ends_the_call),
        cmocka_unit_test(without_memory_the_call_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
