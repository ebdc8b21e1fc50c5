/* MQTT sessions: connections of devices, from accept to close; the first transport of session.h.
 * Owns: struct mqtt_server, connections before and after CONNECT. May call: lib/base/stream, proto/mqtt,
 * proto/delivery, credentials, session. Loop rule: callbacks of streams; never blocks.
 *
 * What a device may do: subscribe to devices/<device id>/commands, publish to devices/<device id>/acks. Delivery begins
 * with the subscription. Files: mqtt_server.c until CONNECT is accepted, mqtt_session.c from then on. */
#ifndef MUSTER_WORKERS_MQTT_H
#define MUSTER_WORKERS_MQTT_H

#include <stdbool.h>
#include <stdint.h>

#include "workers/session.h"

struct mqtt_server;
struct mqtt_stats;
struct tls;
struct worker;

/* Outcomes of a device not yet durable, at most; told to 5.0 clients as Receive Maximum. Beyond it a 3.1.1 client is
 * not read any more until some are. */
#define MQTT_ACKS_MAX 32
/* From accept (or the end of the handshake) to CONNECT, all of it, and from CONNECT to the answer. */
#define MQTT_CONNECT_MS 10000

/* Returns owned, or NULL without memory. */
struct mqtt_server *mqtt_server_new(struct worker *worker);
void mqtt_server_free(struct mqtt_server **server);
/* Listens on `address`; `tls` NULL for plain. Returns the port; -1 with a line in the log. May be called twice. */
int mqtt_server_listen(struct mqtt_server *server, const char *address, struct tls *tls);
/* Accepts nobody any more; connections before CONNECT are closed. */
void mqtt_server_stop(struct mqtt_server *server);
struct mqtt_stats {
    uint64_t accepted, connected, refused, protocol_errors, keepalive_timeouts, connect_timeouts, pings;
    uint64_t strangers_dropped, deaf, choked, pubacks_deferred;
    uint64_t connections; /* gauge: accepted and not closed */
    uint64_t strangers;   /* gauge: of these, before CONNECT */
};
const struct mqtt_stats *mqtt_server_stats(const struct mqtt_server *server);

#endif
