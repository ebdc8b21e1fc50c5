/* One connection of a device, plain or TLS, without a buffer of its own while idle.
 * Owns: the socket, the SSL object, output the kernel did not take and input that is not a whole packet yet.
 * May call: OpenSSL, sockets, epoll. Loop rule: non-blocking; level-triggered epoll, the owner calls link_turn on
 * events.
 *
 * Frugal on purpose: one recv and one send a turn. TLS reads ahead, so that a record costs one system call, not two. */
#ifndef MUSTER_FLEET_LINK_H
#define MUSTER_FLEET_LINK_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/base/buf.h"

struct link {
    int fd; /* -1: closed */
    bool connecting, greeting, handshaking;
    bool wants_out; /* EPOLLOUT is asked for */
    SSL *ssl;       /* NULL for plain */
    /* What is left over, malloc'ed only while there is some. */
    uint8_t *out, *in;
    uint32_t out_len, in_len;
};

/* Returns the context all links of a process share, or NULL with one line on stderr. `ca` NULL: the system's
 * authorities; `resume` keeps tickets and calls `on_session` (which takes the session) with SSL_get_app_data's link. */
SSL_CTX *link_context(const char *ca, bool insecure, int (*on_session)(SSL *, SSL_SESSION *));

struct link_peer {
    int epoll;
    void *owner; /* epoll_data.ptr of the link's events */
    const struct sockaddr *address;
    socklen_t len;
    const struct sockaddr *source; /* NULL: any */
    socklen_t source_len;
    SSL_CTX *tls;  /* NULL: plain */
    bool greeting; /* the server says one line in the clear before TLS, as NATS does; it is dropped */
    const char *server_name;
    SSL_SESSION *session; /* to resume, or NULL */
};

/* Starts to connect. ERR_OK: under way or done; anything else: failed, the link is closed. */
MUST_CHECK enum err link_open(struct link *link, const struct link_peer *peer);
/* Goes on with connecting and handshaking. *open tells whether that is done. */
MUST_CHECK enum err link_progress(struct link *link, const struct link_peer *peer, bool *open);
/* Reads once what is there: what was kept, followed by new bytes, in `scratch` of `size` bytes. *got 0: nothing new.
 * *more: there may be more without an event; call again. ERR_CLOSED at the peer's end, ERR_IO on an error. */
MUST_CHECK enum err link_read(struct link *link, uint8_t *scratch, size_t size, size_t *got, bool *more);
/* Keeps `len` unread bytes for the next link_read. */
MUST_CHECK enum err link_keep(struct link *link, const uint8_t *data, size_t len);
/* Sends, in one record; copies what the kernel does not take now. */
MUST_CHECK enum err link_write(struct link *link, const struct link_peer *peer, const uint8_t *data, size_t len);
/* Sends what was copied. */
MUST_CHECK enum err link_flush(struct link *link, const struct link_peer *peer);
/* Asks for a turn even without input. */
void link_wake(struct link *link, const struct link_peer *peer);
/* Closes; `abort` with a reset, as a device that loses power. */
void link_close(struct link *link, bool abort);

#endif
