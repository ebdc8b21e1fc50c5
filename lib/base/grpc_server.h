/* gRPC server over HTTP/2 (nghttp2) on streams: gRPC over HTTP2 protocol, grpc/grpc doc/PROTOCOL-HTTP2.md.
 * Owns: struct grpc_server, its connections and calls; deadlines, limits, keepalive policy, drain.
 * May call: lib/base, proto/grpc framing, proto/status. Knows no service: methods come as a table.
 * Loop rule: handlers run from the loop and must not block. */
#ifndef MUSTER_BASE_GRPC_SERVER_H
#define MUSTER_BASE_GRPC_SERVER_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/stream.h"
#include "proto/status.h"

struct grpc_server;
struct grpc_call;

/* One method. For a unary or server-streaming method `message` comes exactly once (a request without or with two
 * messages is refused by the server), and `end` is not called; for client streaming `message` comes per message and
 * `end` after the last.
 *
 * A call lives until its handler calls grpc_call_finish, exactly once, now or later, even when it was cancelled
 * meanwhile: an asynchronous answer may then be given as usual and goes nowhere. `cancelled` (may be NULL) tells early
 * that the peer has reset, gone away, or that the deadline has passed (the server has answered DEADLINE_EXCEEDED
 * itself), so that a long stream can stop; the handler must then still call grpc_call_finish. */
struct grpc_method {
    const char *path; /* "/muster.v1.CommandService/SubmitBatch" */
    const ProtobufCMessageDescriptor *request;
    const ProtobufCMessageDescriptor *response;
    bool client_streaming, server_streaming;
    /* `request` is borrowed for the duration of the callback, unless taken with grpc_call_take_request. */
    void (*message)(struct grpc_call *call, void *service, const ProtobufCMessage *request);
    void (*end)(struct grpc_call *call, void *service);
    void (*cancelled)(struct grpc_call *call, void *service);
    /* For the user of the table, such as the role a method needs; the server does not look at it. */
    int tag;
};

/* Runs before the first message of each call of this service, with metadata read: authentication. Returns true to go on
 * at once; false when it will decide later with grpc_call_accept or grpc_call_finish (meanwhile messages wait, within
 * the flow-control window). NULL accepts all. */
typedef bool grpc_admit_fn(struct grpc_call *call, void *service);

struct grpc_server_options {
    size_t max_message;       /* bytes of one request message; 0: 64 MiB. Beyond: RESOURCE_EXHAUSTED */
    size_t max_header_list;   /* bytes of one header list (RFC 9113, 6.5.2); 0: 16 KiB */
    uint32_t max_streams;     /* concurrent streams per connection; 0: 256 */
    uint32_t max_connections; /* 0: 4,096; beyond, the oldest that is silent and never had a call admitted is closed, or
                                 else the new one */
    size_t max_buffered;      /* bytes of received, not yet decoded messages over all connections; 0: 512 MiB. Beyond:
                                 RESOURCE_EXHAUSTED */
    int64_t min_ping_interval_ms; /* keepalive pings more often than this, three strikes: GOAWAY ENHANCE_YOUR_CALM
                                     "too_many_pings"; 0: 10 s */
    int64_t unread_timeout_ms;    /* an answer that the peer has not taken for so long is given up; 0: 30 s */
    int64_t idle_timeout_ms;      /* connections without calls are closed with GOAWAY; 0: 30 min */
};

/* Returns owned, or NULL without memory. */
struct grpc_server *grpc_server_new(struct stream_hub *hub, const struct grpc_server_options *options);
/* Closes all connections at once; calls still open stay allocated until finished. */
void grpc_server_free(struct grpc_server **server);
/* Adds a service; `methods` ends with a NULL path; all borrowed. */
void grpc_server_add(struct grpc_server *server, const struct grpc_method *methods, grpc_admit_fn *admit,
                     void *service);
/* Names each added service once, such as "muster.v1.CommandService", `len` bytes; for reflection. */
void grpc_server_each_service(const struct grpc_server *server, void (*each)(void *arg, const char *name, size_t len),
                              void *arg);
/* Listens; TLS needs ALPN "h2"; without TLS it is HTTP/2 with prior knowledge. */
MUST_CHECK enum err grpc_server_listen(struct grpc_server *server, const char *address, struct tls *tls);
/* Port of the first listener. */
int grpc_server_port(const struct grpc_server *server);
/* GOAWAY to all, no new calls, and `done` when the last call has ended or after `timeout_ms`. */
void grpc_server_drain(struct grpc_server *server, int64_t timeout_ms, void (*done)(void *arg), void *arg);
/* Counters for metrics; borrowed for the server's life. */
struct grpc_server_stats {
    uint64_t connections, connections_total, calls, calls_total, calls_failed, bytes_in, bytes_out, goaway_floods;
    uint64_t strangers_dropped, unread_dropped; /* connections; answers that the peer did not take */
};
const struct grpc_server_stats *grpc_server_stats(const struct grpc_server *server);

/* --- calls --- */
const struct grpc_method *grpc_call_method(const struct grpc_call *call);
/* Value of a request metadata key (lower case), or NULL; a "-bin" value comes decoded, with its length in *len (may be
 * NULL). */
const char *grpc_call_metadata(const struct grpc_call *call, const char *key, size_t *len);
const char *grpc_call_peer(const struct grpc_call *call);
/* Time left in milliseconds; INT64_MAX without a deadline, 0 when passed. */
int64_t grpc_call_time_left(const struct grpc_call *call);
bool grpc_call_cancelled(const struct grpc_call *call);
/* The handler's own pointer; NULL at first. */
void grpc_call_set_data(struct grpc_call *call, void *data);
void *grpc_call_data(const struct grpc_call *call);
/* In `message`: takes the request so that it outlives the callback; it is freed when the call is. */
void grpc_call_take_request(struct grpc_call *call);
/* In `message`: bytes of memory the request takes, decoded. */
size_t grpc_call_request_bytes(const struct grpc_call *call);
/* Decides an admission put off. */
void grpc_call_accept(struct grpc_call *call);
/* Adds response metadata: initial before the first send. Values of "-bin" keys are raw bytes. Copies. */
void grpc_call_add_initial(struct grpc_call *call, const char *key, const void *value, size_t len);
void grpc_call_add_trailer(struct grpc_call *call, const char *key, const void *value, size_t len);
/* Sends one response message; copies (encodes at once). */
void grpc_call_send(struct grpc_call *call, const ProtobufCMessage *response);
/* The same with a message that is encoded already: for one that goes to many, or is encoded by hand. */
void grpc_call_send_bytes(struct grpc_call *call, struct slice response);
/* Bytes of responses not yet taken by the peer: a streaming handler must hold back while this is over its own bound,
 * and is told by `on_drain` when it fell to zero. */
size_t grpc_call_pending(const struct grpc_call *call);
void grpc_call_on_drain(struct grpc_call *call, void (*on_drain)(struct grpc_call *call, void *service));
/* Client streaming: stop and resume taking messages (flow control then stops the peer). */
void grpc_call_pause(struct grpc_call *call, bool paused);
/* Ends the call. `status` NULL is OK; borrowed. After this the handler must not touch the call. */
void grpc_call_finish(struct grpc_call *call, const struct status *status);
/* Sends one message and finishes with OK. */
void grpc_call_reply(struct grpc_call *call, const ProtobufCMessage *response);

#endif
