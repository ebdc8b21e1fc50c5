#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "workers/acks.h"
#include "workers/credentials.h"
#include "workers/mqtt_internal.h"
#include "workers/worker.h"

/* For the first record, and from then on: the time that a crowd makes its handshakes wait for us does not count. */
#define HANDSHAKE_MS 30000
/* Connections before CONNECT: a fleet that comes all at once finds room, with those whom the kernel lets wait behind
 * them, and who only holds connections open costs no more than this. */
#define STRANGERS_MAX 16384
/* Ended at one look because their time is over; the others at the next. */
#define STRANGERS_ENDED 256
/* Of the oldest of them so many are looked at for one that is silent. */
#define STRANGERS_LOOK 64
/* Whose handshake is done has a round trip and more for CONNECT before he may have to go for others. */
#define STRANGERS_PATIENCE_MS 1000
/* A token signed with a key we don't know makes the keys be read again; after so many ticks it is refused. */
#define KEY_TRIES_MAX 4

/* A connection before CONNECT. */
struct stranger {
    struct mqtt_server *server;
    struct stream *stream;
    struct list link; /* in server->strangers[list] */
    enum mqtt_stranger list;
    int64_t since_ms; /* CLOCK_MONOTONIC, when CONNECT was due to begin; unless MQTT_SHAKING */
    unsigned tries;   /* how often its token was looked at */
    bool waiting;     /* for keys */
};

static int64_t mono_ms(void)
{
    return clock_mono_us() / 1000;
}

bool mqtt_is_json(struct slice type)
{
    static const char json[] = "application/json";
    size_t len = sizeof json - 1;
    return type.len >= len && strncasecmp((const char *)type.data, json, len) == 0 &&
           (type.len == len || type.data[len] == ';');
}

bool mqtt_made(const struct mqtt_server *server, struct stream *stream)
{
    if (server->scratch.failed)
        stream_fail_soon(stream, ERR_NOMEM);
    return !server->scratch.failed;
}

void mqtt_send(struct mqtt_server *server, struct stream *stream)
{
    struct slice s = buf_slice(&server->scratch);
    if (mqtt_made(server, stream))
        stream_write(stream, s.data, s.len);
    buf_reset(&server->scratch);
}

/* --- connections that are being closed ---------------------------------------------------------------------------- */

static size_t buried_data(struct stream *stream, void *arg, const uint8_t *data, size_t len)
{
    (void)stream, (void)arg, (void)data;
    return len;
}

static void buried_close(struct stream *stream, void *arg, enum err why)
{
    (void)stream, (void)arg, (void)why;
}

static const struct stream_handler buried_handler = {.on_data = buried_data, .on_close = buried_close};

void mqtt_bury(struct mqtt_server *server, struct stream *stream)
{
    server->stats.connections--;
    stream_set_handler(stream, &buried_handler, NULL);
    stream_shutdown(stream);
}

/* --- CONNECT ------------------------------------------------------------------------------------------------------ */

static void stranger_free(struct stranger *s)
{
    s->server->stats.strangers--;
    list_remove(&s->link);
    free(s);
}

/* Answers CONNECT with a reason, if its version is known, and closes. */
static void refuse(struct stranger *s, uint8_t version, enum mqtt_reason reason)
{
    struct mqtt_server *server = s->server;
    if (version) {
        mqtt_encode_connack(&server->scratch, &(struct mqtt_connack){.version = version, .reason = (uint8_t)reason});
        mqtt_send(server, s->stream);
    }
    mqtt_bury(server, s->stream);
    stranger_free(s);
}

static void malformed(struct stranger *s, const struct mqtt_packet *packet, uint8_t reason)
{
    bool connect = packet->kind == MQTT_KIND_CONNECT;
    uint8_t version = connect ? packet->connect.version : 0;
    log_info("mqtt_connect_malformed", "peer=%s reason=0x%02x", stream_peer(s->stream), reason);
    s->server->stats.protocol_errors++;
    /* MQTT 3.1 and other old ones read an answer of 3.1.1 (its 3.1.2.2). A CONNECT of 3.1.1 that is malformed gets none
     * (its 3.1.4). */
    if (connect && reason == MQTT_UNSUPPORTED_VERSION && version == 0)
        version = MQTT_3_1_1;
    else if (version == MQTT_3_1_1 && reason != MQTT_UNSUPPORTED_VERSION && reason != MQTT_CLIENT_ID_NOT_VALID)
        version = 0;
    refuse(s, version, (enum mqtt_reason)reason);
}

static void refuse_login(struct stranger *s, const struct mqtt_connect *c, enum credential_check check)
{
    struct slice name = {c->user_name.data,
                         c->user_name.len > MQTT_DEVICE_ID_MAX ? MQTT_DEVICE_ID_MAX : c->user_name.len};
    bool known = check == CREDENTIAL_EXPIRED || check == CREDENTIAL_REVOKED;
    log_info("mqtt_refused", "peer=%s device=%s reason=%s", stream_peer(s->stream), log_quote_n(name.data, name.len),
             credential_check_name(check));
    s->server->stats.refused++;
    refuse(s, c->version, known ? MQTT_NOT_AUTHORIZED : MQTT_BAD_USER_NAME_OR_PASSWORD);
}

static void stand_in(struct stranger *s, enum mqtt_stranger list)
{
    if (s->list == list)
        return;
    s->list = list;
    list_remove(&s->link);
    list_append(&s->server->strangers[list], &s->link);
}

/* The token's key may be one made since the keys were read: the connection waits a few ticks for them. */
static bool wait_for_keys(struct stranger *s)
{
    if (credentials_ready(s->server->worker->credentials) && ++s->tries > KEY_TRIES_MAX)
        return false;
    s->waiting = true;
    stream_pause(s->stream, true);
    stand_in(s, MQTT_KEYLESS);
    return true;
}

static void send_connack(struct mqtt_server *server, struct mqtt_session *m, const struct mqtt_connect *c)
{
    char assigned[MQTT_DEVICE_ID_MAX + 1];
    memcpy(assigned, m->id, m->id_len);
    assigned[m->id_len] = '\0';
    mqtt_encode_connack(&server->scratch,
                        &(struct mqtt_connack){.version = m->version,
                                               .receive_maximum = MQTT_ACKS_MAX,
                                               .keepalive_s = m->keepalive != c->keepalive_s ? m->keepalive : 0,
                                               .assigned_id = c->client_id.len ? NULL : assigned});
    mqtt_send(server, m->stream);
}

/* Returns the session, or NULL when the device was refused. */
static struct mqtt_session *welcome(struct stranger *s, const struct mqtt_connect *c, const struct credential *token)
{
    struct mqtt_server *server = s->server;
    struct session identity = {
        .worker = server->worker, .issued_ms = token->issued_ms, .tenant = token->tenant, .seq = token->seq};
    if (server->worker->draining) {
        refuse(s, c->version, c->version == MQTT_5 ? MQTT_SERVER_SHUTTING_DOWN : MQTT_SERVER_UNAVAILABLE);
        return NULL;
    }
    struct mqtt_session *m = mqtt_session_new(server, s->stream, c, &identity);
    if (!m) {
        refuse(s, c->version, MQTT_SERVER_UNAVAILABLE);
        return NULL;
    }
    stranger_free(s);
    server->stats.connected++;
    send_connack(server, m, c);
    return m;
}

/* Returns false when the packet must be looked at again later. Sets *m to the session, or NULL for one refused. */
static bool on_connect(struct stranger *s, const struct mqtt_connect *c, struct mqtt_session **m)
{
    struct credential token;
    enum credential_check check = CREDENTIAL_MALFORMED;
    if (c->has_user_name && c->has_password && c->user_name.len > 0 && c->user_name.len <= MQTT_DEVICE_ID_MAX)
        check = credentials_check(s->server->worker->credentials, c->user_name, c->password, clock_wall_ms(), &token);
    if (check == CREDENTIAL_NOT_READY && wait_for_keys(s))
        return false;
    if (check == CREDENTIAL_NOT_READY)
        check = CREDENTIAL_UNKNOWN;
    if (check == CREDENTIAL_GOOD)
        *m = welcome(s, c, &token);
    else
        refuse_login(s, c, check);
    return true;
}

static size_t stranger_data(struct stream *stream, void *arg, const uint8_t *data, size_t len)
{
    struct stranger *s = arg;
    struct mqtt_session *m = NULL;
    struct slice rest = {data, len};
    struct mqtt_packet packet;
    uint8_t reason;
    switch (mqtt_decode(&rest, 0, &packet, &reason)) {
    case MQTT_MORE:
        return 0;
    case MQTT_BAD:
        malformed(s, &packet, reason);
        return len;
    case MQTT_DONE:
        break;
    }
    if (!on_connect(s, &packet.connect, &m))
        return 0;
    if (!m || rest.len == 0)
        return len;
    /* What came in one piece with CONNECT is the session's. */
    return len - rest.len + mqtt_session_data(stream, m, rest.data, rest.len);
}

/* --- accepting ---------------------------------------------------------------------------------------------------- */

static void stranger_open(struct stream *stream, void *arg)
{
    struct stranger *s = arg;
    (void)stream;
    s->since_ms = mono_ms();
    stand_in(s, MQTT_CONNECTING);
}

static void stranger_close(struct stream *stream, void *arg, enum err why)
{
    struct stranger *s = arg;
    (void)stream, (void)why;
    s->server->stats.connections--;
    stranger_free(s);
}

static const struct stream_handler stranger_handler = {
    .on_open = stranger_open, .on_data = stranger_data, .on_close = stranger_close, .input_limit = MQTT_MAX_CONNECT};

/* Of the oldest in `list`, there since `due` or before, the first that says nothing, or NULL. */
static struct stranger *silent_stranger(const struct list *list, int64_t due)
{
    unsigned looked = 0;
    list_for_each (pos, tmp, list) {
        struct stranger *s = container_of(pos, struct stranger, link);
        if (s->since_ms > due || ++looked > STRANGERS_LOOK)
            break;
        if (stream_silent(s->stream))
            return s;
    }
    return NULL;
}

/* Closes the one that has kept us waiting for longest, so that who has something to say finds room. While those who
 * came first wait for us, somebody behind them may have got through his handshake this moment: he is not the one. */
static bool drop_silent_stranger(struct mqtt_server *server)
{
    struct stranger *s = silent_stranger(&server->strangers[MQTT_SHAKING], INT64_MAX);
    if (!s)
        s = silent_stranger(&server->strangers[MQTT_CONNECTING], mono_ms() - STRANGERS_PATIENCE_MS);
    if (!s)
        return false;
    server->stats.strangers_dropped++;
    server->stats.connections--;
    stream_close(s->stream);
    stranger_free(s);
    return true;
}

static enum stream_room make_room(void *arg, bool scarce)
{
    struct mqtt_server *server = arg;
    if ((!scarce && server->stats.strangers < STRANGERS_MAX) || drop_silent_stranger(server))
        return STREAM_ROOM;
    /* They all wait for us, and not for long: they become devices, or go. */
    return server->stats.strangers > 0 ? STREAM_ROOM_SOON : STREAM_ROOM_NONE;
}

static void on_accept(struct stream *stream, void *arg)
{
    struct mqtt_server *server = arg;
    struct stranger *s = calloc(1, sizeof *s);
    if (!s) {
        stream_close(stream);
        return;
    }
    *s = (struct stranger){.server = server, .stream = stream};
    list_append(&server->strangers[MQTT_SHAKING], &s->link);
    server->stats.accepted++;
    server->stats.connections++;
    server->stats.strangers++;
    stream_set_handler(stream, &stranger_handler, s);
}

int mqtt_server_listen(struct mqtt_server *server, const char *address, struct tls *tls)
{
    if (server->listener_count == MQTT_LISTENERS_MAX)
        return -1;
    struct stream_listener *l = stream_listen(server->worker->hub, address, tls, HANDSHAKE_MS, on_accept, server);
    if (!l)
        return -1;
    stream_listener_set_room(l, make_room);
    server->listeners[server->listener_count++] = l;
    return stream_listener_port(l);
}

/* --- the passage of time ------------------------------------------------------------------------------------------ */

/* Ends those of `list` whose time is over: the first of them. */
static void end_late_strangers(struct list *list, int64_t due)
{
    unsigned ended = 0;
    list_for_each (pos, tmp, list) {
        struct stranger *s = container_of(pos, struct stranger, link);
        if (s->since_ms > due || ++ended > STRANGERS_ENDED)
            break;
        s->server->stats.connect_timeouts++;
        mqtt_bury(s->server, s->stream);
        stranger_free(s);
    }
}

static void look_at_strangers(struct mqtt_server *server)
{
    int64_t due = mono_ms() - MQTT_CONNECT_MS;
    end_late_strangers(&server->strangers[MQTT_CONNECTING], due);
    end_late_strangers(&server->strangers[MQTT_KEYLESS], due);
    list_for_each (pos, tmp, &server->strangers[MQTT_KEYLESS]) {
        struct stranger *s = container_of(pos, struct stranger, link);
        if (s->waiting)
            stream_pause(s->stream, false);
        s->waiting = false;
    }
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct mqtt_server *server = timer->data;
    (void)loop, (void)revents;
    server->tick = (uint32_t)(mono_ms() / MQTT_TICK_MS);
    look_at_strangers(server);
    mqtt_keepalive_look(server);
    if (buf_len(&server->choked) && !acks_full(server->worker->acks))
        mqtt_session_unchoke(server);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct mqtt_server *mqtt_server_new(struct worker *worker)
{
    struct mqtt_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    server->worker = worker;
    server->tick = (uint32_t)(mono_ms() / MQTT_TICK_MS);
    for (unsigned n = 0; n < MQTT_STRANGERS; n++)
        list_init(&server->strangers[n]);
    pool_init(&server->short_pool, sizeof(struct mqtt_session) + MQTT_DEVICE_ID_SHORT);
    pool_init(&server->pool, sizeof(struct mqtt_session) + MQTT_DEVICE_ID_USUAL);
    mqtt_keepalive_init(server);
    mqtt_puback_init(server);
    ev_timer_init(&server->timer, on_tick, MQTT_TICK_MS / 1000.0, MQTT_TICK_MS / 1000.0);
    server->timer.data = server;
    ev_timer_start(worker->loop, &server->timer);
    return server;
}

void mqtt_server_stop(struct mqtt_server *server)
{
    while (server->listener_count > 0)
        stream_listener_free(&server->listeners[--server->listener_count]);
    for (unsigned n = 0; n < MQTT_STRANGERS; n++)
        list_for_each (pos, tmp, &server->strangers[n]) {
            struct stranger *s = container_of(pos, struct stranger, link);
            mqtt_bury(server, s->stream);
            stranger_free(s);
        }
}

void mqtt_server_free(struct mqtt_server **server)
{
    struct mqtt_server *s = *server;
    if (!s)
        return;
    mqtt_server_stop(s);
    ev_timer_stop(s->worker->loop, &s->timer);
    mqtt_keepalive_end_all(s, MQTT_SERVER_SHUTTING_DOWN);
    mqtt_puback_free(s);
    buf_free(&s->scratch);
    buf_free(&s->choked);
    pool_free(&s->short_pool);
    pool_free(&s->pool);
    free(s);
    *server = NULL;
}

const struct mqtt_stats *mqtt_server_stats(const struct mqtt_server *server)
{
    return &server->stats;
}
