/* MQTT as a client speaks it, 3.1.1 and 5.0: the few packets a device, or a sender of commands over a broker, needs,
 * written into and read from plain memory.
 * Owns: the packet forms. May call: lib/base buffers. Loop rule: none, pure.
 * Source: OASIS MQTT 3.1.1 and 5.0, section numbers in the .c. */
#ifndef MUSTER_FLEET_MQTT_H
#define MUSTER_FLEET_MQTT_H

#include "lib/base/buf.h"

enum mqtt_type {
    MQTT_CONNECT = 1,
    MQTT_CONNACK = 2,
    MQTT_PUBLISH = 3,
    MQTT_PUBACK = 4,
    MQTT_SUBSCRIBE = 8,
    MQTT_SUBACK = 9,
    MQTT_PINGREQ = 12,
    MQTT_PINGRESP = 13,
    MQTT_DISCONNECT = 14,
};

/* Largest packet a device takes: a command's payload is at most 64 KiB. */
#define MQTT_PACKET_MAX (128u * 1024)

enum mqtt_result { MQTT_DONE, MQTT_MORE, MQTT_BAD };

/* One packet, fields by type; slices are borrowed from the input. */
struct mqtt_packet {
    enum mqtt_type type;
    uint16_t packet_id;       /* PUBLISH (QoS 1), PUBACK, SUBACK */
    uint8_t reason;           /* CONNACK, PUBACK, SUBACK (its first), DISCONNECT */
    uint8_t qos;              /* PUBLISH */
    uint16_t receive_maximum; /* CONNACK, 65,535 when not stated */
    struct slice topic, payload;
};

/* Takes one packet from the front of `in`. `version` is 4 (3.1.1) or 5. MORE and BAD leave `in` as it is. */
MUST_CHECK enum mqtt_result mqtt_read(struct slice *in, int version, struct mqtt_packet *out);

struct mqtt_login {
    int version;
    const char *device;   /* client id and user name */
    const char *password; /* NULL: neither user name nor password */
    uint16_t keepalive_s;
    bool keep_session; /* 3.1.1: the server is to keep the session (clean session 0) */
};
void mqtt_put_connect(struct buf *out, const struct mqtt_login *login);
/* devices/<device>/<what>; `device` may be the wildcard "+" in a SUBSCRIBE. */
struct mqtt_topic {
    const char *device;
    const char *what; /* "commands" or "acks" */
};
void mqtt_put_subscribe(struct buf *out, int version, uint16_t packet_id, struct mqtt_topic topic, uint8_t qos);
void mqtt_put_puback(struct buf *out, uint16_t packet_id);
void mqtt_put_pingreq(struct buf *out);
void mqtt_put_disconnect(struct buf *out);
/* PUBLISH at QoS 1, or at QoS 0 when `packet_id` is 0. */
void mqtt_put_publish(struct buf *out, int version, uint16_t packet_id, struct mqtt_topic topic, struct slice payload);

#endif
