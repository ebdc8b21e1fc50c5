#include "proto/mqtt_properties.h"

#include <string.h>

#include "lib/base/utf8.h"

/* How a value is laid out. */
enum form { FORM_NONE, FORM_U8, FORM_U16, FORM_U32, FORM_VARINT, FORM_STRING, FORM_BINARY, FORM_PAIR };

struct rule {
    uint8_t form;
    uint8_t places; /* enum mqtt_place, those of packets that clients send */
    uint8_t max;    /* of FORM_U8 */
    bool nonzero;
};

#define ANYWHERE 0xff

/* 2.2.2.2, and the sections of the packets. Properties that only servers send stand in no place. */
static const struct rule rules[] = {
    [MQTT_PAYLOAD_FORMAT] = {FORM_U8, MQTT_IN_PUBLISH | MQTT_IN_WILL, 1, false},
    [MQTT_MESSAGE_EXPIRY] = {FORM_U32, MQTT_IN_PUBLISH | MQTT_IN_WILL, 0, false},
    [MQTT_CONTENT_TYPE] = {FORM_STRING, MQTT_IN_PUBLISH | MQTT_IN_WILL, 0, false},
    [MQTT_RESPONSE_TOPIC] = {FORM_STRING, MQTT_IN_PUBLISH | MQTT_IN_WILL, 0, false},
    [MQTT_CORRELATION_DATA] = {FORM_BINARY, MQTT_IN_PUBLISH | MQTT_IN_WILL, 0, false},
    [MQTT_SUBSCRIPTION_ID] = {FORM_VARINT, MQTT_IN_SUBSCRIBE, 0, true},
    [MQTT_SESSION_EXPIRY] = {FORM_U32, MQTT_IN_CONNECT | MQTT_IN_DISCONNECT, 0, false},
    [MQTT_ASSIGNED_CLIENT_ID] = {FORM_STRING, 0, 0, false},
    [MQTT_SERVER_KEEP_ALIVE] = {FORM_U16, 0, 0, false},
    [MQTT_AUTH_METHOD] = {FORM_STRING, MQTT_IN_CONNECT | MQTT_IN_AUTH, 0, false},
    [MQTT_AUTH_DATA] = {FORM_BINARY, MQTT_IN_CONNECT | MQTT_IN_AUTH, 0, false},
    [MQTT_REQUEST_PROBLEM] = {FORM_U8, MQTT_IN_CONNECT, 1, false},
    [MQTT_WILL_DELAY] = {FORM_U32, MQTT_IN_WILL, 0, false},
    [MQTT_REQUEST_RESPONSE] = {FORM_U8, MQTT_IN_CONNECT, 1, false},
    [MQTT_RESPONSE_INFORMATION] = {FORM_STRING, 0, 0, false},
    [MQTT_SERVER_REFERENCE] = {FORM_STRING, 0, 0, false},
    [MQTT_REASON_STRING] = {FORM_STRING, MQTT_IN_PUBACK | MQTT_IN_DISCONNECT | MQTT_IN_AUTH, 0, false},
    [MQTT_RECEIVE_MAXIMUM] = {FORM_U16, MQTT_IN_CONNECT, 0, true},
    [MQTT_TOPIC_ALIAS_MAXIMUM] = {FORM_U16, MQTT_IN_CONNECT, 0, false},
    [MQTT_TOPIC_ALIAS] = {FORM_U16, MQTT_IN_PUBLISH, 0, false},
    [MQTT_MAXIMUM_QOS] = {FORM_U8, 0, 1, false},
    [MQTT_RETAIN_AVAILABLE] = {FORM_U8, 0, 1, false},
    [MQTT_USER_PROPERTY] = {FORM_PAIR, ANYWHERE, 0, false},
    [MQTT_MAXIMUM_PACKET_SIZE] = {FORM_U32, MQTT_IN_CONNECT, 0, true},
    [MQTT_WILDCARD_AVAILABLE] = {FORM_U8, 0, 1, false},
    [MQTT_SUBSCRIPTION_ID_AVAILABLE] = {FORM_U8, 0, 1, false},
    [MQTT_SHARED_AVAILABLE] = {FORM_U8, 0, 1, false},
};
#define RULES (sizeof rules / sizeof *rules)

struct value {
    uint32_t number;
    struct slice bytes, second; /* `second` of FORM_PAIR */
};

enum mqtt_outcome mqtt_read_varint(struct slice *in, uint32_t *v)
{
    uint32_t result = 0;
    for (unsigned i = 0; i < 4; i++) {
        if (i >= in->len)
            return MQTT_MORE;
        uint8_t byte = in->data[i];
        result |= (uint32_t)(byte & 0x7f) << 7 * i;
        if (byte & 0x80)
            continue;
        if (byte == 0 && i > 0)
            return MQTT_BAD;
        *in = (struct slice){in->data + i + 1, in->len - i - 1};
        *v = result;
        return MQTT_DONE;
    }
    return MQTT_BAD;
}

bool mqtt_read_binary(struct slice *in, struct slice *out)
{
    uint16_t len;
    struct slice rest = *in;
    if (!slice_u16be(&rest, &len) || !slice_bytes(&rest, len, out))
        return false;
    *in = rest;
    return true;
}

bool mqtt_read_string(struct slice *in, struct slice *out)
{
    return mqtt_read_binary(in, out) && utf8_good(*out);
}

static bool read_value(struct slice *in, uint8_t form, struct value *v)
{
    uint16_t u16;
    uint8_t u8;
    switch ((enum form)form) {
    case FORM_U8:
        if (!slice_u8(in, &u8))
            return false;
        v->number = u8;
        return true;
    case FORM_U16:
        if (!slice_u16be(in, &u16))
            return false;
        v->number = u16;
        return true;
    case FORM_U32:
        return slice_u32be(in, &v->number);
    case FORM_VARINT:
        return mqtt_read_varint(in, &v->number) == MQTT_DONE;
    case FORM_STRING:
        return mqtt_read_string(in, &v->bytes);
    case FORM_BINARY:
        return mqtt_read_binary(in, &v->bytes);
    case FORM_PAIR:
        return mqtt_read_string(in, &v->bytes) && mqtt_read_string(in, &v->second);
    case FORM_NONE:
        break;
    }
    return false;
}

static void keep_value(struct mqtt_properties *p, uint32_t id, const struct value *v)
{
    if (id == MQTT_CONTENT_TYPE)
        p->content_type = v->bytes;
    else if (id == MQTT_MAXIMUM_PACKET_SIZE)
        p->max_packet = v->number;
    else if (id == MQTT_RECEIVE_MAXIMUM)
        p->receive_maximum = (uint16_t)v->number;
}

/* One property from the front of `in`. */
static enum mqtt_reason read_property(struct slice *in, enum mqtt_place place, struct mqtt_properties *p)
{
    uint32_t id;
    struct value v = {0};
    if (mqtt_read_varint(in, &id) != MQTT_DONE || id >= RULES || rules[id].form == FORM_NONE)
        return MQTT_MALFORMED_PACKET;
    const struct rule *rule = &rules[id];
    if (!(rule->places & place))
        return MQTT_PROTOCOL_ERROR;
    if (!read_value(in, rule->form, &v))
        return MQTT_MALFORMED_PACKET;
    if (id != MQTT_USER_PROPERTY && p->present >> id & 1)
        return MQTT_PROTOCOL_ERROR;
    if ((rule->form == FORM_U8 && v.number > rule->max) || (rule->nonzero && v.number == 0))
        return MQTT_PROTOCOL_ERROR;
    /* Topic Alias Maximum of this server is 0 (3.3.2.3.4). */
    if (id == MQTT_TOPIC_ALIAS)
        return MQTT_TOPIC_ALIAS_INVALID;
    p->present |= 1ull << id;
    keep_value(p, id, &v);
    return MQTT_SUCCESS;
}

enum mqtt_reason mqtt_read_properties(struct slice *in, enum mqtt_place place, struct mqtt_properties *out)
{
    uint32_t len;
    *out = (struct mqtt_properties){.receive_maximum = UINT16_MAX, .max_packet = UINT32_MAX};
    if (mqtt_read_varint(in, &len) != MQTT_DONE || !slice_bytes(in, len, &out->raw))
        return MQTT_MALFORMED_PACKET;
    struct slice rest = out->raw;
    while (rest.len > 0) {
        enum mqtt_reason reason = read_property(&rest, place, out);
        if (reason != MQTT_SUCCESS)
            return reason;
    }
    /* Authentication data without a method makes no sense (3.1.2.11.10). */
    if (out->present >> MQTT_AUTH_DATA & 1 && !(out->present >> MQTT_AUTH_METHOD & 1))
        return MQTT_PROTOCOL_ERROR;
    return MQTT_SUCCESS;
}

bool mqtt_user_property(const struct mqtt_properties *p, const char *name, struct slice *value)
{
    struct slice rest = p->raw;
    size_t len = strlen(name);
    uint32_t id;
    while (rest.len > 0) {
        struct value v = {0};
        if (mqtt_read_varint(&rest, &id) != MQTT_DONE || id >= RULES || !read_value(&rest, rules[id].form, &v))
            return false;
        if (id == MQTT_USER_PROPERTY && v.bytes.data && v.bytes.len == len && memcmp(v.bytes.data, name, len) == 0) {
            *value = v.second;
            return true;
        }
    }
    return false;
}
