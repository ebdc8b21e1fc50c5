/* A server for the tests: grpc.testing.TestService (grpc/grpc doc/interop-test-descriptions.md), health and reflection.
 * Prints "port=<n>" when it listens; SIGTERM drains, SIGUSR1 makes the TestService unhealthy, SIGUSR2 healthy again. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/testing/test.pb-c.h"
#include "lib/base/config.h"
#include "lib/base/grpc_health.h"
#include "lib/base/grpc_reflection.h"
#include "lib/base/grpc_server.h"
#include "lib/base/log.h"

#define SERVICE "grpc.testing.TestService"
/* A stream of responses holds back while so much of it waits. */
#define PENDING_MAX (1024 * 1024)
#define PAYLOAD_MAX (96 * 1024 * 1024)

struct app {
    struct ev_loop *loop;
    struct grpc_server *server;
    struct grpc_health *health;
    uint8_t *payload;
    ev_signal term, down, up;
};

struct part {
    int32_t size, interval_us;
};

/* What a streaming call still has to do. */
struct stream_call {
    struct app *app;
    struct grpc_call *call;
    ev_timer timer;
    struct buf parts; /* struct part, as they are to be sent */
    bool waited;      /* the interval of the first part is over */
    bool ended;       /* no more requests */
    bool half;        /* answers start when the requests have ended */
    bool slow;        /* takes a request every 5 ms */
    int64_t received;
    struct status status;
    struct grpc_call *admit; /* instead: a call to be admitted by the timer */
};

static bool wants_status(struct status *st, const Grpc__Testing__EchoStatus *echo)
{
    if (!echo || echo->code == 0)
        return false;
    status_set(st, (enum status_code)echo->code, NULL, "%s", echo->message);
    return true;
}

static void echo_metadata(struct grpc_call *call)
{
    size_t len;
    const char *value = grpc_call_metadata(call, "x-grpc-test-echo-initial", &len);
    if (value)
        grpc_call_add_initial(call, "x-grpc-test-echo-initial", value, len);
    value = grpc_call_metadata(call, "x-grpc-test-echo-trailing-bin", &len);
    if (value)
        grpc_call_add_trailer(call, "x-grpc-test-echo-trailing-bin", value, len);
}

static void fill_payload(const struct app *app, Grpc__Testing__Payload *payload, int32_t size)
{
    grpc__testing__payload__init(payload);
    payload->body.data = app->payload;
    payload->body.len = size > 0 && size <= PAYLOAD_MAX ? (size_t)size : 0;
}

/* --- unary -------------------------------------------------------------------------------------------------------- */

static void empty_call(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    (void)service, (void)message;
    Grpc__Testing__Empty empty = GRPC__TESTING__EMPTY__INIT;
    echo_metadata(call);
    grpc_call_reply(call, &empty.base);
}

static void unary_call(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    const Grpc__Testing__SimpleRequest *request = (const Grpc__Testing__SimpleRequest *)message;
    Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    Grpc__Testing__Payload payload;
    struct status st = {0};
    echo_metadata(call);
    if (wants_status(&st, request->response_status)) {
        if (grpc_call_metadata(call, "x-test-details", NULL)) {
            st.code = STATUS_OK;
            status_violation(&st, "payload.body", "is not to our taste");
            status_metadata(&st, "limit", "%d", 7);
        }
        grpc_call_finish(call, &st);
        return;
    }
    fill_payload(service, &payload, request->response_size);
    response.payload = &payload;
    grpc_call_reply(call, &response.base);
}

/* --- streams -------------------------------------------------------------------------------------------------------
 */

static void stream_end(struct stream_call *s)
{
    struct grpc_call *call = s->call;
    struct status st = s->status;
    ev_timer_stop(s->app->loop, &s->timer);
    buf_free(&s->parts);
    free(s);
    grpc_call_finish(call, &st);
}

static void send_parts(struct stream_call *s)
{
    while (buf_len(&s->parts) && (!s->half || s->ended) && !ev_is_active(&s->timer)) {
        struct part part;
        memcpy(&part, buf_head(&s->parts), sizeof part);
        if (part.interval_us > 0 && !s->waited) {
            ev_timer_set(&s->timer, part.interval_us / 1e6, 0);
            ev_timer_start(s->app->loop, &s->timer);
            return;
        }
        if (grpc_call_pending(s->call) > PENDING_MAX)
            return;
        s->waited = false;
        buf_consume(&s->parts, sizeof part);
        Grpc__Testing__StreamingOutputCallResponse response = GRPC__TESTING__STREAMING_OUTPUT_CALL_RESPONSE__INIT;
        Grpc__Testing__Payload payload;
        fill_payload(s->app, &payload, part.size);
        response.payload = &payload;
        grpc_call_send(s->call, &response.base);
    }
    if (s->ended && buf_len(&s->parts) == 0 && !ev_is_active(&s->timer))
        stream_end(s);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)revents;
    struct stream_call *s = (struct stream_call *)((char *)w - offsetof(struct stream_call, timer));
    if (s->slow) {
        grpc_call_pause(s->call, false);
        return;
    }
    s->waited = true;
    send_parts(s);
}

static void on_drain(struct grpc_call *call, void *service)
{
    (void)service;
    send_parts(grpc_call_data(call));
}

static struct stream_call *stream_of(struct grpc_call *call, struct app *app)
{
    struct stream_call *s = grpc_call_data(call);
    if (s)
        return s;
    s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->app = app;
    s->call = call;
    s->slow = grpc_call_metadata(call, "x-test-slow", NULL) != NULL;
    ev_timer_init(&s->timer, on_timer, 0, 0);
    grpc_call_set_data(call, s);
    grpc_call_on_drain(call, on_drain);
    echo_metadata(call);
    return s;
}

static void output_message(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    struct stream_call *s = stream_of(call, service);
    const Grpc__Testing__StreamingOutputCallRequest *request =
        (const Grpc__Testing__StreamingOutputCallRequest *)message;
    for (size_t i = 0; i < request->n_response_parameters; i++) {
        struct part part = {request->response_parameters[i]->size, request->response_parameters[i]->interval_us};
        buf_put(&s->parts, &part, sizeof part);
    }
    bool unary = !grpc_call_method(call)->client_streaming;
    if (wants_status(&s->status, request->response_status) || unary)
        s->ended = true;
    send_parts(s);
}

static void half_duplex_message(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    stream_of(call, service)->half = true;
    output_message(call, service, message);
}

static void output_end(struct grpc_call *call, void *service)
{
    struct stream_call *s = stream_of(call, service);
    s->ended = true;
    send_parts(s);
}

static void stream_cancelled(struct grpc_call *call, void *service)
{
    stream_end(stream_of(call, service));
}

static void input_message(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    struct stream_call *s = stream_of(call, service);
    const Grpc__Testing__StreamingInputCallRequest *request = (const Grpc__Testing__StreamingInputCallRequest *)message;
    s->received += request->payload ? (int64_t)request->payload->body.len : 0;
    if (s->slow) {
        grpc_call_pause(call, true);
        ev_timer_set(&s->timer, 0.005, 0);
        ev_timer_start(s->app->loop, &s->timer);
    }
}

static void input_end(struct grpc_call *call, void *service)
{
    struct stream_call *s = stream_of(call, service);
    Grpc__Testing__StreamingInputCallResponse response = GRPC__TESTING__STREAMING_INPUT_CALL_RESPONSE__INIT;
    response.aggregated_payload_size = (int32_t)s->received;
    grpc_call_send(call, &response.base);
    stream_end(s);
}

/* --- admission ------------------------------------------------------------------------------------------------------
 */

static void on_admit_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)revents;
    struct stream_call *s = (struct stream_call *)((char *)w - offsetof(struct stream_call, timer));
    struct grpc_call *call = s->admit;
    free(s);
    grpc_call_accept(call);
}

static bool admit(struct grpc_call *call, void *service)
{
    struct app *app = service;
    const char *how = grpc_call_metadata(call, "x-test-admit", NULL);
    if (!how)
        return true;
    if (strcmp(how, "later") != 0) {
        struct status st = {0};
        grpc_call_finish(call, status_set(&st, STATUS_UNAUTHENTICATED, "API_KEY_MISSING", "not admitted"));
        return false;
    }
    struct stream_call *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->admit = call;
    ev_timer_init(&s->timer, on_admit_timer, 0.05, 0);
    ev_timer_start(app->loop, &s->timer);
    return false;
}

#define INPUT(name)  .request = &grpc__testing__##name##__descriptor
#define OUTPUT(name) .response = &grpc__testing__##name##__descriptor

static const struct grpc_method methods[] = {
    {.path = "/" SERVICE "/EmptyCall", INPUT(empty), OUTPUT(empty), .message = empty_call},
    {.path = "/" SERVICE "/UnaryCall", INPUT(simple_request), OUTPUT(simple_response), .message = unary_call},
    {.path = "/" SERVICE "/CacheableUnaryCall", INPUT(simple_request), OUTPUT(simple_response), .message = unary_call},
    {.path = "/" SERVICE "/StreamingOutputCall",
     INPUT(streaming_output_call_request),
     OUTPUT(streaming_output_call_response),
     .server_streaming = true,
     .message = output_message,
     .cancelled = stream_cancelled},
    {.path = "/" SERVICE "/StreamingInputCall",
     INPUT(streaming_input_call_request),
     OUTPUT(streaming_input_call_response),
     .client_streaming = true,
     .message = input_message,
     .end = input_end,
     .cancelled = stream_cancelled},
    {.path = "/" SERVICE "/FullDuplexCall",
     INPUT(streaming_output_call_request),
     OUTPUT(streaming_output_call_response),
     .client_streaming = true,
     .server_streaming = true,
     .message = output_message,
     .end = output_end,
     .cancelled = stream_cancelled},
    {.path = "/" SERVICE "/HalfDuplexCall",
     INPUT(streaming_output_call_request),
     OUTPUT(streaming_output_call_response),
     .client_streaming = true,
     .server_streaming = true,
     .message = half_duplex_message,
     .end = output_end,
     .cancelled = stream_cancelled},
    {.path = NULL},
};

/* --- the process ----------------------------------------------------------------------------------------------------
 */

static void on_drained(void *arg)
{
    ev_break(((struct app *)arg)->loop, EVBREAK_ALL);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
    (void)loop, (void)revents;
    struct app *app = w->data;
    if (w->signum != SIGTERM) {
        grpc_health_set(app->health, SERVICE, w->signum == SIGUSR2);
        return;
    }
    grpc_health_shutdown(app->health);
    grpc_server_drain(app->server, 10000, on_drained, app);
}

static void watch_signal(struct app *app, ev_signal *w, int number)
{
    ev_signal_init(w, on_signal, number);
    w->data = app;
    ev_signal_start(app->loop, w);
}

static int serve(struct app *app, const char *address, struct tls *tls)
{
    struct grpc_reflection *reflection = grpc_reflection_new(app->server, grpc_reflection_builtin());
    app->health = grpc_health_new(app->server);
    if (!reflection || !app->health || grpc_server_listen(app->server, address, tls) != ERR_OK)
        return 1;
    grpc_server_add(app->server, methods, admit, app);
    grpc_health_set(app->health, "", true);
    grpc_health_set(app->health, SERVICE, true);
    watch_signal(app, &app->term, SIGTERM);
    watch_signal(app, &app->down, SIGUSR1);
    watch_signal(app, &app->up, SIGUSR2);
    printf("port=%d\n", grpc_server_port(app->server));
    fflush(stdout);
    ev_run(app->loop, 0);
    grpc_server_free(&app->server);
    grpc_health_free(&app->health);
    grpc_reflection_free(&reflection);
    return 0;
}

int main(int argc, char **argv)
{
    char *listen = NULL, *cert = NULL, *key = NULL;
    int64_t max_message = 0, max_buffered = 0, max_connections = 0, min_ping = 0, idle = 0, unread = 0;
    struct config_option options[] = {
        {"listen", CONFIG_STRING, &listen, "127.0.0.1:0", 0, 0, "address:port"},
        {"tls-cert", CONFIG_STRING, &cert, NULL, 0, 0, "PEM file"},
        {"tls-key", CONFIG_STRING, &key, NULL, 0, 0, "PEM file"},
        {"max-message", CONFIG_SIZE, &max_message, "0", 0, 0, "bytes of one message"},
        {"max-buffered", CONFIG_SIZE, &max_buffered, "0", 0, 0, "bytes of all messages being received"},
        {"max-connections", CONFIG_INT, &max_connections, "0", 0, 0, "connections"},
        {"unread-timeout", CONFIG_DURATION, &unread, "0s", 0, 0, "until an answer that is not read is given up"},
        {"min-ping", CONFIG_DURATION, &min_ping, "0s", 0, 0, "between keepalive pings"},
        {"idle", CONFIG_DURATION, &idle, "0s", 0, 0, "before a connection without calls is closed"},
        {0},
    };
    config_load("grpc-test-server", "gRPC interop server for the tests", options, argc, argv, 0);
    log_init("grpc-test-server", LOG_INFO);
    struct app app = {.loop = ev_default_loop(0), .payload = calloc(1, PAYLOAD_MAX)};
    struct stream_hub *hub = stream_hub_new(app.loop);
    struct tls_options tls_options = {.cert_file = cert, .key_file = key, .alpn = "h2", .server = true};
    struct tls *tls = cert ? tls_new(&tls_options) : NULL;
    struct grpc_server_options server_options = {
        .max_message = (size_t)max_message,
        .max_buffered = (size_t)max_buffered,
        .max_connections = (uint32_t)max_connections,
        .unread_timeout_ms = unread,
        .min_ping_interval_ms = min_ping,
        .idle_timeout_ms = idle,
    };
    app.server = hub ? grpc_server_new(hub, &server_options) : NULL;
    if (!app.server || !app.payload || (cert && !tls))
        return 1;
    int rc = serve(&app, listen, tls);
    stream_hub_free(&hub);
    tls_free(&tls);
    config_free(options);
    free(app.payload);
    ev_loop_destroy(app.loop);
    return rc;
}
