#include "proto/mqtt.h"

#include <string.h>

static void put_varint(struct buf *out, size_t v)
{
    for (; v > 0x7f; v >>= 7)
        buf_put_u8(out, (uint8_t)(v | 0x80));
    buf_put_u8(out, (uint8_t)v);
}

static size_t varint_size(size_t v)
{
    return v < 0x80 ? 1 : v < 0x4000 ? 2 : v < 0x200000 ? 3 : 4;
}

static void put_first(struct buf *out, enum mqtt_kind kind, unsigned flags, size_t len)
{
    buf_put_u8(out, (uint8_t)((unsigned)kind << 4 | flags));
    put_varint(out, len);
}

static void put_string(struct buf *out, struct slice s)
{
    buf_put_u16be(out, (uint16_t)s.len);
    buf_put(out, s.data, s.len);
}

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static void put_u8_property(struct buf *out, enum mqtt_property id, uint8_t v)
{
    buf_put_u8(out, (uint8_t)id);
    buf_put_u8(out, v);
}

static void put_u16_property(struct buf *out, enum mqtt_property id, uint16_t v)
{
    buf_put_u8(out, (uint8_t)id);
    buf_put_u16be(out, v);
}

/* Return codes of 3.1.1 (its 3.2.2.3). */
static uint8_t return_code(uint8_t reason)
{
    switch (reason) {
    case MQTT_SUCCESS:
        return 0;
    case MQTT_UNSUPPORTED_VERSION:
        return 1;
    case MQTT_CLIENT_ID_NOT_VALID:
        return 2;
    case MQTT_BAD_USER_NAME_OR_PASSWORD:
        return 4;
    case MQTT_NOT_AUTHORIZED:
    case MQTT_BAD_AUTHENTICATION_METHOD:
        return 5;
    default:
        return 3;
    }
}

/* What this server does not do, told so that clients need not try (3.2.2.3). */
static void put_offer(struct buf *out, const struct mqtt_connack *c)
{
    put_u16_property(out, MQTT_RECEIVE_MAXIMUM, c->receive_maximum);
    put_u8_property(out, MQTT_MAXIMUM_QOS, 1);
    put_u8_property(out, MQTT_RETAIN_AVAILABLE, 0);
    buf_put_u8(out, MQTT_MAXIMUM_PACKET_SIZE);
    buf_put_u32be(out, MQTT_MAX_PACKET);
    put_u16_property(out, MQTT_TOPIC_ALIAS_MAXIMUM, 0);
    put_u8_property(out, MQTT_WILDCARD_AVAILABLE, 0);
    put_u8_property(out, MQTT_SUBSCRIPTION_ID_AVAILABLE, 0);
    put_u8_property(out, MQTT_SHARED_AVAILABLE, 0);
    if (c->keepalive_s)
        put_u16_property(out, MQTT_SERVER_KEEP_ALIVE, c->keepalive_s);
    if (c->assigned_id) {
        buf_put_u8(out, MQTT_ASSIGNED_CLIENT_ID);
        put_string(out, text(c->assigned_id));
    }
}

void mqtt_encode_connack(struct buf *out, const struct mqtt_connack *c)
{
    struct buf properties = {0};
    if (c->version != MQTT_5) {
        put_first(out, MQTT_KIND_CONNACK, 0, 2);
        buf_put_u8(out, 0);
        buf_put_u8(out, return_code(c->reason));
        return;
    }
    if (c->reason == MQTT_SUCCESS)
        put_offer(&properties, c);
    size_t len = buf_len(&properties);
    put_first(out, MQTT_KIND_CONNACK, 0, 2 + varint_size(len) + len);
    buf_put_u8(out, 0); /* session present: never */
    buf_put_u8(out, c->reason);
    put_varint(out, len);
    buf_put(out, properties.data, len);
    out->failed = out->failed || properties.failed;
    buf_free(&properties);
}

void mqtt_encode_publish(struct buf *out, uint8_t version, struct slice topic, uint16_t packet_id,
                         const char *content_type, size_t payload_len)
{
    struct slice type = content_type ? text(content_type) : (struct slice){0};
    size_t properties = content_type ? 3 + type.len : 0;
    size_t len = 2 + topic.len + (packet_id ? 2u : 0u) + payload_len;
    if (version == MQTT_5)
        len += varint_size(properties) + properties;
    put_first(out, MQTT_KIND_PUBLISH, packet_id ? 1 << 1 : 0, len);
    put_string(out, topic);
    if (packet_id)
        buf_put_u16be(out, packet_id);
    if (version != MQTT_5)
        return;
    put_varint(out, properties);
    if (content_type) {
        buf_put_u8(out, MQTT_CONTENT_TYPE);
        put_string(out, type);
    }
}

void mqtt_encode_puback(struct buf *out, uint8_t version, uint16_t packet_id, uint8_t reason)
{
    bool with_reason = version == MQTT_5 && reason != MQTT_SUCCESS;
    put_first(out, MQTT_KIND_PUBACK, 0, with_reason ? 3 : 2);
    buf_put_u16be(out, packet_id);
    if (with_reason)
        buf_put_u8(out, reason);
}

void mqtt_encode_suback(struct buf *out, uint8_t version, uint16_t packet_id, const uint8_t *reasons, size_t n)
{
    put_first(out, MQTT_KIND_SUBACK, 0, (version == MQTT_5 ? 3u : 2u) + n);
    buf_put_u16be(out, packet_id);
    if (version == MQTT_5)
        buf_put_u8(out, 0);
    for (size_t i = 0; i < n; i++)
        buf_put_u8(out, version != MQTT_5 && reasons[i] >= 0x80 ? 0x80 : reasons[i]);
}

void mqtt_encode_unsuback(struct buf *out, uint8_t version, uint16_t packet_id, const uint8_t *reasons, size_t n)
{
    if (version != MQTT_5) {
        put_first(out, MQTT_KIND_UNSUBACK, 0, 2);
        buf_put_u16be(out, packet_id);
        return;
    }
    put_first(out, MQTT_KIND_UNSUBACK, 0, 3 + n);
    buf_put_u16be(out, packet_id);
    buf_put_u8(out, 0);
    buf_put(out, reasons, n);
}

void mqtt_encode_pingresp(struct buf *out)
{
    put_first(out, MQTT_KIND_PINGRESP, 0, 0);
}

void mqtt_encode_disconnect(struct buf *out, uint8_t version, uint8_t reason)
{
    if (version != MQTT_5)
        return;
    put_first(out, MQTT_KIND_DISCONNECT, 0, 1);
    buf_put_u8(out, reason);
}
