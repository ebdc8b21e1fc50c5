/* A connection of the gRPC server, from its first byte on, without a socket. The first byte says in what pieces the
 * rest comes, and whether the preface is to be added. Nothing may remain of a connection that has ended. */
#include <stdlib.h>

#include "grpc/testing/test.pb-c.h"
#include "lib/base/grpc_server_internal.h"
#include "lib/base/log.h"
#include "tests/fuzz/input.h"

static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";

struct app {
    struct grpc_server *server;
    struct grpc_call *waiting[16]; /* for admission */
    size_t count;
};

static void answer(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)service;
    const Grpc__Testing__SimpleRequest *request = (const Grpc__Testing__SimpleRequest *)message;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    size_t len;
    const char *value = grpc_call_metadata(call, "x-bin", &len);
    if (value)
        grpc_call_add_trailer(call, "y-bin", value, len);
    response.payload = request->payload;
    grpc_call_reply(call, &response.base);
}

static void echo(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)service;
    const Grpc__Testing__SimpleRequest *request = (const Grpc__Testing__SimpleRequest *)message;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    response.payload = request->payload;
    if (request->response_size > 1000) {
        struct status st = {0};
        status_violation(&st, "response_size", "too large");
        grpc_call_finish(call, &st);
        return;
    }
    grpc_call_take_request(call);
    grpc_call_send(call, &response.base);
    grpc_call_pause(call, request->response_size == 7);
    grpc_call_pause(call, false);
}

static void end(struct grpc_call *call, void *service)
{
    (void)service;
    grpc_call_finish(call, NULL);
}

#define TYPES                                                                                                          \
    .request = &grpc__testing__simple_request__descriptor, .response = &grpc__testing__simple_response__descriptor
static const struct grpc_method methods[] = {
    {.path = "/t.T/U", TYPES, .message = answer},
    {.path = "/t.T/S",
     TYPES,
     .client_streaming = true,
     .server_streaming = true,
     .message = echo,
     .end = end,
     .cancelled = end},
    {.path = NULL},
};

static bool admit(struct grpc_call *call, void *service)
{
    struct app *app = service;
    if (!grpc_call_metadata(call, "x-wait", NULL) || app->count == 16)
        return true;
    app->waiting[app->count++] = call;
    return false;
}

static void admit_waiting(struct app *app)
{
    for (size_t i = 0; i < app->count; i++)
        grpc_call_accept(app->waiting[i]);
    app->count = 0;
}

static struct app *make_app(void)
{
    struct app *app = calloc(1, sizeof *app);
    struct stream_hub *hub = stream_hub_new(ev_default_loop(0));
    check(app && hub);
    struct grpc_server_options options = {.max_message = 1 << 16, .max_buffered = 1 << 20, .max_streams = 20};
    log_init("fuzz", LOG_ERROR);
    app->server = grpc_server_new(hub, &options);
    grpc_server_add(app->server, methods, admit, app);
    return app;
}

/* Returns false when the connection has ended. */
static bool feed(struct app *app, struct grpc_conn *conn, const uint8_t *data, size_t len)
{
    grpc_conn_feed(conn, data, len);
    if (app->server->stats.connections)
        grpc_conn_pump(conn);
    return app->server->stats.connections;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct app *app;
    if (!app)
        app = make_app();
    if (size == 0)
        return 0;
    size_t step = (size_t)(data[0] >> 1) * 4 + 1;
    struct grpc_conn *conn = grpc_conn_new(app->server, NULL, false);
    check(conn && grpc_conn_start(conn));
    bool open = !(data[0] & 1) || feed(app, conn, preface, sizeof preface - 1);
    for (size_t at = 1; at < size && open; at += step) {
        open = feed(app, conn, data + at, size - at < step ? size - at : step);
        if ((at / step) % 3 == 2)
            admit_waiting(app);
    }
    if (open)
        grpc_conn_free(conn);
    admit_waiting(app);
    check(list_empty(&app->server->conns) && list_empty(&app->server->strangers) && list_empty(&app->server->dirty));
    check(app->server->stats.calls == 0 && app->server->buffered == 0);
    return 0;
}
