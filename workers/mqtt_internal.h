/* What mqtt_server.c and mqtt_session.c share; for no one else.
 * Owns: struct mqtt_server, struct mqtt_session. May call: as mqtt.h. Loop rule: as mqtt.h. */
#ifndef MUSTER_WORKERS_MQTT_INTERNAL_H
#define MUSTER_WORKERS_MQTT_INTERNAL_H

#include <ev.h>

#include "lib/base/buf.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/base/stream.h"
#include "proto/mqtt.h"
#include "workers/mqtt.h"
#include "workers/pubacks.h"

#define MQTT_LISTENERS_MAX 2 /* TLS and plain */
#define MQTT_DEVICE_ID_MAX 128
/* Sessions with ids up to these lengths lie side by side: serial numbers, and UUIDs or Apple's UDIDs. */
#define MQTT_DEVICE_ID_SHORT 16
#define MQTT_DEVICE_ID_USUAL 40
#define MQTT_TICK_MS         250
#define MQTT_WHEEL           2048 /* ticks a keepalive is looked ahead; of longer ones the rest comes after that */

/* What a connection before CONNECT waits for. */
enum mqtt_stranger { MQTT_SHAKING, MQTT_CONNECTING, MQTT_KEYLESS, MQTT_STRANGERS };

struct mqtt_server {
    struct worker *worker;
    struct stream_listener *listeners[MQTT_LISTENERS_MAX];
    unsigned listener_count;
    struct list strangers[MQTT_STRANGERS]; /* connections before CONNECT, in the order they came there */
    struct list sessions;                  /* struct mqtt_session without keepalive */
    struct list wheel[MQTT_WHEEL];         /* the others, by the tick in which they are looked at next */
    struct ev_timer timer;
    uint32_t tick;       /* count of MQTT_TICK_MS, for keepalives; */
    uint32_t looked;     /* at the wheel up to that tick */
    struct buf scratch;  /* a packet being made */
    struct buf choked;   /* struct mqtt_choked: sessions not read since acks are full */
    struct buf deferred; /* struct mqtt_deferred: sessions with PUBACKs that give way, oldest first */
    struct ev_timer deferred_timer;
    struct pool short_pool, pool; /* of sessions */
    struct mqtt_stats stats;
};

/* A session, if it is still there. */
struct mqtt_choked {
    uint32_t tenant, seq, generation;
};

/* One a device, and there are many: keep it small. */
struct mqtt_session {
    struct session session;
    struct stream *stream;
    struct list link;         /* in the server's sessions or the wheel */
    uint32_t max_packet;      /* the client takes no larger ones */
    uint32_t seen;            /* tick of the last packet */
    uint16_t keepalive;       /* seconds; 0: none */
    uint16_t next_id;         /* packet id of the last PUBLISH */
    uint16_t unacked;         /* PUBLISHes without PUBACK */
    uint16_t receive_maximum; /* the client's: bounds `unacked` */
    struct pubacks pubacks;   /* of acknowledgements not yet durable, and what was refused behind these */
    uint8_t version;          /* enum mqtt_version */
    uint8_t qos;              /* of the subscription */
    bool json : 1;
    bool paused : 1;   /* not read until its outcomes are durable; */
    bool deaf : 1;     /* until it reads what it was answered */
    bool deferred : 1; /* it stands in the server's */
    uint8_t id_len;
    char id[]; /* the device's; id_len bytes, no NUL */
};

/* A CONNECT with a good token came: makes the session and hands the stream over to it. NULL without memory. */
struct mqtt_session *mqtt_session_new(struct mqtt_server *server, struct stream *stream,
                                      const struct mqtt_connect *connect, const struct session *identity);
/* Reads what follows CONNECT; as stream_handler.on_data. */
size_t mqtt_session_data(struct stream *stream, void *arg, const uint8_t *data, size_t len);
/* Acknowledgements have room again: reads all that were not read for want of it. */
void mqtt_session_unchoke(struct mqtt_server *server);
/* Ends the session with a DISCONNECT that says why (5.0) and closes the connection. */
void mqtt_session_end(struct mqtt_session *m, enum mqtt_reason reason);
/* mqtt_keepalive.c: prepares the lists; adds a new session to them. */
void mqtt_keepalive_init(struct mqtt_server *server);
void mqtt_keepalive_add(struct mqtt_server *server, struct mqtt_session *m);
/* Ends those that have been silent for too long, at each tick. */
void mqtt_keepalive_look(struct mqtt_server *server);
/* Ends all, whatever their keepalive. */
void mqtt_keepalive_end_all(struct mqtt_server *server, enum mqtt_reason reason);
/* mqtt_puback.c: a PUBACK is settled; says it now, or when commands no longer wait to be sent. */
void mqtt_puback(struct mqtt_session *m);
/* Puts PUBACKs that are settled into the scratch buffer, up to the first that is not. */
void mqtt_puback_put(struct mqtt_session *m);
void mqtt_puback_init(struct mqtt_server *server);
void mqtt_puback_free(struct mqtt_server *server);
/* Whether the packet in the scratch buffer is whole. If not, for want of memory, the connection ends: a device can do
 * without an answer, but not go on behind half of one. */
bool mqtt_made(const struct mqtt_server *server, struct stream *stream);
/* Sends the scratch buffer. */
void mqtt_send(struct mqtt_server *server, struct stream *stream);
/* Sends what is pending, then closes; nobody listens any more. */
void mqtt_bury(struct mqtt_server *server, struct stream *stream);
/* "application/json", whatever its case and parameters. */
bool mqtt_is_json(struct slice content_type);

#endif
