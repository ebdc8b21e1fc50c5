/* Parts of the MQTT decoder: strings, variable byte integers and properties; for mqtt*.c only.
 * Owns: the property table. May call: lib/base/buf. Loop rule: none, pure. */
#ifndef MUSTER_PROTO_MQTT_PROPERTIES_H
#define MUSTER_PROTO_MQTT_PROPERTIES_H

#include "proto/mqtt.h"

/* Where a property list stands; the will's is not a packet's. */
enum mqtt_place {
    MQTT_IN_CONNECT = 1 << 0,
    MQTT_IN_WILL = 1 << 1,
    MQTT_IN_PUBLISH = 1 << 2,
    MQTT_IN_PUBACK = 1 << 3,
    MQTT_IN_SUBSCRIBE = 1 << 4,
    MQTT_IN_UNSUBSCRIBE = 1 << 5,
    MQTT_IN_DISCONNECT = 1 << 6,
    MQTT_IN_AUTH = 1 << 7,
};

/* Variable byte integer (1.5.5): at most four bytes, shortest form. MORE leaves `in` as it is. */
enum mqtt_outcome mqtt_read_varint(struct slice *in, uint32_t *v);
/* UTF-8 string (1.5.4): well-formed, without U+0000 and surrogates. */
MUST_CHECK bool mqtt_read_string(struct slice *in, struct slice *out);
MUST_CHECK bool mqtt_read_binary(struct slice *in, struct slice *out);
/* Takes a property list with its length from the front of `in`. Returns MQTT_SUCCESS or the reason why it is bad. */
MUST_CHECK enum mqtt_reason mqtt_read_properties(struct slice *in, enum mqtt_place place, struct mqtt_properties *out);

#endif
