/* The gRPC client against a hostile server: what comes on its connections, as raw bytes or as frames that are nearly
 * right, in any pieces, while calls begin, send, are canceled and run out of time. Every call ends exactly once, and
 * nothing is left of a client that is freed. */
#include <ev.h>
#include <nghttp2/nghttp2.h>

#include "grpc/testing/test.pb-c.h"
#include "lib/base/grpc_client_internal.h"
#include "tests/fuzz/input.h"

#define STREAMS_MAX 16
#define CALLS_MAX   24
#define STEPS_MAX   400

/* --- connections -------------------------------------------------------------------------------------------------- */

struct stream {
    const struct stream_handler *handler;
    void *arg;
    bool open; /* not closed by either side */
    bool full; /* the server does not read */
    bool greeted;
};

struct call {
    struct grpc_client_call *call; /* NULL once it has ended */
    bool used, cancel_at_message, again, frees;
    unsigned messages, ends;
};

static struct world {
    struct ev_loop *loop;
    struct grpc_client *client;
    struct stream streams[STREAMS_MAX];
    size_t stream_count;
    struct call calls[CALLS_MAX];
    size_t call_count;
    bool refused; /* connections fail at once */
} world;

struct ev_loop *stream_hub_loop(const struct stream_hub *hub)
{
    (void)hub;
    return world.loop;
}

struct stream *stream_connect(struct stream_hub *hub, const char *host, uint16_t port, struct tls *tls,
                              const char *source, const struct stream_handler *handler, void *arg)
{
    (void)hub, (void)tls, (void)source;
    check(strcmp(host, "server") == 0 && port == 7443);
    if (world.refused || world.stream_count == STREAMS_MAX)
        return NULL;
    struct stream *s = &world.streams[world.stream_count++];
    *s = (struct stream){.handler = handler, .arg = arg, .open = true};
    return s;
}

void stream_write(struct stream *s, const void *data, size_t len)
{
    check(s->open && s->greeted);
    touch((struct slice){data, len});
}

bool stream_writable(const struct stream *s)
{
    return !s->full;
}

void stream_close(struct stream *s)
{
    check(s->open);
    s->open = false;
}

const char *stream_alpn(const struct stream *s)
{
    (void)s;
    return "h2";
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static void begin_call(uint8_t how);

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct call *c = arg;
    check(c->call == call && !c->ends && response->descriptor == &grpc__testing__simple_response__descriptor);
    check(protobuf_c_message_get_packed_size(response) < 1 << 20);
    c->messages++;
    if (c->cancel_at_message)
        grpc_client_cancel(call);
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct call *c = arg;
    (void)call;
    check(c->ends++ == 0);
    check(status->code <= STATUS_UNAUTHENTICATED && memchr(status->message, 0, sizeof status->message));
    c->call = NULL;
    if (c->again && world.client)
        begin_call(0);
    if (c->frees)
        grpc_client_free(&world.client);
}

static void on_drain(struct grpc_client_call *call, void *arg)
{
    const struct call *c = arg;
    check(!c->ends && grpc_client_pending(call) == 0);
}

static const struct grpc_client_handler handler = {on_message, on_status, on_drain};

static void send_message(struct grpc_client_call *call, size_t bytes)
{
    static uint8_t body[70000];
    Grpc__Testing__SimpleRequest request = GRPC__TESTING__SIMPLE_REQUEST__INIT;
    Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
    payload.body = (ProtobufCBinaryData){bytes, body};
    request.payload = &payload;
    grpc_client_send(call, &request.base);
}

static void begin_call(uint8_t how)
{
    if (world.call_count == CALLS_MAX)
        return;
    struct call *c = &world.calls[world.call_count++];
    *c = (struct call){.used = true, .cancel_at_message = how & 8, .again = how & 16, .frees = (how & 0xe0) == 0xe0};
    c->call = grpc_client_start(world.client, "/t.T/U", &grpc__testing__simple_response__descriptor,
                                how & 4 ? 3600000 : 0, &handler, c);
    check(c->call);
    if (how & 1)
        send_message(c->call, how & 2 ? 70000 : 3);
    if (how & 2)
        grpc_client_end(c->call);
}

/* --- what the server says ----------------------------------------------------------------------------------------- */

static void put_frame(struct buf *out, uint8_t type, uint8_t flags, uint32_t id, const struct buf *body)
{
    uint32_t len = (uint32_t)buf_len(body);
    buf_put(out, (uint8_t[]){(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags}, 5);
    buf_put_u32be(out, id);
    buf_put(out, buf_slice(body).data, len);
}

/* Literal, without indexing (RFC 7541, 6.2.2). */
static void put_field(struct buf *out, const char *name, struct slice value)
{
    buf_put_u8(out, 0);
    buf_put_u8(out, (uint8_t)strlen(name));
    buf_put_str(out, name);
    buf_put_u8(out, (uint8_t)value.len);
    buf_put(out, value.data, value.len);
}

static void put_fields(struct buf *out, struct slice *in)
{
    static const char *const fields[][2] = {{":status", "200"},
                                            {":status", "100"},
                                            {":status", "503"},
                                            {"content-type", "application/grpc"},
                                            {"content-type", "application/grpc+proto"},
                                            {"content-type", "text/html"},
                                            {"grpc-status", "0"},
                                            {"grpc-status", "8"},
                                            {"grpc-message", "no%20%e2%82%ac%zz%"},
                                            {"grpc-encoding", "identity"},
                                            {"grpc-encoding", "gzip"},
                                            {"grpc-status-details-bin", "CAgSAm5v"}};
    static const char *const names[] = {"grpc-status", "grpc-message", "grpc-status-details-bin", "x-bin"};
    for (uint8_t n = take_u8(in) & 7; n > 0; n--) {
        uint8_t which = take_u8(in);
        if (which < 192)
            put_field(out, fields[which % 12][0],
                      (struct slice){(const uint8_t *)fields[which % 12][1], strlen(fields[which % 12][1])});
        else
            put_field(out, names[which & 3], take_bytes(in, take_u8(in) & 127));
    }
}

static void put_message(struct buf *out, struct slice *in)
{
    struct slice body = take_bytes(in, take_u8(in));
    uint8_t how = take_u8(in);
    buf_put_u8(out, how < 240 ? 0 : how & 1);
    buf_put_u32be(out, (uint32_t)body.len + (how % 16 == 1));
    buf_put(out, body.data, body.len);
}

/* The lower half of `how` is the frame's type. */
static void put_some_frame(struct buf *out, uint8_t how, struct slice *in)
{
    struct buf body = {0};
    uint8_t choice = take_u8(in);
    uint32_t id = choice & 15 ? 2u * (choice & 15) - 1 : 0;
    uint8_t flags = 0;
    switch (how & 15) {
    case 0:
        put_message(&body, in);
        flags = choice >> 7 ? NGHTTP2_FLAG_END_STREAM : 0;
        break;
    case 1:
        put_fields(&body, in);
        flags = (uint8_t)((choice & 16 ? 0 : NGHTTP2_FLAG_END_HEADERS) | choice >> 7);
        break;
    case 2:
        put_fields(&body, in);
        how = NGHTTP2_CONTINUATION;
        flags = choice & 16 ? 0 : NGHTTP2_FLAG_END_HEADERS;
        break;
    case 3:
        buf_put_u32be(&body, choice >> 4);
        break;
    case 4:
        id = 0;
        flags = choice & 1;
        if (!flags) {
            buf_put_u16be(&body, 1 + choice % 7);
            buf_put_u32be(&body, choice & 128 ? 0x7fffffff : take_u16(in));
        }
        break;
    case 6:
        id = 0;
        flags = choice >> 7;
        buf_put(&body, "12345678", 8);
        break;
    case 7:
        id = 0;
        buf_put_u32be(&body, choice & 15 ? 2u * (choice & 15) - 1 : 0);
        buf_put_u32be(&body, choice >> 4);
        break;
    case 8:
        buf_put_u32be(&body, choice & 128 ? 0x7fffffff : take_u16(in));
        break;
    default: {
        struct slice some = take_bytes(in, choice & 31);
        buf_put(&body, some.data, some.len);
    }
    }
    put_frame(out, how & 15, flags, id, &body);
    buf_free(&body);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static void hear(struct stream *s, struct slice bytes)
{
    uint8_t *exact = copy_exactly(bytes);
    if (s->open && s->greeted && bytes.len)
        check(s->handler->on_data(s, s->arg, exact, bytes.len) == bytes.len);
    free(exact);
}

static void hear_frames(struct stream *s, uint8_t how, struct slice *in)
{
    struct buf out = {0};
    put_some_frame(&out, how, in);
    if (how & 16)
        put_some_frame(&out, take_u8(in), in);
    size_t cut = how & 32 ? buf_len(&out) / 2 : buf_len(&out);
    struct slice all = buf_slice(&out);
    hear(s, (struct slice){all.data, cut});
    hear(s, (struct slice){all.data + cut, all.len - cut});
    buf_free(&out);
}

static void connection_step(struct stream *s, uint8_t how)
{
    static const enum err ends[] = {ERR_CLOSED, ERR_IO, ERR_TIMEOUT, ERR_AUTH};
    if (!s->open)
        return;
    if (!s->greeted) {
        s->greeted = true;
        s->handler->on_open(s, s->arg);
        return;
    }
    switch (how & 3) {
    case 0:
        s->full = true;
        break;
    case 1:
        s->full = false;
        s->handler->on_drain(s, s->arg);
        break;
    default:
        if (how < 192)
            return;
        s->open = false;
        s->handler->on_close(s, s->arg, ends[how >> 4 & 3]);
    }
}

static void call_step(struct call *c, uint8_t how)
{
    if (!c->call || !world.client)
        return;
    switch (how & 3) {
    case 0:
        send_message(c->call, (size_t)how * 100);
        break;
    case 1:
        grpc_client_end(c->call);
        break;
    case 2:
        grpc_client_cancel(c->call);
        break;
    default:
        if (!ev_is_active(&c->call->timer))
            return;
        ev_timer_stop(world.loop, &c->call->timer);
        ev_invoke(world.loop, &c->call->timer, EV_TIMER);
    }
}

static void step(struct slice *in)
{
    uint8_t op = take_u8(in), choice = take_u8(in);
    struct stream *s =
        world.stream_count ? &world.streams[(world.stream_count - 1 - (op >> 4) % world.stream_count)] : NULL;
    switch (op & 7) {
    case 0:
        begin_call(choice);
        break;
    case 1:
        if (s)
            connection_step(s, choice);
        break;
    case 2:
        if (world.call_count)
            call_step(&world.calls[(op >> 3) % world.call_count], choice);
        break;
    case 3:
        ev_run(world.loop, EVRUN_NOWAIT);
        break;
    case 4:
        if (s)
            hear(s, take_bytes(in, choice));
        break;
    case 5:
        world.refused = choice == 255;
        break;
    default:
        if (s)
            hear_frames(s, choice, in);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_init("fuzz", SILENT);
    world.loop = ev_default_loop(0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    struct ev_loop *loop = world.loop;
    memset(&world, 0, sizeof world);
    world.loop = loop;
    world.client = grpc_client_new(NULL, "server:7443", NULL);
    check(world.client);
    grpc_client_metadata(world.client, "authorization", "Bearer muster_1_secret");
    begin_call(take_u8(&in));
    for (unsigned i = 0; i < STEPS_MAX && in.len > 0 && world.client; i++)
        step(&in);
    grpc_client_free(&world.client);
    for (size_t i = 0; i < world.call_count; i++)
        check(world.calls[i].ends == 1);
    for (size_t i = 0; i < world.stream_count; i++)
        check(!world.streams[i].open);
    return 0;
}
