#include "proto/mqtt.h"

#include <string.h>

#include "proto/mqtt_properties.h"

/* Body of one packet, being read. Parsers return MQTT_SUCCESS or the reason why it is bad. */
typedef enum mqtt_reason parse_fn(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p);

/* --- CONNECT (3.1) ------------------------------------------------------------------------------------------------ */
#define CONNECT_CLEAN_START 0x02
#define CONNECT_WILL        0x04
#define CONNECT_WILL_QOS    0x18 /* bits 3 and 4 */
#define CONNECT_WILL_RETAIN 0x20
#define CONNECT_PASSWORD    0x40
#define CONNECT_USER_NAME   0x80

/* "MQTT" and the level; "MQIsdp" with 3 is MQTT 3.1, which is not spoken here. */
static enum mqtt_reason parse_protocol(struct slice *body, struct mqtt_connect *c)
{
    struct slice name;
    uint8_t level;
    if (!mqtt_read_binary(body, &name) || !slice_u8(body, &level))
        return MQTT_MALFORMED_PACKET;
    if (name.len == 6 && memcmp(name.data, "MQIsdp", 6) == 0)
        return MQTT_UNSUPPORTED_VERSION;
    if (name.len != 4 || memcmp(name.data, "MQTT", 4) != 0)
        return MQTT_MALFORMED_PACKET;
    c->version = level >= MQTT_5 ? MQTT_5 : MQTT_3_1_1;
    return level == MQTT_3_1_1 || level == MQTT_5 ? MQTT_SUCCESS : MQTT_UNSUPPORTED_VERSION;
}

/* A will is checked and then forgotten: nobody could subscribe to it. */
static enum mqtt_reason parse_will(struct slice *body, const struct mqtt_connect *c)
{
    struct mqtt_properties properties;
    struct slice topic, payload;
    if (c->version == MQTT_5) {
        enum mqtt_reason reason = mqtt_read_properties(body, MQTT_IN_WILL, &properties);
        if (reason != MQTT_SUCCESS)
            return reason;
    }
    if (!mqtt_read_string(body, &topic) || !mqtt_read_binary(body, &payload))
        return MQTT_MALFORMED_PACKET;
    return topic.len > 0 ? MQTT_SUCCESS : MQTT_TOPIC_NAME_INVALID;
}

static enum mqtt_reason parse_connect_flags(uint8_t flags, struct mqtt_connect *c)
{
    unsigned will_qos = (unsigned)(flags & CONNECT_WILL_QOS) >> 3;
    if (flags & 1 || will_qos == 3)
        return MQTT_MALFORMED_PACKET;
    if (!(flags & CONNECT_WILL) && flags & (CONNECT_WILL_QOS | CONNECT_WILL_RETAIN))
        return MQTT_MALFORMED_PACKET;
    /* 3.1.1, [MQTT-3.1.2-22]; 5.0 allows it. */
    if (c->version == MQTT_3_1_1 && (flags & (CONNECT_USER_NAME | CONNECT_PASSWORD)) == CONNECT_PASSWORD)
        return MQTT_MALFORMED_PACKET;
    c->clean_start = flags & CONNECT_CLEAN_START;
    c->has_will = flags & CONNECT_WILL;
    c->has_user_name = flags & CONNECT_USER_NAME;
    c->has_password = flags & CONNECT_PASSWORD;
    /* What was not promised in CONNACK yet is refused here (3.2.2.3.4, 3.2.2.3.5). */
    if (c->version == MQTT_5 && will_qos == 2)
        return MQTT_QOS_NOT_SUPPORTED;
    if (c->version == MQTT_5 && flags & CONNECT_WILL_RETAIN)
        return MQTT_RETAIN_NOT_SUPPORTED;
    return MQTT_SUCCESS;
}

static enum mqtt_reason parse_connect(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p)
{
    (void)flags, (void)version;
    struct mqtt_connect *c = &p->connect;
    uint8_t connect_flags;
    enum mqtt_reason reason = parse_protocol(body, c);
    if (reason != MQTT_SUCCESS)
        return reason;
    if (!slice_u8(body, &connect_flags) || !slice_u16be(body, &c->keepalive_s))
        return MQTT_MALFORMED_PACKET;
    if ((reason = parse_connect_flags(connect_flags, c)) != MQTT_SUCCESS)
        return reason;
    c->properties = (struct mqtt_properties){.receive_maximum = UINT16_MAX, .max_packet = UINT32_MAX};
    if (c->version == MQTT_5)
        reason = mqtt_read_properties(body, MQTT_IN_CONNECT, &c->properties);
    if (reason != MQTT_SUCCESS)
        return reason;
    if (!mqtt_read_string(body, &c->client_id))
        return MQTT_MALFORMED_PACKET;
    if (c->has_will && (reason = parse_will(body, c)) != MQTT_SUCCESS)
        return reason;
    if ((c->has_user_name && !mqtt_read_string(body, &c->user_name)) ||
        (c->has_password && !mqtt_read_binary(body, &c->password)))
        return MQTT_MALFORMED_PACKET;
    /* A client without a name can't have left a session behind (3.1.1: [MQTT-3.1.3-7]). */
    if (c->client_id.len == 0 && c->version == MQTT_3_1_1 && !c->clean_start)
        return MQTT_CLIENT_ID_NOT_VALID;
    /* Extended authentication (4.12) is not offered. */
    if (c->properties.present >> MQTT_AUTH_METHOD & 1)
        return MQTT_BAD_AUTHENTICATION_METHOD;
    return MQTT_SUCCESS;
}

/* --- the others --------------------------------------------------------------------------------------------------- */
static bool has_wildcard(struct slice topic)
{
    return memchr(topic.data, '#', topic.len) || memchr(topic.data, '+', topic.len);
}

static enum mqtt_reason parse_publish(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p)
{
    struct mqtt_publish *m = &p->publish;
    m->dup = flags & 8;
    m->retain = flags & 1;
    m->qos = flags >> 1 & 3;
    m->packet_id = 0;
    if (m->qos == 3 || (m->qos == 0 && m->dup))
        return MQTT_MALFORMED_PACKET;
    if (m->qos == 2)
        return MQTT_QOS_NOT_SUPPORTED;
    if (m->retain && version == MQTT_5)
        return MQTT_RETAIN_NOT_SUPPORTED;
    if (!mqtt_read_string(body, &m->topic))
        return MQTT_MALFORMED_PACKET;
    if (m->qos > 0 && (!slice_u16be(body, &m->packet_id) || m->packet_id == 0))
        return MQTT_MALFORMED_PACKET;
    m->properties = (struct mqtt_properties){0};
    if (version == MQTT_5) {
        enum mqtt_reason reason = mqtt_read_properties(body, MQTT_IN_PUBLISH, &m->properties);
        if (reason != MQTT_SUCCESS)
            return reason;
    }
    if (m->topic.len == 0)
        return version == MQTT_5 ? MQTT_PROTOCOL_ERROR : MQTT_MALFORMED_PACKET;
    if (has_wildcard(m->topic))
        return MQTT_TOPIC_NAME_INVALID;
    m->payload = *body;
    *body = (struct slice){body->data + body->len, 0};
    return MQTT_SUCCESS;
}

/* Reason and properties at the end of PUBACK, DISCONNECT and AUTH of 5.0: either may be missing. */
static enum mqtt_reason parse_reason(struct slice *body, uint8_t version, enum mqtt_place place, uint8_t *out)
{
    struct mqtt_properties properties;
    *out = MQTT_SUCCESS;
    if (version != MQTT_5 || body->len == 0)
        return MQTT_SUCCESS;
    if (!slice_u8(body, out))
        return MQTT_MALFORMED_PACKET;
    return body->len == 0 ? MQTT_SUCCESS : mqtt_read_properties(body, place, &properties);
}

static enum mqtt_reason parse_puback(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p)
{
    (void)flags;
    if (!slice_u16be(body, &p->puback.packet_id) || p->puback.packet_id == 0)
        return MQTT_MALFORMED_PACKET;
    return parse_reason(body, version, MQTT_IN_PUBACK, &p->puback.reason);
}

bool mqtt_next_filter(struct slice *filters, struct slice *filter, uint8_t *options)
{
    return filters->len > 0 && mqtt_read_string(filters, filter) && (!options || slice_u8(filters, options));
}

/* Subscription options (3.8.3.1); 3.1.1 has only the QoS, the other bits are reserved. */
static bool options_good(uint8_t options, uint8_t version)
{
    unsigned qos = options & 3, retain_handling = options >> 4 & 3;
    if (version == MQTT_3_1_1)
        return options <= 2;
    return qos < 3 && retain_handling < 3 && !(options & 0xc0);
}

static enum mqtt_reason parse_filters(struct slice *body, uint8_t version, struct mqtt_packet *p)
{
    bool subscribe = p->kind == MQTT_KIND_SUBSCRIBE;
    struct mqtt_filters *f = &p->filters;
    struct slice filter;
    uint8_t options = 0;
    if (!slice_u16be(body, &f->packet_id) || f->packet_id == 0)
        return MQTT_MALFORMED_PACKET;
    f->properties = (struct mqtt_properties){0};
    if (version == MQTT_5) {
        enum mqtt_reason reason =
            mqtt_read_properties(body, subscribe ? MQTT_IN_SUBSCRIBE : MQTT_IN_UNSUBSCRIBE, &f->properties);
        if (reason != MQTT_SUCCESS)
            return reason;
    }
    f->filters = *body;
    if (body->len == 0)
        return MQTT_PROTOCOL_ERROR;
    while (body->len > 0)
        if (!mqtt_next_filter(body, &filter, subscribe ? &options : NULL) || !options_good(options, version) ||
            filter.len == 0)
            return MQTT_MALFORMED_PACKET;
    return MQTT_SUCCESS;
}

static enum mqtt_reason parse_subscribe(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p)
{
    (void)flags;
    return parse_filters(body, version, p);
}

static enum mqtt_reason parse_pingreq(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p)
{
    (void)body, (void)flags, (void)version, (void)p;
    return MQTT_SUCCESS;
}

static enum mqtt_reason parse_disconnect(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p)
{
    (void)flags;
    return parse_reason(body, version, MQTT_IN_DISCONNECT, &p->reason);
}

static enum mqtt_reason parse_auth(struct slice *body, uint8_t flags, uint8_t version, struct mqtt_packet *p)
{
    (void)flags;
    if (version != MQTT_5)
        return MQTT_PROTOCOL_ERROR;
    return parse_reason(body, version, MQTT_IN_AUTH, &p->reason);
}

/* --- any packet --------------------------------------------------------------------------------------------------- */
/* Flags of the first byte that a packet must have (2.1.3); PUBLISH has its own. Kinds without a parser are only a
 * server's, or QoS 2. */
#define ANY_FLAGS 0xff
static const struct kind {
    parse_fn *parse;
    uint8_t flags;
} kinds[16] = {
    [MQTT_KIND_CONNECT] = {parse_connect, 0},       [MQTT_KIND_PUBLISH] = {parse_publish, ANY_FLAGS},
    [MQTT_KIND_PUBACK] = {parse_puback, 0},         [MQTT_KIND_SUBSCRIBE] = {parse_subscribe, 2},
    [MQTT_KIND_UNSUBSCRIBE] = {parse_subscribe, 2}, [MQTT_KIND_PINGREQ] = {parse_pingreq, 0},
    [MQTT_KIND_DISCONNECT] = {parse_disconnect, 0}, [MQTT_KIND_AUTH] = {parse_auth, 0},
};

/* What the first byte alone tells. */
static enum mqtt_reason check_first(uint8_t first, uint8_t version)
{
    unsigned kind = first >> 4, flags = first & 15;
    if (kind == 0)
        return MQTT_MALFORMED_PACKET;
    if (!kinds[kind].parse || (kind == MQTT_KIND_CONNECT) != (version == 0))
        return MQTT_PROTOCOL_ERROR;
    return kinds[kind].flags == ANY_FLAGS || kinds[kind].flags == flags ? MQTT_SUCCESS : MQTT_MALFORMED_PACKET;
}

static enum mqtt_outcome bad(uint8_t *reason, enum mqtt_reason why)
{
    *reason = (uint8_t)why;
    return MQTT_BAD;
}

enum mqtt_outcome mqtt_decode(struct slice *in, uint8_t version, struct mqtt_packet *packet, uint8_t *reason)
{
    struct slice rest = *in, body;
    uint8_t first;
    uint32_t len;
    if (!slice_u8(&rest, &first))
        return MQTT_MORE;
    packet->kind = (enum mqtt_kind)(first >> 4);
    if (packet->kind == MQTT_KIND_CONNECT)
        packet->connect = (struct mqtt_connect){0};
    enum mqtt_reason why = check_first(first, version);
    if (why != MQTT_SUCCESS)
        return bad(reason, why);
    enum mqtt_outcome outcome = mqtt_read_varint(&rest, &len);
    if (outcome != MQTT_DONE)
        return outcome == MQTT_MORE ? MQTT_MORE : bad(reason, MQTT_MALFORMED_PACKET);
    if (len > (version == 0 ? MQTT_MAX_CONNECT : MQTT_MAX_PACKET) - (size_t)(rest.data - in->data))
        return bad(reason, MQTT_PACKET_TOO_LARGE);
    if (!slice_bytes(&rest, len, &body))
        return MQTT_MORE;
    why = kinds[packet->kind].parse(&body, first & 15, version, packet);
    if (why == MQTT_SUCCESS && body.len > 0)
        why = MQTT_MALFORMED_PACKET;
    if (why != MQTT_SUCCESS)
        return bad(reason, why);
    *in = rest;
    return MQTT_DONE;
}
