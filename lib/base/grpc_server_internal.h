/* What grpc_server.c, grpc_server_conn.c and grpc_server_call.c share; for no one else but the fuzz target.
 * Owns: struct grpc_server, struct grpc_conn, struct grpc_call. May call: lib/base, proto. Loop rule: as grpc_server.h.
 */
#ifndef MUSTER_BASE_GRPC_SERVER_INTERNAL_H
#define MUSTER_BASE_GRPC_SERVER_INTERNAL_H

#include "lib/base/grpc_metadata.h"
#include "lib/base/grpc_server.h"
#include "lib/base/h2.h"
#include "lib/base/list.h"
#include "proto/grpc_framing.h"

/* A peer that owes the rest of its preface or of a header block for so long is closed. Also the handshake's limit. */
#define GRPC_STALL_US (10 * 1000000ll)
/* A connection with calls that says nothing for so long is asked with a PING, and given up when no answer comes. */
#define GRPC_KEEPALIVE_US      (60 * 1000000ll)
#define GRPC_KEEPALIVE_WAIT_US (20 * 1000000ll)
/* Between the two GOAWAYs of an orderly end, if the peer does not answer the PING between them sooner. */
#define GRPC_NOTICE_US (2 * 1000000ll)
/* Pending output of one connection: enough to fill a turn, and all that a peer that does not read can make us hold
 * beside what its calls' handlers wrote. */
#define GRPC_OUTPUT_LIMIT (256 * 1024)
/* Answers not yet taken, of one connection; beyond, its new calls are refused until it reads. */
#define GRPC_UNREAD_MAX (16u * 1024 * 1024)
/* Of the oldest strangers so many are looked at for one that is silent. */
#define GRPC_STRANGERS_LOOK 64
#define GRPC_LISTENERS_MAX  8
/* Ended calls kept for the next ones, each with a few KiB. */
#define GRPC_POOL_MAX 256
/* Metadata of one call, received and to be sent. */
#define GRPC_CALL_ARENA_MAX (1024 * 1024)
/* Decoding may take so much memory, or 8 times the message if that is more: an encoding can claim millions of empty
 * parts. */
#define GRPC_DECODE_MIN (128u * 1024 * 1024)

struct grpc_service {
    struct grpc_service *next;
    const struct grpc_method *methods;
    grpc_admit_fn *admit;
    void *object;
};

struct grpc_route {
    const struct grpc_method *method;
    struct grpc_service *service;
};

struct grpc_listener {
    struct grpc_server *server;
    struct stream_listener *listener;
    bool tls;
};

struct grpc_server {
    struct stream_hub *hub;
    struct ev_loop *loop;
    struct grpc_server_options options;
    struct grpc_server_stats stats;
    struct grpc_service *services;
    struct grpc_route *routes; /* sorted by path */
    size_t route_count;
    struct grpc_listener listeners[GRPC_LISTENERS_MAX];
    size_t listener_count;
    struct list conns;     /* whose calls were admitted once */
    struct list strangers; /* the others, in the order they came */
    struct list dirty, calls, pool;
    size_t pool_count;
    size_t buffered;  /* bytes of received messages, not yet decoded */
    ev_prepare flush; /* sends for all dirty connections, before the hub does */
    ev_idle awake;    /* runs while any is dirty, so that the loop does not sleep over it */
    ev_timer tick;
    bool draining;
    int64_t drain_until; /* µs */
    void (*done)(void *arg);
    void *done_arg;
};

enum grpc_conn_stage {
    GRPC_CONN_OPEN,
    GRPC_CONN_NOTICED, /* the first GOAWAY is sent */
    GRPC_CONN_LEAVING, /* the second, too */
    GRPC_CONN_CLOSING, /* no h2 any more; the stream sends its rest */
};

struct grpc_conn {
    struct grpc_server *server;
    struct stream *stream; /* NULL in the fuzz target */
    struct h2 *h2;
    struct list link, dirty;
    size_t buffered;
    int64_t stage_since, idle_since, ping_sent; /* µs; 0: none */
    enum grpc_conn_stage stage;
    bool tls;
    bool known; /* stands in server->conns */
    char peer[64];
};

struct grpc_call {
    struct h2_stream stream;    /* stream.h2 is NULL once the peer can't be answered any more */
    struct grpc_server *server; /* NULL after grpc_server_free */
    struct grpc_conn *conn;     /* NULL with stream.h2 */
    const struct grpc_method *method;
    struct grpc_service *service;
    void *object; /* the service's, outlives the server */
    struct list link;
    struct arena arena;   /* metadata */
    struct arena request; /* the message being handled */
    struct arena taken;   /* messages that were taken */
    struct grpc_deframer in;
    struct buf held; /* received, beyond the message in `in` */
    size_t charged;  /* of server->buffered */
    struct grpc_metadata initial, trailer;
    ev_timer timer;
    int64_t deadline;    /* µs of CLOCK_MONOTONIC, INT64_MAX for none */
    int64_t answered_at; /* µs */
    void (*on_drain)(struct grpc_call *call, void *service);
    void *data;
    unsigned busy; /* callbacks running: freeing waits */
    bool admitting, admitted;
    bool ready;    /* `in` holds the one message of a unary request */
    bool started;  /* the handler knows the call, and owes grpc_call_finish */
    bool finished; /* it has called it */
    bool answered; /* the status was submitted */
    bool headers_sent;
    bool cancelled;
    bool paused;
    bool end_told;
    bool request_taken;
    char peer[64];
};

/* grpc_server.c */
void grpc_server_mark_dirty(struct grpc_conn *conn);
const struct grpc_route *grpc_server_route(const struct grpc_server *server, const char *path);
/* Takes one from the pool or makes it; NULL without memory. */
struct grpc_call *grpc_call_new(struct grpc_conn *conn);

/* grpc_server_conn.c */
/* `stream` may be NULL: the fuzz target feeds and reads the session itself. Returns NULL without memory. */
struct grpc_conn *grpc_conn_new(struct grpc_server *server, struct stream *stream, bool tls);
/* Makes the HTTP/2 session. */
MUST_CHECK bool grpc_conn_start(struct grpc_conn *conn);
/* Sends what can be sent; may free the connection. */
void grpc_conn_pump(struct grpc_conn *conn);
/* Takes input; may free the connection. */
void grpc_conn_feed(struct grpc_conn *conn, const uint8_t *data, size_t len);
/* Looks at the clocks; may free the connection. */
void grpc_conn_tick(struct grpc_conn *conn, int64_t now);
/* Begins an orderly end. */
void grpc_conn_drain(struct grpc_conn *conn);
/* Closes at once and frees. */
void grpc_conn_free(struct grpc_conn *conn);
/* One of its calls was admitted: it is no stranger. */
void grpc_conn_trust(struct grpc_conn *conn);
/* Closes the stranger that has been silent for longest. False when there is none. */
bool grpc_conn_drop_stranger(struct grpc_server *server);

/* grpc_server_call.c */
void grpc_call_on_headers(struct h2_stream *s);
void grpc_call_on_data(struct h2_stream *s, const uint8_t *data, size_t len);
void grpc_call_on_end(struct h2_stream *s);
void grpc_call_on_drained(struct h2_stream *s);
void grpc_call_on_close(struct h2_stream *s, uint32_t code);
/* Frees or pools a call that nobody needs any more. */
void grpc_call_release(struct grpc_call *call);
/* Gives up an answer that the peer does not take; may free the call. */
void grpc_call_tick(struct grpc_call *call, int64_t now);

#endif
