/* One HTTP/2 connection (RFC 9113) on nghttp2, without a socket: bytes in, events out, bytes out.
 * Owns: struct h2; flow control, header limits, flood limits, the ping policy, GOAWAY. May call: nghttp2, lib/base.
 * Loop rule: no I/O, never blocks. Events come from inside h2_receive, h2_send and h2_free; an event handler may write,
 * reset and go away on any stream, but not call h2_receive, h2_send or h2_free of the same session. */
#ifndef MUSTER_BASE_H2_H
#define MUSTER_BASE_H2_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/list.h"

/* What a stream may send before its receiver takes anything; a long way at high rates needs about so much. */
#define H2_STREAM_WINDOW (1024 * 1024)
/* Of the connection: bytes on the wire, for they are taken at once; streams hold back by their own windows. */
#define H2_CONNECTION_WINDOW (8 * 1024 * 1024)

struct h2;

/* A header field as received; both strings end with NUL. */
struct h2_field {
    struct h2_field *next;
    const char *name, *value;
    size_t name_len, value_len;
};

/* One stream, embedded in its owner's call. Made with h2_stream_init. */
struct h2_stream {
    struct h2 *h2; /* NULL before it begins and after it was closed */
    int32_t id;
    struct list link;           /* in h2's streams */
    struct list drained;        /* in h2's list of streams whose output ran empty */
    struct arena *arena;        /* borrowed: where received fields are kept */
    struct h2_field *fields;    /* of the last header block, in order */
    struct h2_field **last;     /* its tail */
    size_t field_bytes;         /* of the block in the sense of SETTINGS_MAX_HEADER_LIST_SIZE */
    bool fields_over;           /* the block is over the limit; what came beyond is not kept */
    bool ended;                 /* END_STREAM was received */
    bool out_end;               /* after `out` comes the end, with `trailers` if there are any */
    bool out_waits;             /* nghttp2 waits for more of `out` */
    struct buf out;             /* content not sent yet; freed by the owner */
    const nghttp2_nv *trailers; /* borrowed until on_close */
    size_t trailer_count;
};

struct h2_events {
    /* Server: a request begins. Returns the owner's stream (initialised), or NULL to refuse it. */
    struct h2_stream *(*on_begin)(void *arg);
    /* A header block is complete: `s->fields`. */
    void (*on_headers)(struct h2_stream *s);
    /* Content; the owner gives credit back with h2_consume. `data` is borrowed. */
    void (*on_data)(struct h2_stream *s, const uint8_t *data, size_t len);
    /* The peer has ended its side. */
    void (*on_end)(struct h2_stream *s);
    /* All of `out` was taken (by the connection's output). */
    void (*on_drained)(struct h2_stream *s);
    /* The stream is gone, `s->h2` NULL; exactly once. `code` is an HTTP/2 error code, NO_ERROR after an orderly end. */
    void (*on_close)(struct h2_stream *s, uint32_t code);
    /* The peer goes away. May be NULL. */
    void (*on_goaway)(void *arg, uint32_t code, struct slice debug);
    /* An answer to h2_ping. May be NULL. */
    void (*on_pong)(void *arg);
};

/* Where output goes. */
struct h2_sink {
    void (*write)(void *arg, const uint8_t *data, size_t len);
    /* False: h2_send stops and is called again later. */
    bool (*writable)(void *arg);
};

struct h2_options {
    bool server;
    uint32_t max_streams;      /* concurrent, begun by the peer */
    size_t max_header_list;    /* bytes (RFC 9113, 6.5.2) */
    int64_t min_ping_interval; /* µs; server */
};

/* Returns owned, or NULL without memory. The SETTINGS frame is ready to be sent. Borrows events and sink. */
struct h2 *h2_new(const struct h2_options *options, const struct h2_events *events, const struct h2_sink *sink,
                  void *arg);
/* Closes all streams (on_close with CANCEL) and frees. */
void h2_free(struct h2 **h2);

/* Takes input, all of it. Anything but ERR_OK means: send what there is and close. ERR_LIMIT: a flood. */
MUST_CHECK enum err h2_receive(struct h2 *h2, const uint8_t *data, size_t len);
/* Writes output while the sink is writable. */
MUST_CHECK enum err h2_send(struct h2 *h2);
/* True when there is nothing left to receive or send: close. */
bool h2_finished(const struct h2 *h2);
/* Microseconds (CLOCK_MONOTONIC) since when the peer owes the rest of its preface or of a header block; 0: it owes
 * nothing. */
int64_t h2_stalled_since(const struct h2 *h2);
/* Time of the last received bytes. */
int64_t h2_last_receive(const struct h2 *h2);
size_t h2_stream_count(const struct h2 *h2);
/* Bytes of content of all streams that the peer has not taken yet. */
size_t h2_unsent(const struct h2 *h2);
/* True once: the connection was ended because of a flood. */
bool h2_was_flooded(const struct h2 *h2);

/* Prepares `s` for a new stream; `out` must be empty or zero. */
void h2_stream_init(struct h2_stream *s, struct arena *arena);
/* Client: begins a stream. Content comes after it. */
MUST_CHECK enum err h2_request(struct h2 *h2, struct h2_stream *s, const nghttp2_nv *fields, size_t count);
/* Server: sends the header block; `last` says that nothing follows it. */
void h2_respond(struct h2_stream *s, const nghttp2_nv *fields, size_t count, bool last);
/* Content was added to `s->out`, or `s->out_end` was set. */
void h2_resume(struct h2_stream *s);
/* Gives the peer credit for `n` received bytes. */
void h2_consume(struct h2_stream *s, size_t n);
/* RST_STREAM. on_close comes when it has been sent, unless the stream is detached. */
void h2_reset(struct h2_stream *s, uint32_t code);
/* Forgets `s`: no more events for it. */
void h2_detach(struct h2_stream *s);

/* First step of an orderly end: new streams are still taken. */
void h2_shutdown_notice(struct h2 *h2);
/* Second step: no new streams; h2_finished when the last one has ended. */
void h2_goaway(struct h2 *h2);
/* Ends the connection as soon as the GOAWAY is sent. */
void h2_abort(struct h2 *h2, uint32_t code, const char *debug);
void h2_ping(struct h2 *h2);

#endif
