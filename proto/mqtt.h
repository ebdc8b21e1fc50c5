/* MQTT as a server speaks it, 3.1.1 and 5.0: packets from bytes, and bytes of packets.
 * Owns: packet forms, property rules, reason codes. May call: lib/base/buf. Loop rule: none, pure.
 * Source: OASIS MQTT Version 3.1.1 and Version 5.0; section numbers of 5.0 in the .c unless said otherwise. */
#ifndef MUSTER_PROTO_MQTT_H
#define MUSTER_PROTO_MQTT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"

/* Largest packet taken, told to 5.0 clients: an acknowledgement has at most 64 KiB. */
#define MQTT_MAX_PACKET (128u * 1024)
/* Largest CONNECT: its sender is still a stranger, so he gets little memory. */
#define MQTT_MAX_CONNECT (16u * 1024)

enum mqtt_version { MQTT_3_1_1 = 4, MQTT_5 = 5 };

enum mqtt_kind {
    MQTT_KIND_CONNECT = 1,
    MQTT_KIND_CONNACK,
    MQTT_KIND_PUBLISH,
    MQTT_KIND_PUBACK,
    MQTT_KIND_PUBREC,
    MQTT_KIND_PUBREL,
    MQTT_KIND_PUBCOMP,
    MQTT_KIND_SUBSCRIBE,
    MQTT_KIND_SUBACK,
    MQTT_KIND_UNSUBSCRIBE,
    MQTT_KIND_UNSUBACK,
    MQTT_KIND_PINGREQ,
    MQTT_KIND_PINGRESP,
    MQTT_KIND_DISCONNECT,
    MQTT_KIND_AUTH,
};

/* Reason codes of 5.0 (2.4). */
enum mqtt_reason {
    MQTT_SUCCESS = 0x00,
    MQTT_GRANTED_QOS_1 = 0x01,
    MQTT_NO_SUBSCRIPTION = 0x11,
    MQTT_UNSPECIFIED_ERROR = 0x80,
    MQTT_MALFORMED_PACKET = 0x81,
    MQTT_PROTOCOL_ERROR = 0x82,
    MQTT_UNSUPPORTED_VERSION = 0x84,
    MQTT_CLIENT_ID_NOT_VALID = 0x85,
    MQTT_BAD_USER_NAME_OR_PASSWORD = 0x86,
    MQTT_NOT_AUTHORIZED = 0x87,
    MQTT_SERVER_UNAVAILABLE = 0x88,
    MQTT_SERVER_BUSY = 0x89,
    MQTT_SERVER_SHUTTING_DOWN = 0x8b,
    MQTT_BAD_AUTHENTICATION_METHOD = 0x8c,
    MQTT_KEEP_ALIVE_TIMEOUT = 0x8d,
    MQTT_SESSION_TAKEN_OVER = 0x8e,
    MQTT_TOPIC_FILTER_INVALID = 0x8f,
    MQTT_TOPIC_NAME_INVALID = 0x90,
    MQTT_RECEIVE_MAXIMUM_EXCEEDED = 0x93,
    MQTT_TOPIC_ALIAS_INVALID = 0x94,
    MQTT_PACKET_TOO_LARGE = 0x95,
    MQTT_QUOTA_EXCEEDED = 0x97,
    MQTT_PAYLOAD_FORMAT_INVALID = 0x99,
    MQTT_RETAIN_NOT_SUPPORTED = 0x9a,
    MQTT_QOS_NOT_SUPPORTED = 0x9b,
    MQTT_SHARED_NOT_SUPPORTED = 0x9e,
    MQTT_SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xa1,
    MQTT_WILDCARDS_NOT_SUPPORTED = 0xa2,
};

/* Properties by identifier (2.2.2.2). */
enum mqtt_property {
    MQTT_PAYLOAD_FORMAT = 0x01,
    MQTT_MESSAGE_EXPIRY = 0x02,
    MQTT_CONTENT_TYPE = 0x03,
    MQTT_RESPONSE_TOPIC = 0x08,
    MQTT_CORRELATION_DATA = 0x09,
    MQTT_SUBSCRIPTION_ID = 0x0b,
    MQTT_SESSION_EXPIRY = 0x11,
    MQTT_ASSIGNED_CLIENT_ID = 0x12,
    MQTT_SERVER_KEEP_ALIVE = 0x13,
    MQTT_AUTH_METHOD = 0x15,
    MQTT_AUTH_DATA = 0x16,
    MQTT_REQUEST_PROBLEM = 0x17,
    MQTT_WILL_DELAY = 0x18,
    MQTT_REQUEST_RESPONSE = 0x19,
    MQTT_RESPONSE_INFORMATION = 0x1a,
    MQTT_SERVER_REFERENCE = 0x1c,
    MQTT_REASON_STRING = 0x1f,
    MQTT_RECEIVE_MAXIMUM = 0x21,
    MQTT_TOPIC_ALIAS_MAXIMUM = 0x22,
    MQTT_TOPIC_ALIAS = 0x23,
    MQTT_MAXIMUM_QOS = 0x24,
    MQTT_RETAIN_AVAILABLE = 0x25,
    MQTT_USER_PROPERTY = 0x26,
    MQTT_MAXIMUM_PACKET_SIZE = 0x27,
    MQTT_WILDCARD_AVAILABLE = 0x28,
    MQTT_SUBSCRIPTION_ID_AVAILABLE = 0x29,
    MQTT_SHARED_AVAILABLE = 0x2a,
};

/* The properties of a packet, checked: each known, of this packet, at most once (but user properties), of legal value.
 * Slices are borrowed. Fields are only what this server looks at; all others are checked and left. */
struct mqtt_properties {
    uint64_t present; /* bit n: property n */
    struct slice raw; /* all of them, for mqtt_user_property */
    struct slice content_type;
    uint32_t max_packet;
    uint16_t receive_maximum;
};
/* Value of the first user property named `name`; false when there is none. */
MUST_CHECK bool mqtt_user_property(const struct mqtt_properties *p, const char *name, struct slice *value);

struct mqtt_connect {
    uint8_t version; /* enum mqtt_version; set even when the packet is BAD, 0 when unknown */
    bool clean_start, has_will, has_user_name, has_password;
    uint16_t keepalive_s;
    struct slice client_id, user_name, password;
    struct mqtt_properties properties;
};
struct mqtt_publish {
    bool dup, retain;
    uint8_t qos;        /* 0 or 1 */
    uint16_t packet_id; /* 0 for QoS 0 */
    struct slice topic, payload;
    struct mqtt_properties properties;
};
struct mqtt_puback {
    uint16_t packet_id;
    uint8_t reason;
};
/* SUBSCRIBE and UNSUBSCRIBE; read the filters with mqtt_next_filter. */
struct mqtt_filters {
    uint16_t packet_id;
    struct slice filters; /* checked, at least one */
    struct mqtt_properties properties;
};
struct mqtt_packet {
    enum mqtt_kind kind;
    union {
        struct mqtt_connect connect;
        struct mqtt_publish publish;
        struct mqtt_puback puback;
        struct mqtt_filters filters;
        uint8_t reason; /* DISCONNECT, AUTH */
    };
};
/* Takes the next filter of a SUBSCRIBE (`options` gets its QoS, 0 … 2, and more) or UNSUBSCRIBE (`options` NULL). */
MUST_CHECK bool mqtt_next_filter(struct slice *filters, struct slice *filter, uint8_t *options);

enum mqtt_outcome { MQTT_DONE, MQTT_MORE, MQTT_BAD };

/* Takes one packet from the front of `in`, of a client that speaks `version`; version 0: nothing came before, it must
 * be CONNECT. MORE and BAD leave `in` as it is. BAD sets *reason to the code of 5.0 that says why; packet->kind is then
 * set if it was known, and of a CONNECT its version. Packets that only servers send, and QoS 2, are BAD. Decoding is
 * incremental: a packet is looked at when it is complete, refused as soon as its first bytes allow. */
MUST_CHECK enum mqtt_outcome mqtt_decode(struct slice *in, uint8_t version, struct mqtt_packet *packet,
                                         uint8_t *reason);

/* --- what the server sends -------------------------------------------------------------------------------------- */
struct mqtt_connack {
    uint8_t version;
    uint8_t reason;           /* of 5.0; translated to a return code for 3.1.1 (3.1.1: 3.2.2.3) */
    uint16_t receive_maximum; /* the rest: 5.0 and success only */
    uint16_t keepalive_s;     /* told as Server Keep Alive unless 0 */
    const char *assigned_id;  /* NULL: the client has one */
};
void mqtt_encode_connack(struct buf *out, const struct mqtt_connack *c);
/* Everything before the payload of a PUBLISH, at QoS 1, or QoS 0 when `packet_id` is 0; the payload of `payload_len`
 * bytes must follow. `content_type` NULL for none; it is left out for 3.1.1. */
void mqtt_encode_publish(struct buf *out, uint8_t version, struct slice topic, uint16_t packet_id,
                         const char *content_type, size_t payload_len);
void mqtt_encode_puback(struct buf *out, uint8_t version, uint16_t packet_id, uint8_t reason);
/* One reason per filter; for 3.1.1 every failure becomes 0x80. */
void mqtt_encode_suback(struct buf *out, uint8_t version, uint16_t packet_id, const uint8_t *reasons, size_t n);
void mqtt_encode_unsuback(struct buf *out, uint8_t version, uint16_t packet_id, const uint8_t *reasons, size_t n);
void mqtt_encode_pingresp(struct buf *out);
/* Nothing for 3.1.1, where a server just closes. */
void mqtt_encode_disconnect(struct buf *out, uint8_t version, uint8_t reason);

#endif
