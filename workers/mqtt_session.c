#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/arena.h"
#include "lib/base/log.h"
#include "muster/v1/delivery.pb-c.h"
#include "proto/fill.h"
#include "proto/json.h"
#include "workers/acks.h"
#include "workers/batch_cache.h"
#include "workers/broken.h"
#include "workers/mqtt_internal.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define PREFIX       "devices/"
#define COMMANDS     "/commands"
#define ACKS         "/acks"
#define TOPIC_MAX    (sizeof PREFIX + MQTT_DEVICE_ID_MAX + sizeof COMMANDS)
#define JSON_TYPE    "application/json"
#define CONTENT_TYPE "content-type" /* user property of CONNECT and SUBSCRIBE */

static struct mqtt_session *of(struct session *s)
{
    return container_of(s, struct mqtt_session, session);
}

static struct mqtt_server *server_of(const struct mqtt_session *m)
{
    return m->session.worker->mqtt;
}

/* --- topics ------------------------------------------------------------------------------------------------------- */

static size_t put_topic(const struct mqtt_session *m, const char *suffix, char out[TOPIC_MAX])
{
    return (size_t)snprintf(out, TOPIC_MAX, PREFIX "%.*s%s", m->id_len, m->id, suffix);
}

static bool is_topic(const struct mqtt_session *m, struct slice topic, const char *suffix)
{
    size_t prefix = sizeof PREFIX - 1, end = strlen(suffix);
    return topic.len == prefix + m->id_len + end && memcmp(topic.data, PREFIX, prefix) == 0 &&
           memcmp(topic.data + prefix, m->id, m->id_len) == 0 &&
           memcmp(topic.data + prefix + m->id_len, suffix, end) == 0;
}

/* --- the transport ------------------------------------------------------------------------------------------------ */

static uint16_t next_packet_id(struct mqtt_session *m)
{
    if (++m->next_id == 0)
        m->next_id = 1;
    return m->next_id;
}

/* Commands go out while the device has PUBACKed enough of them. */
static void open_window(struct mqtt_session *m)
{
    int64_t limit = m->session.worker->options.in_flight;
    if (limit > UINT8_MAX)
        limit = UINT8_MAX;
    m->session.in_flight_max = m->unacked < m->receive_maximum ? (uint8_t)limit : 0;
}

#define TOO_LARGE "larger than the device's Maximum Packet Size"

/* Puts all of a PUBLISH but its payload into the scratch buffer, behind the PUBACKs that are due. Returns NULL, or why
 * it must not be sent. */
static const char *put_publish(struct mqtt_session *m, size_t payload_len)
{
    struct buf *scratch = &server_of(m)->scratch;
    char topic[TOPIC_MAX];
    size_t len = put_topic(m, COMMANDS, topic);
    uint16_t id = m->qos ? next_packet_id(m) : 0;
    mqtt_puback_put(m);
    size_t before = buf_len(scratch);
    mqtt_encode_publish(scratch, m->version, (struct slice){(const uint8_t *)topic, len}, id,
                        m->json ? JSON_TYPE : NULL, payload_len);
    if (buf_len(scratch) - before + payload_len > m->max_packet) { /* 3.1.2.11.4 */
        buf_truncate(scratch, before);
        mqtt_send(server_of(m), m->stream);
        return TOO_LARGE;
    }
    if (id) {
        m->unacked++;
        open_window(m);
    }
    return NULL;
}

/* Sends the scratch buffer, or no byte of it, should the lease have run out before its turn comes. */
static void send_command(struct mqtt_session *m)
{
    struct slice s = buf_slice(&server_of(m)->scratch);
    if (mqtt_made(server_of(m), m->stream))
        stream_write_guarded(m->stream, s.data, s.len);
    buf_reset(&server_of(m)->scratch);
}

/* What a device gets of a batch with values. */
struct filled {
    struct slice values[FILL_VARIABLES_MAX];
    uint8_t command_head[DELIVERY_COMMAND_HEAD_MAX];
    size_t head_len, command_len; /* bytes */
};

/* False when its values are not those of the batch. */
static bool fill_values(const struct batch *batch, struct slice packed, struct filled *f)
{
    if (!fill_unpack(packed.len ? packed : buf_slice(&batch->defaults), f->values, batch->fill->variables))
        return false;
    f->command_len = fill_size(batch->fill, f->values);
    f->head_len = delivery_put_command_head(f->command_head, f->command_len);
    return true;
}

/* The tail of its Delivery. The template is copied around the values: see proto/fill.h. */
static void put_filled(const struct batch *batch, unsigned attempt, const struct filled *f, struct buf *out)
{
    struct slice front = batch_tail(batch, attempt);
    buf_put(out, front.data, front.len);
    buf_put(out, f->command_head, f->head_len);
    fill_put(batch->fill, buf_slice(&batch->command), f->values, out);
}

/* {"expiresAt":…,"command":…}: the tail of a Delivery. NULL with errno as json.h. */
static char *make_json(struct slice tail)
{
    struct arena arena = {0};
    Muster__V1__Delivery *delivery = muster__v1__delivery__unpack(arena_allocator(&arena), tail.len, tail.data);
    errno = arena.failed ? ENOMEM : EINVAL;
    char *json = delivery ? json_from_message(&delivery->base, false) : NULL;
    arena_free(&arena);
    return json;
}

static const char *no_json(struct mqtt_session *m)
{
    if (errno != ENOMEM)
        return "cannot be written as JSON";
    stream_fail_soon(m->stream, ERR_NOMEM); /* and it goes back into the queue */
    return NULL;
}

/* `json` as make_json gives it. */
static const char *send_json(struct mqtt_session *m, const char *json, const struct command_id *id, unsigned attempt)
{
    char text[COMMAND_ID_TEXT], head[128];
    command_id_write(text, id);
    int n = snprintf(head, sizeof head, "{\"commandId\":\"%.*s\",\"attempt\":%u,", COMMAND_ID_TEXT, text, attempt);
    const char *tail = json + 1; /* after its brace */
    const char *wrong = put_publish(m, (size_t)n + strlen(tail));
    if (wrong)
        return wrong;
    buf_put(&server_of(m)->scratch, head, (size_t)n);
    buf_put_str(&server_of(m)->scratch, tail);
    send_command(m);
    return NULL;
}

/* Of a tail that no other device shares. */
static const char *send_own_json(struct mqtt_session *m, struct slice tail, const struct command_id *id,
                                 unsigned attempt)
{
    char *json = make_json(tail);
    const char *wrong = json ? send_json(m, json, id, attempt) : no_json(m);
    free(json);
    return wrong;
}

static const char *deliver_json(struct mqtt_session *m, struct batch *batch, const struct command_id *id,
                                unsigned attempt)
{
    if (batch_is_spent(batch, attempt))
        return send_own_json(m, batch_tail(batch, attempt), id, attempt);
    if (!batch->json && !(batch->json = make_json(buf_slice(&batch->tail))))
        return no_json(m);
    return send_json(m, batch->json, id, attempt);
}

#define NO_VALUE "no value for the device"

/* The text is this device's alone. */
static const char *deliver_filled_json(struct mqtt_session *m, const struct batch *batch, const struct command_id *id,
                                       unsigned attempt, struct slice values)
{
    struct filled f;
    struct buf tail = {0};
    if (!fill_values(batch, values, &f))
        return NO_VALUE;
    put_filled(batch, attempt, &f, &tail);
    errno = ENOMEM;
    const char *wrong = tail.failed ? no_json(m) : send_own_json(m, buf_slice(&tail), id, attempt);
    buf_free(&tail);
    return wrong;
}

static const char *deliver_filled(struct mqtt_session *m, const struct batch *batch, const struct command_id *id,
                                  unsigned attempt, struct slice packed)
{
    struct filled f;
    uint8_t head[DELIVERY_HEAD];
    if (!fill_values(batch, packed, &f))
        return NO_VALUE;
    const char *wrong = put_publish(m, sizeof head + batch_tail(batch, attempt).len + f.head_len + f.command_len);
    if (wrong)
        return wrong;
    struct buf *scratch = &server_of(m)->scratch;
    delivery_put_head(head, id, attempt);
    buf_put(scratch, head, sizeof head);
    put_filled(batch, attempt, &f, scratch);
    send_command(m);
    return NULL;
}

static const char *deliver(struct session *s, struct batch *batch, const struct command_id *id, unsigned attempt,
                           struct slice values)
{
    struct mqtt_session *m = of(s);
    if (batch->fill)
        return m->json ? deliver_filled_json(m, batch, id, attempt, values)
                       : deliver_filled(m, batch, id, attempt, values);
    if (m->json)
        return deliver_json(m, batch, id, attempt);
    struct slice tail = batch_tail(batch, attempt);
    uint8_t head[DELIVERY_HEAD];
    const char *wrong = put_publish(m, sizeof head + tail.len);
    if (wrong)
        return wrong;
    delivery_put_head(head, id, attempt);
    buf_put(&server_of(m)->scratch, head, sizeof head);
    send_command(m);
    stream_write_guarded(m->stream, tail.data, tail.len);
    return NULL;
}

static void hurry(struct session *s)
{
    stream_hurry(of(s)->stream);
}

static void acknowledged(struct session *s, uint16_t token)
{
    struct mqtt_session *m = of(s);
    pubacks_settle(&m->pubacks, token, MQTT_SUCCESS);
    mqtt_puback(m);
    if (m->paused && m->pubacks.count <= MQTT_ACKS_MAX / 2) {
        m->paused = false;
        m->seen = server_of(m)->tick;
        stream_pause(m->stream, m->deaf);
    }
}

static struct pool *pool_for(struct mqtt_server *server, size_t id_len)
{
    return id_len <= MQTT_DEVICE_ID_SHORT ? &server->short_pool : &server->pool;
}

/* The connection is the server's no more: lets go of it, and of itself. */
static void forget(struct mqtt_session *m, bool bury)
{
    list_remove(&m->link);
    pubacks_free(&m->pubacks);
    if (bury)
        mqtt_bury(server_of(m), m->stream);
    else
        server_of(m)->stats.connections--;
    pool_give(pool_for(server_of(m), m->id_len), m, sizeof *m + m->id_len);
}

/* The last it hears: PUBACKs that are due, and why (5.0). */
static void say_disconnect(struct mqtt_session *m, enum mqtt_reason reason)
{
    mqtt_puback_put(m);
    if (m->version == MQTT_5)
        mqtt_encode_disconnect(&server_of(m)->scratch, m->version, (uint8_t)reason);
    mqtt_send(server_of(m), m->stream);
}

static void close_session(struct session *s, enum session_end why)
{
    static const enum mqtt_reason reasons[] = {[SESSION_TAKEN_OVER] = MQTT_SESSION_TAKEN_OVER,
                                               [SESSION_REVOKED] = MQTT_NOT_AUTHORIZED,
                                               [SESSION_DRAINING] = MQTT_SERVER_SHUTTING_DOWN,
                                               [SESSION_FENCED] = MQTT_SERVER_BUSY};
    say_disconnect(of(s), reasons[why]);
    forget(of(s), true);
}

void mqtt_session_end(struct mqtt_session *m, enum mqtt_reason reason)
{
    broken_connection(&m->session);
    session_close(&m->session);
    say_disconnect(m, reason);
    forget(m, true);
}

/* --- packets ------------------------------------------------------------------------------------------------------ */
/* Handlers return false when the session is over, and gone. */

static bool fail(struct mqtt_session *m, enum mqtt_reason reason, const char *what)
{
    log_info("mqtt_protocol_error", "peer=%s device=%.*s reason=0x%02x what=%s", stream_peer(m->stream), m->id_len,
             m->id, (unsigned)reason, log_quote(what));
    server_of(m)->stats.protocol_errors++;
    mqtt_session_end(m, reason);
    return false;
}

/* What can't be taken: 5.0 is told why at QoS 1, in its turn, else the connection ends. */
static bool reject_publish(struct mqtt_session *m, const struct mqtt_publish *p, uint16_t token,
                           enum mqtt_reason reason, const char *what)
{
    if (m->version != MQTT_5 || p->qos == 0)
        return fail(m, reason, what);
    log_info("mqtt_publish_refused", "device=%.*s reason=0x%02x what=%s", m->id_len, m->id, (unsigned)reason,
             log_quote(what));
    pubacks_settle(&m->pubacks, token, (uint8_t)reason);
    mqtt_puback(m);
    return true;
}

#define NO_MEMORY "out of memory"

/* JSON is made protobuf, and then read as such. NULL, or what is wrong with it; NO_MEMORY is not its fault. */
static const char *json_to_protobuf(struct slice json, struct buf *out)
{
    char error[128];
    ProtobufCMessage *message = json_to_message(&muster__v1__acknowledgement__descriptor, (const char *)json.data,
                                                json.len, error, sizeof error);
    if (!message)
        return errno == ENOMEM ? NO_MEMORY : "unreadable JSON";
    uint8_t *p = buf_reserve(out, protobuf_c_message_get_packed_size(message));
    if (p)
        buf_commit(out, protobuf_c_message_pack(message, p));
    protobuf_c_message_free_unpacked(message, NULL);
    return p ? NULL : NO_MEMORY;
}

/* A payload of ours never begins with a brace: as protobuf that would be field 15 with a fixed width. */
static bool says_json(const struct mqtt_publish *p)
{
    return mqtt_is_json(p->properties.content_type) || (p->payload.len > 0 && p->payload.data[0] == '{');
}

static bool take_answer(struct mqtt_session *m, const struct mqtt_publish *p, uint16_t token, struct slice message)
{
    struct acknowledgement ack;
    const char *wrong = acknowledgement_read(&ack, message);
    if (wrong)
        return reject_publish(m, p, token, MQTT_PAYLOAD_FORMAT_INVALID, wrong);
    switch (session_answer(&m->session, &ack, token)) {
    case SESSION_TAKEN:
        return true;
    case SESSION_NOT_ITS:
        return reject_publish(m, p, token, MQTT_NOT_AUTHORIZED, "command of another device");
    default: /* without PUBACK it will be said again */
        return fail(m, MQTT_UNSPECIFIED_ERROR, NO_MEMORY);
    }
}

static bool take_json(struct mqtt_session *m, const struct mqtt_publish *p, uint16_t token)
{
    struct buf protobuf = {0};
    const char *wrong = json_to_protobuf(p->payload, &protobuf);
    bool alive;
    if (!wrong)
        alive = take_answer(m, p, token, buf_slice(&protobuf));
    else if (strcmp(wrong, NO_MEMORY) == 0)
        alive = fail(m, MQTT_UNSPECIFIED_ERROR, wrong);
    else
        alive = reject_publish(m, p, token, MQTT_PAYLOAD_FORMAT_INVALID, wrong);
    buf_free(&protobuf);
    return alive;
}

static bool on_publish(struct mqtt_session *m, const struct mqtt_publish *p)
{
    uint16_t token;
    if (m->version == MQTT_5 && p->qos > 0 && m->pubacks.named >= MQTT_ACKS_MAX)
        return fail(m, MQTT_RECEIVE_MAXIMUM_EXCEEDED, "receive maximum");
    if (!pubacks_add(&m->pubacks, p->packet_id, &token))
        return fail(m, MQTT_UNSPECIFIED_ERROR, NO_MEMORY);
    if (!is_topic(m, p->topic, ACKS))
        return reject_publish(m, p, token, MQTT_NOT_AUTHORIZED, "topic");
    return says_json(p) ? take_json(m, p, token) : take_answer(m, p, token, p->payload);
}

static void on_puback(struct mqtt_session *m)
{
    if (m->unacked == 0)
        return;
    bool was_shut = m->unacked >= m->receive_maximum;
    m->unacked--;
    if (was_shut) {
        open_window(m);
        session_pump(&m->session);
    }
}

static void look_for_json(struct mqtt_session *m, const struct mqtt_properties *properties)
{
    struct slice type;
    if (mqtt_user_property(properties, CONTENT_TYPE, &type))
        m->json = mqtt_is_json(type);
}

/* The reason to answer one filter with. */
static enum mqtt_reason grant(struct mqtt_session *m, struct slice filter, uint8_t options)
{
    static const char share[] = "$share/";
    if (is_topic(m, filter, COMMANDS)) {
        session_receive(&m->session, true);
        m->qos = (options & 3) > 0;
        return m->qos ? MQTT_GRANTED_QOS_1 : MQTT_SUCCESS;
    }
    if (filter.len >= sizeof share - 1 && memcmp(filter.data, share, sizeof share - 1) == 0)
        return MQTT_SHARED_NOT_SUPPORTED;
    if (memchr(filter.data, '#', filter.len) || memchr(filter.data, '+', filter.len))
        return MQTT_WILDCARDS_NOT_SUPPORTED;
    return MQTT_NOT_AUTHORIZED;
}

/* A reason for each filter. */
static void answer_filters(struct mqtt_session *m, const struct mqtt_filters *f, bool subscribe, struct buf *reasons)
{
    struct slice rest = f->filters, filter;
    uint8_t options = 0;
    while (mqtt_next_filter(&rest, &filter, subscribe ? &options : NULL)) {
        enum mqtt_reason reason = MQTT_NO_SUBSCRIPTION;
        if (subscribe) {
            reason = grant(m, filter, options);
        } else if (is_topic(m, filter, COMMANDS) && m->session.receiving) {
            session_receive(&m->session, false);
            reason = MQTT_SUCCESS;
        }
        buf_put_u8(reasons, (uint8_t)reason);
    }
}

static bool on_filters(struct mqtt_session *m, const struct mqtt_filters *f, bool subscribe)
{
    struct buf reasons = {0}, *scratch = &server_of(m)->scratch;
    if (subscribe && f->properties.present >> MQTT_SUBSCRIPTION_ID & 1)
        return fail(m, MQTT_SUBSCRIPTION_IDS_NOT_SUPPORTED, "subscription identifier");
    look_for_json(m, &f->properties);
    answer_filters(m, f, subscribe, &reasons);
    if (reasons.failed) {
        buf_free(&reasons);
        return fail(m, MQTT_UNSPECIFIED_ERROR, "out of memory");
    }
    if (subscribe)
        mqtt_encode_suback(scratch, m->version, f->packet_id, buf_head(&reasons), buf_len(&reasons));
    else
        mqtt_encode_unsuback(scratch, m->version, f->packet_id, buf_head(&reasons), buf_len(&reasons));
    buf_free(&reasons);
    mqtt_send(server_of(m), m->stream);
    return true;
}

static bool on_packet(struct mqtt_session *m, const struct mqtt_packet *p)
{
    switch (p->kind) {
    case MQTT_KIND_PUBLISH:
        return on_publish(m, &p->publish);
    case MQTT_KIND_PUBACK:
        on_puback(m);
        return true;
    case MQTT_KIND_SUBSCRIBE:
    case MQTT_KIND_UNSUBSCRIBE:
        return on_filters(m, &p->filters, p->kind == MQTT_KIND_SUBSCRIBE);
    case MQTT_KIND_PINGREQ:
        server_of(m)->stats.pings++;
        mqtt_encode_pingresp(&server_of(m)->scratch);
        mqtt_send(server_of(m), m->stream);
        return true;
    case MQTT_KIND_DISCONNECT:
        session_close(&m->session);
        forget(m, true);
        return false;
    default: /* AUTH: none was begun (4.12) */
        return fail(m, MQTT_PROTOCOL_ERROR, "packet out of place");
    }
}

/* Outcomes of others are in the way. */
static void choke(struct mqtt_session *m)
{
    struct mqtt_choked c = {m->session.tenant, m->session.seq, m->session.generation};
    buf_put(&server_of(m)->choked, &c, sizeof c);
    if (server_of(m)->choked.failed) {
        log_error("out_of_memory", "where=mqtt");
        abort();
    }
    server_of(m)->stats.choked++;
    m->paused = true;
}

void mqtt_session_unchoke(struct mqtt_server *server)
{
    struct buf all = server->choked;
    struct mqtt_choked c;
    server->choked = (struct buf){0};
    for (; buf_len(&all) >= sizeof c; buf_consume(&all, sizeof c)) {
        memcpy(&c, buf_head(&all), sizeof c);
        struct session *s = session_table_still(server->worker->sessions, c.tenant, c.seq, c.generation);
        if (!s || !of(s)->paused)
            continue;
        struct mqtt_session *m = of(s);
        m->paused = false;
        m->seen = server->tick;
        stream_pause(m->stream, m->deaf);
    }
    buf_free(&all);
}

/* 3.1.1 knows no Receive Maximum, and at QoS 0 there is none: who sends more is read when these are durable. */
static bool is_ahead(const struct mqtt_session *m)
{
    return m->pubacks.count >= (m->version == MQTT_5 ? PUBACKS_MAX : MQTT_ACKS_MAX);
}

size_t mqtt_session_data(struct stream *stream, void *arg, const uint8_t *data, size_t len)
{
    struct mqtt_session *m = arg;
    struct slice rest = {data, len};
    struct mqtt_packet packet;
    uint8_t reason;
    (void)stream;
    m->seen = server_of(m)->tick;
    while (rest.len > 0) {
        m->paused = is_ahead(m);
        if (!m->paused && acks_full(m->session.worker->acks))
            choke(m);
        /* Each packet is answered: who does not read the answers is not read either. */
        m->deaf = !stream_writable(m->stream);
        if (m->paused || m->deaf) {
            server_of(m)->stats.deaf += m->deaf;
            stream_pause(m->stream, true);
            break;
        }
        enum mqtt_outcome outcome = mqtt_decode(&rest, m->version, &packet, &reason);
        if (outcome == MQTT_MORE)
            break;
        if (outcome == MQTT_BAD) {
            fail(m, (enum mqtt_reason)reason, "malformed");
            return len;
        }
        if (!on_packet(m, &packet))
            return len;
    }
    return len - rest.len;
}

static void on_close(struct stream *stream, void *arg, enum err why)
{
    struct mqtt_session *m = arg;
    (void)stream, (void)why;
    broken_connection(&m->session);
    session_close(&m->session);
    forget(m, false);
}

static void on_drain(struct stream *stream, void *arg)
{
    struct mqtt_session *m = arg;
    if (!m->deaf)
        return;
    m->deaf = false;
    stream_pause(stream, m->paused);
}

static const struct stream_handler session_handler = {
    .on_data = mqtt_session_data, .on_drain = on_drain, .on_close = on_close, .input_limit = MQTT_MAX_PACKET};

/* --- what the session is told --------------------------------------------------------------------------------------
 */

/* Also of one that is not read just now: answers can't pile up any more. */
static const struct stream_handler last_handler = {.on_data = mqtt_session_data,
                                                   .on_drain = on_drain,
                                                   .on_close = on_close,
                                                   .input_limit = MQTT_MAX_PACKET,
                                                   .output_limit = UINT32_MAX};

static void hear(struct session *s)
{
    struct mqtt_session *m = of(s);
    m->paused = m->deaf = false;
    stream_set_handler(m->stream, &last_handler, m);
    stream_pause(m->stream, false);
    stream_receive(m->stream);
}

static const struct transport mqtt_transport = {.name = "mqtt",
                                                .deliver = deliver,
                                                .hurry = hurry,
                                                .acknowledged = acknowledged,
                                                .hear = hear,
                                                .close = close_session};

/* --- opening ------------------------------------------------------------------------------------------------------ */

/* A longer keepalive than granted, or none, is shortened; 3.1.1 has no way to be told. */
static uint16_t grant_keepalive(const struct mqtt_server *server, const struct mqtt_connect *c)
{
    int64_t max = server->worker->options.keepalive_max_s;
    if (c->version != MQTT_5 || max <= 0 || max > UINT16_MAX)
        return c->keepalive_s;
    return c->keepalive_s == 0 || c->keepalive_s > max ? (uint16_t)max : c->keepalive_s;
}

struct mqtt_session *mqtt_session_new(struct mqtt_server *server, struct stream *stream,
                                      const struct mqtt_connect *connect, const struct session *identity)
{
    struct mqtt_session *m = pool_take(pool_for(server, connect->user_name.len), sizeof *m + connect->user_name.len);
    if (!m)
        return NULL;
    m->session = *identity;
    m->session.transport = &mqtt_transport;
    m->stream = stream;
    m->seen = server->tick;
    m->keepalive = grant_keepalive(server, connect);
    m->receive_maximum = connect->properties.receive_maximum;
    m->max_packet = connect->properties.max_packet;
    m->version = connect->version;
    m->id_len = (uint8_t)connect->user_name.len;
    memcpy(m->id, connect->user_name.data, m->id_len);
    look_for_json(m, &connect->properties);
    open_window(m);
    if (!session_open(&m->session)) {
        pool_give(pool_for(server, m->id_len), m, sizeof *m + m->id_len);
        return NULL;
    }
    mqtt_keepalive_add(server, m);
    stream_set_handler(stream, &session_handler, m);
    return m;
}
