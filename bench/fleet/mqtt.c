#include "bench/fleet/mqtt.h"

#include <string.h>

/* Properties a device looks at (5.0, 2.2.2.2). */
enum { PROPERTY_RECEIVE_MAXIMUM = 0x21 };

/* Variable byte integer (2.2.3 of 3.1.1, 1.5.5 of 5.0): at most four bytes. */
static enum mqtt_result read_length(struct slice *in, uint32_t *out)
{
    uint32_t v = 0;

    for (size_t i = 0; i < 4; i++) {
        if (i >= in->len)
            return MQTT_MORE;
        v |= (uint32_t)(in->data[i] & 0x7f) << (7 * i);
        if (!(in->data[i] & 0x80)) {
            *in = (struct slice){in->data + i + 1, in->len - i - 1};
            *out = v;
            return MQTT_DONE;
        }
    }
    return MQTT_BAD;
}

static bool read_string(struct slice *in, struct slice *out)
{
    uint16_t len;

    return slice_u16be(in, &len) && slice_bytes(in, len, out);
}

static bool read_properties(struct slice *in, struct slice *out)
{
    uint32_t len;

    return read_length(in, &len) == MQTT_DONE && slice_bytes(in, len, out);
}

/* How a property's value is laid out, by identifier. */
enum form { FORM_NONE, FORM_1, FORM_2, FORM_4, FORM_LENGTH, FORM_STRING, FORM_PAIR };
static const uint8_t forms[0x2b] = {
    [0x01] = FORM_1,      [0x02] = FORM_4,      [0x03] = FORM_STRING, [0x08] = FORM_STRING, [0x09] = FORM_STRING,
    [0x0b] = FORM_LENGTH, [0x11] = FORM_4,      [0x12] = FORM_STRING, [0x13] = FORM_2,      [0x15] = FORM_STRING,
    [0x16] = FORM_STRING, [0x17] = FORM_1,      [0x18] = FORM_4,      [0x19] = FORM_1,      [0x1a] = FORM_STRING,
    [0x1c] = FORM_STRING, [0x1f] = FORM_STRING, [0x21] = FORM_2,      [0x22] = FORM_2,      [0x23] = FORM_2,
    [0x24] = FORM_1,      [0x25] = FORM_1,      [0x26] = FORM_PAIR,   [0x27] = FORM_4,      [0x28] = FORM_1,
    [0x29] = FORM_1,      [0x2a] = FORM_1,
};

static bool skip_property(struct slice *in, enum form form)
{
    struct slice a, b;
    uint32_t n;

    switch (form) {
    case FORM_1:
        return slice_bytes(in, 1, &a);
    case FORM_2:
        return slice_bytes(in, 2, &a);
    case FORM_4:
        return slice_bytes(in, 4, &a);
    case FORM_LENGTH:
        return read_length(in, &n) == MQTT_DONE;
    case FORM_STRING:
        return read_string(in, &a);
    case FORM_PAIR:
        return read_string(in, &a) && read_string(in, &b);
    case FORM_NONE:
        break;
    }
    return false;
}

/* CONNACK (3.2): flags, reason, and with 5.0 properties. */
static bool read_connack(struct slice body, int version, struct mqtt_packet *p)
{
    struct slice properties = {0};
    uint8_t flags, id;

    p->receive_maximum = UINT16_MAX;
    if (!slice_u8(&body, &flags) || !slice_u8(&body, &p->reason))
        return false;
    if (version == 5 && !read_properties(&body, &properties))
        return false;
    while (properties.len > 0) {
        if (!slice_u8(&properties, &id) || id >= sizeof forms)
            return false;
        if (id == PROPERTY_RECEIVE_MAXIMUM) {
            if (!slice_u16be(&properties, &p->receive_maximum) || p->receive_maximum == 0)
                return false;
        } else if (!skip_property(&properties, forms[id])) {
            return false;
        }
    }
    return body.len == 0;
}

/* PUBLISH (3.3). */
static bool read_publish(struct slice body, int version, uint8_t flags, struct mqtt_packet *p)
{
    struct slice properties;

    p->qos = flags >> 1 & 3;
    if (p->qos > 1 || !read_string(&body, &p->topic))
        return false;
    if (p->qos == 1 && (!slice_u16be(&body, &p->packet_id) || p->packet_id == 0))
        return false;
    if (version == 5 && !read_properties(&body, &properties))
        return false;
    p->payload = body;
    return true;
}

static bool read_suback(struct slice body, int version, struct mqtt_packet *p)
{
    struct slice properties;

    return slice_u16be(&body, &p->packet_id) && (version != 5 || read_properties(&body, &properties)) &&
           slice_u8(&body, &p->reason);
}

static bool read_body(struct slice body, int version, uint8_t flags, struct mqtt_packet *p)
{
    switch (p->type) {
    case MQTT_PUBLISH:
        return read_publish(body, version, flags, p);
    case MQTT_PUBACK: /* 3.4; 5.0 leaves the reason out when it is 0 */
        return slice_u16be(&body, &p->packet_id) && (body.len == 0 || (version == 5 && slice_u8(&body, &p->reason)));
    case MQTT_CONNACK:
        return read_connack(body, version, p);
    case MQTT_SUBACK:
        return read_suback(body, version, p);
    case MQTT_PINGRESP:
        return body.len == 0;
    case MQTT_DISCONNECT: /* a server sends it in 5.0 only */
        return version == 5 && (body.len == 0 || slice_u8(&body, &p->reason));
    case MQTT_CONNECT:
    case MQTT_SUBSCRIBE:
    case MQTT_PINGREQ:
        break;
    }
    return false;
}

enum mqtt_result mqtt_read(struct slice *in, int version, struct mqtt_packet *out)
{
    struct slice rest = *in, body;
    uint8_t first;
    uint32_t len;

    if (!slice_u8(&rest, &first))
        return MQTT_MORE;
    enum mqtt_result got = read_length(&rest, &len);
    if (got != MQTT_DONE)
        return got;
    if (len > MQTT_PACKET_MAX - 5)
        return MQTT_BAD;
    if (!slice_bytes(&rest, len, &body))
        return MQTT_MORE;
    *out = (struct mqtt_packet){.type = (enum mqtt_type)(first >> 4)};
    if (!read_body(body, version, first & 15, out))
        return MQTT_BAD;
    *in = rest;
    return MQTT_DONE;
}

static void put_length(struct buf *out, size_t n)
{
    for (; n >= 0x80; n >>= 7)
        buf_put_u8(out, (uint8_t)(n | 0x80));
    buf_put_u8(out, (uint8_t)n);
}

static void put_string(struct buf *out, const char *s, size_t len)
{
    buf_put_u16be(out, (uint16_t)len);
    buf_put(out, s, len);
}

void mqtt_put_connect(struct buf *out, const struct mqtt_login *login)
{
    size_t id = strlen(login->device), password = login->password ? strlen(login->password) : 0;
    /* User name and password, clean session (3.1.2). */
    uint8_t flags = (uint8_t)((login->password ? 0xc0 : 0) | (login->keep_session ? 0 : 0x02));

    buf_put_u8(out, MQTT_CONNECT << 4);
    put_length(out, 10 + (size_t)(login->version == 5) + 2 + id + (login->password ? 4 + id + password : 0));
    put_string(out, "MQTT", 4);
    buf_put_u8(out, (uint8_t)login->version);
    buf_put_u8(out, flags);
    buf_put_u16be(out, login->keepalive_s);
    if (login->version == 5)
        buf_put_u8(out, 0);
    put_string(out, login->device, id);
    if (login->password) {
        put_string(out, login->device, id);
        put_string(out, login->password, password);
    }
}

static size_t topic_len(struct mqtt_topic topic)
{
    return strlen("devices/") + strlen(topic.device) + 1 + strlen(topic.what);
}

static void put_topic(struct buf *out, struct mqtt_topic topic)
{
    buf_put_u16be(out, (uint16_t)topic_len(topic));
    buf_put_str(out, "devices/");
    buf_put_str(out, topic.device);
    buf_put_u8(out, '/');
    buf_put_str(out, topic.what);
}

void mqtt_put_subscribe(struct buf *out, int version, uint16_t packet_id, struct mqtt_topic topic, uint8_t qos)
{
    buf_put_u8(out, MQTT_SUBSCRIBE << 4 | 2);
    put_length(out, 2 + (size_t)(version == 5) + 2 + topic_len(topic) + 1);
    buf_put_u16be(out, packet_id);
    if (version == 5)
        buf_put_u8(out, 0);
    put_topic(out, topic);
    buf_put_u8(out, qos);
}

void mqtt_put_puback(struct buf *out, uint16_t packet_id)
{
    buf_put_u8(out, MQTT_PUBACK << 4);
    buf_put_u8(out, 2);
    buf_put_u16be(out, packet_id);
}

void mqtt_put_pingreq(struct buf *out)
{
    buf_put_u8(out, MQTT_PINGREQ << 4);
    buf_put_u8(out, 0);
}

void mqtt_put_disconnect(struct buf *out)
{
    buf_put_u8(out, MQTT_DISCONNECT << 4);
    buf_put_u8(out, 0);
}

void mqtt_put_publish(struct buf *out, int version, uint16_t packet_id, struct mqtt_topic topic, struct slice payload)
{
    size_t id = packet_id ? 2 : 0;

    buf_put_u8(out, (uint8_t)(MQTT_PUBLISH << 4 | (packet_id ? 2 : 0)));
    put_length(out, 2 + topic_len(topic) + id + (size_t)(version == 5) + payload.len);
    put_topic(out, topic);
    if (packet_id)
        buf_put_u16be(out, packet_id);
    if (version == 5)
        buf_put_u8(out, 0);
    buf_put(out, payload.data, payload.len);
}
