/* One connection of a device, plain or TLS, without a buffer of its own while idle.
 * Owns: the socket, the SSL object or lean channel, output the kernel did not take and input that is not whole yet.
 * May call: OpenSSL, lib/base/tls_channel, sockets, epoll. Loop rule: non-blocking; level-triggered epoll, the owner
 * calls link_turn on events.
 *
 * Frugal on purpose: one recv and one send a turn. With OpenSSL's records TLS reads ahead, so that a record costs one
 * system call, not two; with lean ones the SSL object is gone once the handshake is over (and, to resume later, a
 * ticket has come): see lib/base/tls_channel.h. */
#ifndef MUSTER_FLEET_LINK_H
#define MUSTER_FLEET_LINK_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/base/buf.h"
#include "lib/base/tls_channel.h"

struct link {
    int fd; /* -1: closed */
    bool connecting, greeting, handshaking;
    bool wants_out;           /* EPOLLOUT is asked for */
    SSL *ssl;                 /* TLS until the takeover; NULL for plain */
    struct tls_channel *lean; /* after it */
    /* What is left over, malloc'ed only while there is some; `raw` is the beginning of a record. */
    uint8_t *out, *in, *raw;
    uint32_t out_len, in_len, raw_len;
};

/* Returns the context all links of a process share, or NULL with one line on stderr. `ca` NULL: the system's
 * authorities; `on_session`, unless NULL, is given each session that a ticket makes (and takes it), with the owner as
 * SSL_get_app_data. */
SSL_CTX *link_context(const char *ca, bool insecure, int (*on_session)(SSL *, SSL_SESSION *));
/* For lean records of the context's links: returns owned what their peers' `ciphers` must be, or NULL without memory.
 */
struct tls_ciphers *link_lean_records(SSL_CTX *ctx);

struct link_peer {
    int epoll;
    void *owner; /* epoll_data.ptr of the link's events */
    const struct sockaddr *address;
    socklen_t len;
    const struct sockaddr *source; /* NULL: any */
    socklen_t source_len;
    SSL_CTX *tls;                /* NULL: plain */
    struct tls_ciphers *ciphers; /* for lean records; NULL: OpenSSL's */
    bool greeting;               /* the server says one line in the clear before TLS, as NATS does; it is dropped */
    const char *server_name;
    SSL_SESSION *session; /* to resume, or NULL */
};

/* Starts to connect. ERR_OK: under way or done; anything else: failed, the link is closed. */
MUST_CHECK enum err link_open(struct link *link, const struct link_peer *peer);
/* Goes on with connecting and handshaking. *open tells whether that is done. */
MUST_CHECK enum err link_progress(struct link *link, const struct link_peer *peer, bool *open);
/* Reads once what is there: what was kept, followed by new bytes, somewhere in `scratch` of `size` bytes (at least
 * LINK_READ_MIN more than what was kept). Empty *got: nothing new. *more: there may be more without an event; call
 * again. ERR_CLOSED at the peer's end, ERR_IO on an error, ERR_PROTOCOL when its records are broken. */
#define LINK_READ_MIN (2 * TLS_RECORD_MAX)
MUST_CHECK enum err link_read(struct link *link, const struct link_peer *peer, uint8_t *scratch, size_t size,
                              struct slice *got, bool *more);
/* Keeps `len` unread bytes for the next link_read. */
MUST_CHECK enum err link_keep(struct link *link, const uint8_t *data, size_t len);
/* Sends, in one record; copies what the kernel does not take now. */
MUST_CHECK enum err link_write(struct link *link, const struct link_peer *peer, const uint8_t *data, size_t len);
/* Sends what was copied. */
MUST_CHECK enum err link_flush(struct link *link, const struct link_peer *peer);
/* Asks for a turn even without input. */
void link_wake(struct link *link, const struct link_peer *peer);
/* Whether bytes wait inside OpenSSL, for which there will be no event. */
bool link_has_pending(const struct link *link);
/* Closes; `abort` with a reset, as a device that loses power. */
void link_close(struct link *link, bool abort);

#endif
