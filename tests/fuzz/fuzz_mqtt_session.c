/* Whole conversations of devices with a worker: the real server, sessions, credentials and batch cache, on streams that
 * are plain memory. The input is a list of steps: what a device sends, cut anywhere; what Redis and PostgreSQL answer
 * meanwhile; time that passes. After each step all that was sent must be packets a device may be sent, and what the
 * worker holds must add up. */
#include <ev.h>

#include "lib/base/clock.h"
#include "lib/store/db_credential.h"
#include "lib/store/live.h"
#include "muster/v1/command_service.pb-c.h"
#include "tests/fuzz/device.h"
#include "tests/fuzz/due.h"
#include "tests/fuzz/filled_redis.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/spec.h"
#include "workers/acks.h"
#include "workers/answer.h"
#include "workers/attach.h"
#include "workers/batch_cache.h"
#include "workers/credentials.h"
#include "workers/gates.h"
#include "workers/lease.h"
#include "workers/mqtt_internal.h"
#include "workers/routed.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define STREAMS_MAX 6
#define ACKS_MAX    4096
#define SPECS_MAX   64

/* --- the world around the sessions -------------------------------------------------------------------------------- */

struct stream {
    const struct stream_handler *handler;
    void *arg;
    struct buf in, out;
    bool used, paused, closing, closed;
    bool full; /* its device does not read */
    /* What its device has been told. */
    bool connack, disconnect;
    uint8_t version; /* of the last CONNECT it has sent, and then of CONNACK */
};

struct waiting_spec {
    uint64_t batch;
    live_bytes_fn *done;
    void *arg;
};

static struct world {
    struct ev_loop *loop;
    struct worker worker;
    int64_t now_us;
    bool lease, acks_full, gate_closed;
    uint64_t holds; /* orders to hold a batch, or not any more, so far */
    stream_accept_fn *accept;
    stream_room_fn *room;
    void *accept_arg;
    struct stream streams[STREAMS_MAX];
    struct stream *durable_for; /* an outcome is being told to it, */
    struct pubacks due;         /* which had these to come */
    struct ack acks[ACKS_MAX];
    size_t ack_count;
    struct waiting_spec specs[SPECS_MAX];
    size_t spec_count;
    bool changed[DEVICES]; /* to be attached */
} world;

int64_t clock_mono_us(void)
{
    return world.now_us;
}

int64_t clock_wall_ms(void)
{
    return DEVICE_BEGIN_MS + world.now_us / 1000;
}

void stream_set_handler(struct stream *s, const struct stream_handler *handler, void *arg)
{
    s->handler = handler;
    s->arg = arg;
    s->full = s->full && handler->output_limit < UINT32_MAX;
}

void stream_write(struct stream *s, const void *data, size_t len)
{
    check(!s->closed);
    if (!s->closing)
        buf_put(&s->out, data, len);
}

static void deliver(struct stream *s, size_t len);
void stream_receive(struct stream *s)
{
    deliver(s, SIZE_MAX);
}

/* As if it left at once: what it may not send any more, it does not take. */
void stream_write_guarded(struct stream *s, const void *data, size_t len)
{
    check(world.lease);
    stream_write(s, data, len);
}

void stream_hurry(struct stream *s)
{
    check(!s->closed);
}

void stream_pause(struct stream *s, bool paused)
{
    check(!s->closed);
    if (!s->closing)
        s->paused = paused;
}

void stream_shutdown(struct stream *s)
{
    check(!s->closed);
    s->closing = true;
}

/* Without memory only, and there is enough here. */
void stream_fail_soon(struct stream *s, enum err why)
{
    check(!s && !why);
}

void stream_close(struct stream *s)
{
    s->closed = true;
}

const char *stream_peer(const struct stream *s)
{
    (void)s;
    return "peer";
}

struct stream_listener *stream_listen(struct stream_hub *hub, const char *address, struct tls *tls,
                                      int handshake_timeout_ms, stream_accept_fn *on_accept, void *arg)
{
    static int listener;
    (void)hub, (void)address, (void)tls, (void)handshake_timeout_ms;
    world.accept = on_accept;
    world.accept_arg = arg;
    return (struct stream_listener *)(void *)&listener;
}

void stream_listener_set_room(struct stream_listener *l, stream_room_fn *room)
{
    (void)l;
    world.room = room;
}

bool stream_silent(const struct stream *s)
{
    check(!s->closed);
    return buf_len(&s->in) == 0;
}

bool stream_writable(const struct stream *s)
{
    return !s->full;
}

int stream_listener_port(const struct stream_listener *l)
{
    (void)l;
    return 1;
}

void stream_listener_free(struct stream_listener **l)
{
    *l = NULL;
}

bool gates_known(const struct gates *gates)
{
    (void)gates;
    return true;
}

bool gates_closed(const struct gates *gates, uint32_t tenant)
{
    (void)gates;
    check(tenant == DEVICE_TENANT);
    return world.gate_closed;
}

bool acks_full(const struct acks *acks)
{
    (void)acks;
    return world.acks_full;
}

void acks_add(struct acks *acks, const struct ack *ack)
{
    (void)acks;
    check(ack->tenant == DEVICE_TENANT && ack->seq < DEVICES && ack->event < EVENT_COUNT);
    if (world.ack_count < ACKS_MAX)
        world.acks[world.ack_count++] = *ack;
}

void acks_add_result(struct acks *acks, const struct ack *ack, struct slice result, struct slice information)
{
    Muster__V1__CommandResult *r = muster__v1__command_result__unpack(NULL, result.len, result.data);
    Muster__V1__DeviceInformation *i = muster__v1__device_information__unpack(NULL, information.len, information.data);
    check(r && i);
    muster__v1__command_result__free_unpacked(r, NULL);
    muster__v1__device_information__free_unpacked(i, NULL);
    acks_add(acks, ack);
}

void attach_change(struct attach *attach, uint32_t tenant, uint32_t seq)
{
    (void)attach;
    check(tenant == DEVICE_TENANT && seq < DEVICES);
    world.changed[seq] = true;
}

void routed_continue(struct routed *routed)
{
    (void)routed;
}

bool lease_holds_at(const struct lease *lease, int64_t now_us)
{
    (void)lease, (void)now_us;
    return world.lease;
}

void live_get_spec(struct live *live, uint64_t batch, live_bytes_fn *done, void *arg)
{
    (void)live;
    check(world.spec_count < SPECS_MAX);
    world.specs[world.spec_count++] = (struct waiting_spec){batch, done, arg};
}

void db_credential_read(struct pg *pg, int64_t after,
                        void (*revoked)(void *arg, int64_t id, uint32_t tenant, uint32_t seq, int64_t issued_before_ms),
                        void (*done)(void *arg, enum err err, const struct db_signing_key *keys, size_t count),
                        void *arg)
{
    struct db_signing_key key = {.id = 1};
    (void)pg, (void)after, (void)revoked;
    memcpy(key.secret, device_secret, sizeof device_secret);
    done(arg, ERR_OK, &key, 1);
}

/* --- what a device must see --------------------------------------------------------------------------------------- */

static size_t remaining_length(struct slice *in)
{
    size_t len = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = take_u8(in);
        check(shift <= 21);
        len |= (size_t)(byte & 127) << shift;
        if (!(byte & 128))
            return len;
    }
}

static void see_puback(struct stream *s, struct slice body)
{
    uint16_t id;
    uint8_t reason = 0;
    check(slice_u16be(&body, &id) && id != 0);
    if (body.len > 0)
        check(s->version == MQTT_5 && slice_u8(&body, &reason));
    if (world.durable_for != s) {
        check(reason >= 0x80);
        return;
    }
    check_due(&world.due, id, reason);
}

/* One packet from the front; false when none is left. Packets are written whole. */
static bool see_packet(struct stream *s, struct slice *out)
{
    uint8_t first;
    struct slice body;
    if (!slice_u8(out, &first))
        return false;
    size_t len = remaining_length(out);
    check(slice_bytes(out, len, &body));
    check(!s->disconnect && s->connack == (first >> 4 != MQTT_KIND_CONNACK));
    switch (first >> 4) {
    case MQTT_KIND_CONNACK:
        check(body.len >= 2 && body.data[0] == 0);
        s->connack = true;
        s->version = body.len > 2 ? MQTT_5 : MQTT_3_1_1;
        break;
    case MQTT_KIND_PUBACK:
        see_puback(s, body);
        break;
    case MQTT_KIND_DISCONNECT:
        check(s->version == MQTT_5 && body.len >= 1);
        s->disconnect = true;
        break;
    case MQTT_KIND_PUBLISH:
    case MQTT_KIND_SUBACK:
        check(body.len >= 3);
        break;
    case MQTT_KIND_UNSUBACK:
        check(body.len >= (s->version == MQTT_5 ? 4u : 2u));
        break;
    default:
        check(first >> 4 == MQTT_KIND_PINGRESP && body.len == 0);
    }
    return true;
}

static void see_output(struct stream *s)
{
    struct slice out = buf_slice(&s->out);
    check(!s->out.failed);
    while (see_packet(s, &out))
        ;
    buf_reset(&s->out);
}

static void count_held(void *arg, struct session *s)
{
    uint64_t *held = arg;
    const struct mqtt_session *m = container_of(s, struct mqtt_session, session);
    unsigned in_flight = 0, unanswered = 0, waiting = 0;
    for (unsigned i = 0; i < s->held_count; i++)
        in_flight += held_is_out(&s->held[i]) && !s->held[i].passed;
    for (unsigned i = 0; i < s->held_count; i++)
        unanswered += s->held[i].phase == HELD_SENT && !s->held[i].passed;
    for (size_t i = 0; i < world.ack_count; i++)
        waiting += world.acks[i].generation == s->generation;
    check(s->in_flight == in_flight && s->held_count <= SESSION_HELD_MAX);
    check(unanswered <= (unsigned)s->worker->options.in_flight);
    check(m->unacked <= m->receive_maximum);
    check(world.ack_count == ACKS_MAX || count_unsettled(&m->pubacks) >= waiting); /* some wait for their batch */
    for (unsigned i = 0; i < s->held_count; i++)
        *held += s->held[i].phase != HELD_PUT_OFF;
}

static void look_at_all(void)
{
    uint64_t held = 0, open = 0;
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        struct stream *s = &world.streams[i];
        if (!s->used)
            continue;
        see_output(s);
        open += !s->closing && !s->closed;
    }
    session_table_each(world.worker.sessions, count_held, &held);
    check(held == world.worker.held);
    check(open == mqtt_server_stats(world.worker.mqtt)->connections);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static void gone(struct stream *s, enum err why)
{
    if (s->closed)
        return;
    s->closed = true;
    if (s->handler->on_close)
        s->handler->on_close(s, s->arg, why);
}

/* Hands over what has come, as a stream does. */
static void deliver(struct stream *s, size_t len)
{
    if (!s->used || s->closed || s->paused || s->closing || len == 0 || buf_len(&s->in) == 0)
        return;
    if (len > buf_len(&s->in))
        len = buf_len(&s->in);
    struct slice part = {buf_head(&s->in), len};
    uint8_t *exact = copy_exactly(part);
    size_t used = s->handler->on_data(s, s->arg, exact, len);
    free(exact);
    check(used <= len);
    buf_consume(&s->in, used);
    if (!s->closing && !s->paused && len - used > s->handler->input_limit)
        gone(s, ERR_LIMIT);
}

/* The device stops reading what it is sent, or goes on. */
static void read_by_device(struct stream *s, bool full)
{
    bool drained = s->full && !full;
    s->full = full;
    if (s->used && drained && !s->closed && !s->closing && s->handler->on_drain)
        s->handler->on_drain(s, s->arg);
}

static void open_stream(struct stream *s, bool scarce)
{
    if (s->used || world.room(world.accept_arg, scarce) == STREAM_ROOM_NONE)
        return;
    *s = (struct stream){.used = true};
    world.accept(s, world.accept_arg);
    if (!s->closed && s->handler->on_open)
        s->handler->on_open(s, s->arg);
}

static void forget_stream(struct stream *s)
{
    if (!s->used)
        return;
    gone(s, ERR_CLOSED);
    see_output(s);
    buf_free(&s->in);
    buf_free(&s->out);
    s->used = false;
}

/* Not always the oldest. */
static void make_durable(uint8_t which)
{
    if (world.ack_count == 0)
        return;
    struct ack *at = &world.acks[which % world.ack_count], ack = *at;
    memmove(at, at + 1, (size_t)(world.acks + --world.ack_count - at) * sizeof *at);
    struct session *s = session_table_get(world.worker.sessions, ack.tenant, ack.seq);
    if (ack.generation == 0 || !s || s->generation != ack.generation)
        return;
    const struct mqtt_session *m = container_of(s, struct mqtt_session, session);
    struct stream *stream = m->stream;
    see_output(stream);
    world.due = copy_due(&m->pubacks);
    pubacks_settle(&world.due, ack.token, 0);
    world.durable_for = stream;
    session_durable(s, ack.batch, ack.event, ack.token);
    see_output(stream);
    world.durable_for = NULL;
    check_all_said(&world.due);
}

/* What Redis says of a batch: a good spec, none, one that is none, or nothing at all. */
static void answer_spec(uint8_t how)
{
    if (world.spec_count == 0)
        return;
    struct waiting_spec w = world.specs[0];
    uint8_t bytes[SPEC_MAX];
    memmove(world.specs, world.specs + 1, --world.spec_count * sizeof *world.specs);
    struct slice value = {bytes, put_spec(bytes, w.batch, how, clock_wall_ms())};
    switch (how >> 5) {
    case 5:
        value.len /= 2;
        break;
    case 6:
        w.done(w.arg, ERR_NOT_FOUND, (struct slice){bytes, 0});
        return;
    case 7:
        w.done(w.arg, ERR_UNAVAILABLE, (struct slice){bytes, 0});
        return;
    default:
        break;
    }
    w.done(w.arg, ERR_OK, value);
}

static void found(void *arg, struct batch *batch, uint64_t seq, uint64_t how)
{
    (void)arg;
    if (!batch)
        return;
    struct session *s = session_table_get(world.worker.sessions, DEVICE_TENANT, (uint32_t)seq);
    const struct slice own = {(const uint8_t *)"\3abc", batch->fill && seq & 1 ? 4 : 0}; /* its values */
    if (s && how & 1 && s->receiving)
        session_offer(s, batch, own);
    else if (s)
        session_hold(s, batch, state_byte(STATE_ROUTED, how >> 4 & 15), own);
    batch_unref(world.worker.batches, batch);
}

/* A device that asked for it gets what Redis has for it. */
static void attach(unsigned device, uint8_t how)
{
    struct session *s = session_table_get(world.worker.sessions, DEVICE_TENANT, device);
    if (!world.changed[device] || world.spec_count + DEVICE_BATCHES > SPECS_MAX)
        return;
    world.changed[device] = false;
    if (!s || !s->receiving)
        return;
    unsigned given = how % (DEVICE_BATCHES + 1);
    session_attached(s, how & 8 ? session_wants(s) : given, session_wants(s));
    for (unsigned i = 0; i < given; i++)
        batch_cache_get(world.worker.batches, i + 1, found, NULL, device, how & 0xf0);
    session_settled(s);
}

static void end_session(unsigned device, uint8_t how)
{
    static const enum session_end ends[] = {SESSION_TAKEN_OVER, SESSION_REVOKED, SESSION_DRAINING, SESSION_FENCED};
    struct session *s = session_table_get(world.worker.sessions, DEVICE_TENANT, device);
    if (!s)
        return;
    if (how & 4)
        s->transport->hear(s);
    if (session_table_get(world.worker.sessions, DEVICE_TENANT, device) != s)
        return;
    session_close(s);
    s->transport->close(s, ends[how % 4]);
}

static void pass_time(uint8_t how)
{
    world.now_us += (int64_t)(how & 15) * 100000 << (how >> 6);
    ev_invoke(world.loop, &world.worker.mqtt->timer, EV_TIMER);
    ev_invoke(world.loop, &world.worker.watch.timer, EV_TIMER);
}

static void send_something(struct stream *s, unsigned device, uint8_t what, struct slice *in)
{
    struct buf none = {0};
    struct slice raw;
    if (!s->used || s->closed || buf_len(&s->in) > 4 * MQTT_MAX_PACKET)
        return;
    uint8_t version;
    switch (what & 7) {
    case 0:
        version = say_connect(&s->in, device, in);
        s->version = s->connack ? s->version : version;
        break;
    case 1:
    case 2:
        say_filters(&s->in, s->version, device, (what & 7) == 1, in);
        break;
    case 3:
        say_answer(&s->in, s->version, device, in);
        break;
    case 4:
        say_puback(&s->in, in);
        break;
    case 5:
        say_packet(&s->in, MQTT_KIND_PINGREQ << 4, &none);
        break;
    case 6:
        say_packet(&s->in, MQTT_KIND_DISCONNECT << 4, &none);
        break;
    default:
        raw = take_bytes(in, take_u8(in));
        buf_put(&s->in, raw.data, raw.len);
    }
}

/* A cancel, a hold or its end, or a gate that closes or opens, as the inbox and gates tell sessions. */
static void take_back(unsigned device, uint64_t id, uint8_t how)
{
    struct session *s = session_table_get(world.worker.sessions, DEVICE_TENANT, device);
    if (how & 128) {
        world.gate_closed = how & 64;
        if (s && world.gate_closed)
            session_forget_unsent(s);
        return;
    }
    struct batch *batch = how & 64 ? batch_cache_hold(world.worker.batches, id, ++world.holds)
                                   : batch_cache_cancel(world.worker.batches, id);
    if (batch && s && (batch->canceled || batch_held(batch)))
        session_take_back(s, batch);
}

/* The low four bits choose the step, the others stream, device and more. */
static void step(struct slice *in)
{
    uint8_t op = take_u8(in), choice = take_u8(in);
    struct stream *s = &world.streams[choice % STREAMS_MAX];
    unsigned device = (choice >> 3) % DEVICES;
    switch (op & 15) {
    case 0:
        open_stream(s, op >> 4 == 15);
        break;
    case 1:
        forget_stream(s);
        break;
    case 2:
        if (s->used)
            gone(s, ERR_IO);
        break;
    case 3:
        make_durable(op >> 4);
        break;
    case 4:
        answer_spec(take_u8(in));
        break;
    case 5:
        attach(device, take_u8(in));
        break;
    case 6:
        if (world.spec_count < SPECS_MAX)
            batch_cache_get(world.worker.batches, 1 + op / 16 % DEVICE_BATCHES, found, NULL, device, 1);
        break;
    case 7:
        take_back(device, 1 + op / 16 % DEVICE_BATCHES, choice);
        break;
    case 8:
        end_session(device, op >> 4);
        break;
    case 9:
        pass_time(choice);
        break;
    case 10:
        world.lease = op >> 4 & 1;
        world.acks_full = op >> 5 & 1;
        break;
    case 11:
        credentials_revoke(world.worker.credentials, DEVICE_TENANT, device, clock_wall_ms() - 500 + (op >> 4) * 100);
        break;
    case 12:
        world.worker.draining = op >> 4 == 15;
        read_by_device(s, op >> 4 & 1);
        break;
    default:
        open_stream(s, false);
        send_something(s, device, op >> 4, in);
        deliver(s, op & 1 ? SIZE_MAX : (size_t)1 + choice);
    }
}

static void begin(uint8_t how)
{
    struct worker *w = &world.worker;
    struct ev_loop *loop = world.loop;
    memset(&world, 0, sizeof world);
    world.loop = loop;
    world.lease = true;
    world.now_us = 1000000;
    w->loop = loop;
    w->options = (struct worker_options){
        .in_flight = 1 + how % 3, .held_max = 1000, .not_now_ms = 500, .keepalive_max_s = how & 8 ? 2 : 0};
    w->sessions = session_table_new();
    w->batches = batch_cache_new(NULL);
    w->answers = answers_new(w);
    w->credentials = credentials_new(loop, NULL);
    ev_run(loop, EVRUN_NOWAIT); /* reads the keys */
    check(credentials_ready(w->credentials));
    w->mqtt = mqtt_server_new(w);
    worker_watch_start(w);
    check(mqtt_server_listen(w->mqtt, "any", NULL) == 1);
}

static void end(void)
{
    struct worker *w = &world.worker;
    for (unsigned i = 0; i < STREAMS_MAX; i++)
        forget_stream(&world.streams[i]);
    check(session_table_count(w->sessions) == 0 && w->held == 0);
    check(mqtt_server_stats(w->mqtt)->connections == 0);
    while (world.spec_count > 0)
        answer_spec(0xff);
    for (uint64_t id = 1; id <= DEVICE_BATCHES; id++) {
        const struct batch *batch = batch_cache_find(w->batches, id);
        check(!batch || batch->refs == 0);
    }
    mqtt_server_free(&w->mqtt);
    worker_watch_stop(w);
    credentials_free(&w->credentials);
    answers_free(&w->answers);
    batch_cache_free(&w->batches);
    session_table_free(&w->sessions);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_init("fuzz", SILENT);
    world.loop = ev_default_loop(0);
    sign_tokens();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    begin(take_u8(&in));
    for (unsigned i = 0; i < 1000 && in.len > 0; i++) {
        step(&in);
        look_at_all();
    }
    end();
    return 0;
}
