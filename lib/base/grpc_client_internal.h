/* What grpc_client.c and grpc_client_call.c share; for no one else.
 * Owns: struct grpc_client, struct client_conn, struct grpc_client_call. May call: lib/base, proto.
 * Loop rule: as grpc_client.h. */
#ifndef MUSTER_BASE_GRPC_CLIENT_INTERNAL_H
#define MUSTER_BASE_GRPC_CLIENT_INTERNAL_H

#include "lib/base/grpc_client.h"
#include "lib/base/grpc_metadata.h"
#include "lib/base/h2.h"
#include "lib/base/list.h"
#include "proto/grpc_framing.h"

#define GRPC_CLIENT_MAX_MESSAGE  (256u * 1024 * 1024)
#define GRPC_CLIENT_HEADER_LIST  (64 * 1024)
#define GRPC_CLIENT_ARENA_MAX    (1024 * 1024)
#define GRPC_CLIENT_OUTPUT_LIMIT (256 * 1024)

struct client_metadata {
    struct client_metadata *next;
    char *key, *value;
};

struct grpc_client {
    struct stream_hub *hub;
    struct ev_loop *loop;
    char *host; /* or "unix:/path" */
    char *authority;
    uint16_t port;
    struct tls *tls;
    struct client_metadata *metadata;
    struct client_conn *conn; /* takes new calls; NULL: none yet, lost, or the server has said GOAWAY */
    struct list conns;        /* that one, and those whose calls are still ending */
    struct list dirty;
    struct list lost; /* calls that failed before they had a connection */
    ev_prepare flush;
    ev_idle awake;
    bool flushing, doomed; /* freed inside a callback of `flush`: it does the rest */
};

struct client_conn {
    struct grpc_client *client;
    struct stream *stream;
    struct h2 *h2;
    struct list link, dirty;
    bool open;
    bool lost;    /* being freed: the calls it still has are UNAVAILABLE */
    enum err why; /* of its end */
};

struct grpc_client_call {
    struct h2_stream stream;
    struct grpc_client *client;
    struct client_conn *conn; /* NULL with stream.h2 */
    const struct grpc_client_handler *handler;
    void *arg;
    const ProtobufCMessageDescriptor *response;
    struct list lost;
    struct arena arena, message;
    struct grpc_deframer in;
    ev_timer timer;
    struct status status; /* what on_status will get, once `decided` */
    bool decided;
    bool responded; /* the response's header block was accepted */
    bool done;      /* on_status was called */
};

/* grpc_client.c */
void client_mark_dirty(struct client_conn *conn);
/* The connection for a new call, or NULL when it can't even be tried. */
struct client_conn *client_connect(struct grpc_client *client);
/* on_status comes from the loop, not from inside the present call. */
void client_call_later(struct grpc_client_call *call);

/* grpc_client_call.c */
extern const struct h2_events client_h2_events;
/* Ends the call: detaches its stream, calls on_status with what was decided and frees. */
void client_call_end(struct grpc_client_call *call);

#endif
