/* Byte streams over TCP, plain or TLS 1.2+, and listeners for them: what HTTP/2 and MQTT sessions stand on.
 * Owns: struct stream, struct stream_listener, struct tls; sockets and SSL objects. May call: OpenSSL, libev.
 * Loop rule: non-blocking; callbacks come from the loop, never from inside stream_write or stream_close. A stream that
 * is closed stays allocated until the end of the turn; its owner must not touch it after on_close or stream_close.
 *
 * Output written in one turn leaves in one write at the end of the turn; what a stream is given inside its own on_data
 * leaves when that returns. An idle stream keeps no buffers (TLS runs with SSL_MODE_RELEASE_BUFFERS).
 *
 * TLS records are OpenSSL's, or lean: after OpenSSL's handshake the keys move to records of our own and the SSL object
 * is freed (tls_channel.h says what that does and does not do). Nothing else differs for a stream's owner. */
#ifndef MUSTER_BASE_STREAM_H
#define MUSTER_BASE_STREAM_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/tls_ticket.h"

struct stream;
struct stream_listener;
struct tls;        /* a TLS context, server or client side */
struct stream_hub; /* per loop: scratch buffers, the list of streams with output, reaping; one per process */

/* Returns owned, or NULL without memory. Must outlive all streams made with it. */
struct stream_hub *stream_hub_new(struct ev_loop *loop);
void stream_hub_free(struct stream_hub **hub);
struct ev_loop *stream_hub_loop(const struct stream_hub *hub);
/* Of servers' streams, for metrics; borrowed. */
struct stream_stats {
    uint64_t handshakes_waited;    /* began in a later turn, since a crowd was there */
    uint64_t handshakes_timed_out; /* the peer kept silent for too long */
    uint64_t handshakes_dropped;   /* of too many under way the one that took longest */
    uint64_t accepts_refused;      /* closed at once, for want of room */
};
const struct stream_stats *stream_hub_stats(const struct stream_hub *hub);

struct tls_options {
    const char *cert_file, *key_file; /* PEM; needed on the server side */
    const char *ca_file;              /* client side: trust this CA only (NULL: the system's) */
    const char *alpn;                 /* one protocol, such as "h2"; NULL for none. Server: other offers are refused */
    const char *server_name;          /* client side: SNI and name to verify; NULL: do not verify the name */
    bool insecure;                    /* client side: do not verify at all (simulated fleet only) */
    bool server;
    bool lean; /* lean records; a connection that cannot have them (TLS 1.2) goes on with OpenSSL's */
};
/* Returns owned; NULL with one line in the log that names the file and the reason. */
struct tls *tls_new(const struct tls_options *options);
void tls_free(struct tls **tls);
/* The keys of a server's session tickets, as tls_tickets_set. ERR_NOMEM leaves the former ones. */
MUST_CHECK enum err tls_set_ticket_keys(struct tls *tls, const struct tls_ticket_key *keys, size_t count,
                                        size_t encrypting);

struct stream_handler {
    /* Connected, and for TLS the handshake is done. May be NULL. */
    void (*on_open)(struct stream *s, void *arg);
    /* `data` is borrowed. Returns how many bytes were used up; the rest is kept and comes again in front of what
     * follows. What is kept is bounded by `input_limit`: beyond it the stream closes with ERR_LIMIT. */
    size_t (*on_data)(struct stream *s, void *arg, const uint8_t *data, size_t len);
    /* Pending output fell below the low watermark (a quarter of the high one) after stream_writable said false. May be
     * NULL. */
    void (*on_drain)(struct stream *s, void *arg);
    /* Closed by peer, error or stream_shutdown's end; exactly once, and not after stream_close. `why` ERR_CLOSED is
     * orderly. */
    void (*on_close)(struct stream *s, void *arg, enum err why);
    uint32_t input_limit;  /* bytes; 0: STREAM_DEFAULT_LIMIT */
    uint32_t output_limit; /* the high watermark of pending output, for stream_writable: bytes; 0: as above */
};
#define STREAM_DEFAULT_LIMIT 65536

/* Connects to `host`:`port` (numeric address, name or, with "unix:/path", a socket). `tls` NULL for plain. `source` is
 * a local address to bind, or NULL. Returns owned by the hub until closed; NULL when it failed at once. Borrows tls and
 * handler. */
struct stream *stream_connect(struct stream_hub *hub, const char *host, uint16_t port, struct tls *tls,
                              const char *source, const struct stream_handler *handler, void *arg);

/* A name, unlike a numeric address, is looked up with getaddrinfo, which blocks: for start-up and tools only. Connect
 * and handshake must be done within 10 s (else ERR_TIMEOUT); refused: ERR_UNAVAILABLE; an untrusted peer: ERR_AUTH. */

/* A new connection was accepted; set its handler here with stream_set_handler, or stream_close it. For TLS the
 * handshake comes after. */
typedef void stream_accept_fn(struct stream *s, void *arg);
/* Listens on "address:port" ("127.0.0.1:0" for any free port, "[::1]:7443") or "unix:/path" (replaces the file).
 * Borrows tls (NULL for plain). At most 8 accepts a turn, behind all else that is ready. `handshake_timeout_ms`, a
 * minute at most, closes connections that have not sent their first byte, or from then on not finished their handshake.
 * Out of descriptors: pauses accepting, logs once, goes on later. Returns NULL with a line in the log when it can't. */
struct stream_listener *stream_listen(struct stream_hub *hub, const char *address, struct tls *tls,
                                      int handshake_timeout_ms, stream_accept_fn *on_accept, void *arg);
int stream_listener_port(const struct stream_listener *l);
/* Whether one more connection can be taken. `scarce`: there are hardly descriptors left, STREAM_DESCRIPTORS_KEPT of
 * this process's; the owner closes what it needs least. */
enum stream_room {
    STREAM_ROOM,      /* there is, or was made */
    STREAM_ROOM_SOON, /* this one, but no more for a moment: those at the door wait for us */
    STREAM_ROOM_NONE, /* it is closed at once: its peer finds another server sooner */
};
typedef enum stream_room stream_room_fn(void *arg, bool scarce);
/* Asks `room` before on_accept, with the same `arg`. Without it all are taken. */
void stream_listener_set_room(struct stream_listener *l, stream_room_fn *room);
/* For all else than streams: PostgreSQL and Redis, whose connections come again, and the admin port. */
#define STREAM_DESCRIPTORS_KEPT 128
/* Stops accepting, frees; accepted streams live on. */
void stream_listener_free(struct stream_listener **l);

void stream_set_handler(struct stream *s, const struct stream_handler *handler, void *arg);
/* Copies `len` bytes to the output. Never fails at once: without memory the stream closes (on_close, ERR_NOMEM). */
void stream_write(struct stream *s, const void *data, size_t len);
/* The same with output that may leave only while the hub's guard says so, which is asked before each send of a stream
 * with such output. Refused, the stream sends nothing at all until stream_hub_release; it is read as ever. */
void stream_write_guarded(struct stream *s, const void *data, size_t len);
/* What it has been given leaves once the callback that is under way is over, most of a turn's at most; before what
 * others have to say or are given. */
void stream_hurry(struct stream *s);
/* Calls `look` between streams, for what comes otherwise and need not wait until all that have something to say or to
 * be given in this turn have had theirs: after each few of them. It may do what any callback may. */
void stream_hub_look(struct stream_hub *hub, void (*look)(void *arg), void *arg);
/* `may` must be cheap. Without a guard all may leave. */
void stream_hub_guard(struct stream_hub *hub, bool (*may)(void *arg), void *arg);
/* What was refused is asked for again. */
void stream_hub_release(struct stream_hub *hub);
/* Closes every stream with guarded output that has not left (on_close, ERR_FENCED), also those being shut down. */
void stream_hub_drop_guarded(struct stream_hub *hub);
/* Reads once, now, what has come, as the loop would in its turn. May close the stream. */
void stream_receive(struct stream *s);
/* False while pending output is over the high watermark. */
bool stream_writable(const struct stream *s);
size_t stream_pending(const struct stream *s);
/* True when everything has been read that the peer has sent: it is the peer's turn, or it says nothing. */
bool stream_silent(const struct stream *s);
/* Stops or goes on calling on_data (back-pressure to the peer by TCP). */
void stream_pause(struct stream *s, bool paused);
/* Sends what is pending, then closes (TLS close_notify first); on_close comes with ERR_CLOSED. Gives up after
 * 5 s. No on_data and no on_drain after this; the socket is closed once the peer has closed its side, or after 1 s
 * more. */
void stream_shutdown(struct stream *s);
/* Sends nothing more, and closes at the end of the turn: on_close comes with `why`, from the loop. */
void stream_fail_soon(struct stream *s, enum err why);
/* Closes at once; no on_close. */
void stream_close(struct stream *s);

/* "127.0.0.1:51234", in a static buffer per hub. */
const char *stream_peer(const struct stream *s);
/* ALPN protocol agreed, "" for none. */
const char *stream_alpn(const struct stream *s);

#endif
