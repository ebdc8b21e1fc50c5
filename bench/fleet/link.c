#include "bench/fleet/link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lib/base/tls_takeover.h"

/* Output a server leaves untaken before the device gives up on it. */
#define OUT_MAX (1u << 20)

/* Longest line before TLS, in bytes: NATS's INFO has a few hundred. */
#define GREETING_MAX 4096

SSL_CTX *link_context(const char *ca, bool insecure, int (*on_session)(SSL *, SSL_SESSION *))
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx)
        return NULL;
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(ctx, on_session ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
                                                   : SSL_SESS_CACHE_OFF);
    if (on_session)
        SSL_CTX_sess_set_new_cb(ctx, on_session);
    if (insecure)
        return ctx;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (ca ? SSL_CTX_load_verify_locations(ctx, ca, NULL) == 1 : SSL_CTX_set_default_verify_paths(ctx) == 1)
        return ctx;
    fprintf(stderr, "%s: --ca %s: %s\n", program_invocation_short_name, ca ? ca : "(system)",
            ERR_reason_error_string(ERR_peek_last_error()));
    SSL_CTX_free(ctx);
    return NULL;
}

struct tls_ciphers *link_lean_records(SSL_CTX *ctx)
{
    /* What is read ahead would be lost with the SSL object. */
    SSL_CTX_set_read_ahead(ctx, 0);
    tls_takeover_prepare(ctx);
    return tls_ciphers_new();
}

static void want(struct link *link, const struct link_peer *peer, bool out)
{
    if (link->wants_out == out)
        return;
    struct epoll_event ev = {.events = EPOLLIN | (out ? (uint32_t)EPOLLOUT : 0), .data.ptr = peer->owner};
    link->wants_out = out;
    epoll_ctl(peer->epoll, EPOLL_CTL_MOD, link->fd, &ev);
}

void link_wake(struct link *link, const struct link_peer *peer)
{
    want(link, peer, true);
}

static enum err bind_source(int fd, const struct link_peer *peer)
{
    const int yes = 1;

    /* The port is chosen at connect(), for the whole 4-tuple: otherwise one address would be used up at 28,000 ports.
     */
    setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    return bind(fd, peer->source, peer->source_len) == 0 ? ERR_OK : ERR_IO;
}

static enum err make_ssl(struct link *link, const struct link_peer *peer)
{
    link->ssl = SSL_new(peer->tls);
    if (!link->ssl || SSL_set_fd(link->ssl, link->fd) != 1 || (peer->ciphers && !tls_takeover_listen(link->ssl)))
        return ERR_NOMEM;
    SSL_set_app_data(link->ssl, peer->owner);
    SSL_set_connect_state(link->ssl);
    if (peer->server_name && (SSL_set_tlsext_host_name(link->ssl, peer->server_name) != 1 ||
                              SSL_set1_host(link->ssl, peer->server_name) != 1))
        return ERR_NOMEM;
    if (peer->session)
        SSL_set_session(link->ssl, peer->session);
    link->handshaking = true;
    return ERR_OK;
}

enum err link_open(struct link *link, const struct link_peer *peer)
{
    const int yes = 1;
    enum err e = ERR_IO;

    *link = (struct link){.fd = socket(peer->address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (link->fd < 0)
        return ERR_IO;
    if (peer->address->sa_family != AF_UNIX)
        setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (peer->source && (e = bind_source(link->fd, peer)) != ERR_OK)
        goto fail;
    link->connecting = connect(link->fd, peer->address, peer->len) != 0;
    if (link->connecting && errno != EINPROGRESS)
        goto fail;
    link->wants_out = link->connecting || peer->tls;
    struct epoll_event ev = {.events = EPOLLIN | (link->wants_out ? (uint32_t)EPOLLOUT : 0), .data.ptr = peer->owner};
    if (epoll_ctl(peer->epoll, EPOLL_CTL_ADD, link->fd, &ev) != 0)
        goto fail;
    link->greeting = peer->tls && peer->greeting;
    if (peer->tls && !link->greeting && (e = make_ssl(link, peer)) != ERR_OK)
        goto fail;
    return ERR_OK;
fail:
    link_close(link, false);
    return e;
}

static enum err finish_connect(struct link *link)
{
    int why = 0;
    socklen_t len = sizeof why;

    link->connecting = false;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &why, &len) == 0 && why == 0)
        return ERR_OK;
    errno = why;
    return ERR_IO;
}

/* Drops the server's line before TLS, and nothing behind it. ERR_OK with link->greeting still set: not whole yet. */
static enum err drop_greeting(struct link *link)
{
    char text[GREETING_MAX];
    ssize_t n = recv(link->fd, text, sizeof text, MSG_PEEK);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_OK : ERR_IO;
    const char *end = memchr(text, '\n', (size_t)n);
    if (!end)
        return n == 0 ? ERR_CLOSED : n == GREETING_MAX ? ERR_PROTOCOL : ERR_OK;
    link->greeting = false;
    return recv(link->fd, text, (size_t)(end - text) + 1, 0) == end - text + 1 ? ERR_OK : ERR_IO;
}

/* What an SSL call's failure means; sets *wait when it only has to wait. */
static enum err judge(struct link *link, int result, bool *wants_out)
{
    switch (SSL_get_error(link->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return ERR_OK;
    case SSL_ERROR_WANT_WRITE:
        *wants_out = true;
        return ERR_OK;
    case SSL_ERROR_ZERO_RETURN:
        return ERR_CLOSED;
    case SSL_ERROR_SYSCALL:
        return errno == 0 ? ERR_CLOSED : ERR_IO;
    default:
        return ERR_PROTOCOL;
    }
}

static void free_ssl(struct link *link)
{
    tls_takeover_end(link->ssl);
    SSL_free(link->ssl);
    link->ssl = NULL;
}

/* Goes on without the SSL object if it may: one that is to bring a ticket is needed until it has. */
static void take_over(struct link *link, struct tls_ciphers *ciphers)
{
    bool later, wants_ticket = SSL_CTX_get_session_cache_mode(SSL_get_SSL_CTX(link->ssl)) & SSL_SESS_CACHE_CLIENT;

    if (link->out_len > 0 || (wants_ticket && !tls_takeover_ticket_came(link->ssl)))
        return;
    link->lean = tls_takeover_make(link->ssl, ciphers, &later);
    if (link->lean)
        free_ssl(link);
}

bool link_has_pending(const struct link *link)
{
    return link->ssl && SSL_has_pending(link->ssl);
}

enum err link_progress(struct link *link, const struct link_peer *peer, bool *open)
{
    bool wants_out = false;

    *open = false;
    if (link->connecting) {
        enum err e = finish_connect(link);
        if (e != ERR_OK)
            return e;
    }
    if (link->greeting) {
        enum err e = drop_greeting(link);
        if (e == ERR_OK && !link->greeting)
            e = make_ssl(link, peer);
        if (e != ERR_OK)
            return e;
    }
    if (link->handshaking) {
        ERR_clear_error();
        int r = SSL_do_handshake(link->ssl);
        link->handshaking = r != 1;
        enum err e = r == 1 ? ERR_OK : judge(link, r, &wants_out);
        if (e != ERR_OK)
            return e;
        if (r == 1 && peer->ciphers)
            take_over(link, peer->ciphers);
    }
    want(link, peer, wants_out);
    *open = !link->handshaking && !link->greeting;
    return ERR_OK;
}

static enum err read_plain(struct link *link, uint8_t *to, size_t size, size_t *got)
{
    ssize_t n = recv(link->fd, to, size, 0);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_OK : ERR_IO;
    *got = (size_t)n;
    return n == 0 ? ERR_CLOSED : ERR_OK;
}

static enum err read_tls(struct link *link, const struct link_peer *peer, uint8_t *to, size_t size, size_t *got,
                         bool *more)
{
    bool wants_out = false;

    ERR_clear_error();
    errno = 0;
    int n = SSL_read(link->ssl, to, (int)size);
    if (n <= 0)
        return judge(link, n, &wants_out);
    *got = (size_t)n;
    *more = SSL_has_pending(link->ssl);
    /* A record has just ended, so none has been begun. */
    if (peer->ciphers && !*more)
        take_over(link, peer->ciphers);
    return ERR_OK;
}

/* Keeps `len` bytes for later in place of what was there. */
static enum err keep(uint8_t **at, uint32_t *at_len, const uint8_t *data, size_t len)
{
    uint8_t *copy = len > 0 ? malloc(len) : NULL;

    if (len > 0 && !copy)
        return ERR_NOMEM;
    if (copy)
        memcpy(copy, data, len);
    free(*at);
    *at = copy;
    *at_len = (uint32_t)len;
    return ERR_OK;
}

/* Reads behind the beginning of a record that was kept, and opens what is whole. */
static enum err read_lean(struct link *link, uint8_t *to, size_t size, struct slice *plain)
{
    struct tls_received r;
    size_t raw = link->raw_len, got = 0;

    if (raw > 0)
        memcpy(to, link->raw, raw);
    enum err e = read_plain(link, to + raw, size - raw, &got);
    if (e != ERR_OK || got == 0)
        return e;
    enum tls_outcome outcome = tls_channel_open(link->lean, to, raw + got, &r);
    *plain = (struct slice){r.data, r.len};
    if (outcome == TLS_BAD && !r.alert_came) {
        struct slice alert = tls_channel_alert(link->lean, r.alert);
        send(link->fd, alert.data, alert.len, MSG_NOSIGNAL);
    }
    if (outcome == TLS_BAD)
        return ERR_PROTOCOL;
    if (outcome == TLS_DONE && r.len == 0)
        return ERR_CLOSED;
    /* Data came before the close_notify: the next read will find the end. */
    if (outcome == TLS_DONE)
        shutdown(link->fd, SHUT_RD);
    return keep(&link->raw, &link->raw_len, to + r.used, raw + got - r.used);
}

enum err link_read(struct link *link, const struct link_peer *peer, uint8_t *scratch, size_t size, struct slice *got,
                   bool *more)
{
    size_t kept = link->in_len, room = size - kept;
    uint8_t *to = scratch + kept;
    struct slice new = {to, 0};

    *got = (struct slice){scratch, 0};
    *more = false;
    if (size < kept + LINK_READ_MIN)
        return ERR_LIMIT;
    enum err e = link->lean  ? read_lean(link, to, room, &new)
                 : link->ssl ? read_tls(link, peer, to, room, &new.len, more)
                             : read_plain(link, to, room, &new.len);
    if (e != ERR_OK || new.len == 0)
        return e;
    *got = new;
    if (kept > 0) {
        memcpy(scratch, link->in, kept);
        memmove(to, new.data, new.len);
        *got = (struct slice){scratch, kept + new.len};
    }
    return keep(&link->in, &link->in_len, NULL, 0);
}

enum err link_keep(struct link *link, const uint8_t *data, size_t len)
{
    return keep(&link->in, &link->in_len, data, len);
}

/* Sends as much as goes; *sent is set also on an error. */
static enum err send_some(struct link *link, const uint8_t *data, size_t len, size_t *sent)
{
    bool wants_out;

    *sent = 0;
    if (!link->ssl) {
        ssize_t n = send(link->fd, data, len, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? ERR_OK : ERR_IO;
        *sent = (size_t)n;
        return ERR_OK;
    }
    ERR_clear_error();
    errno = 0;
    int n = SSL_write(link->ssl, data, (int)len);
    if (n <= 0)
        return judge(link, n, &wants_out);
    *sent = (size_t)n;
    return ERR_OK;
}

static enum err store(struct link *link, const uint8_t *data, size_t len)
{
    if (link->out_len + len > OUT_MAX)
        return ERR_LIMIT;
    uint8_t *grown = realloc(link->out, link->out_len + len);
    if (!grown)
        return ERR_NOMEM;
    memcpy(grown + link->out_len, data, len);
    link->out = grown;
    link->out_len += (uint32_t)len;
    return ERR_OK;
}

/* What is sealed must leave in this order: it is stored sealed. */
static enum err write_lean(struct link *link, const struct link_peer *peer, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t taken, sent = 0;
        struct slice sealed = tls_channel_seal(link->lean, data, len, &taken);
        if (sealed.len == 0)
            return ERR_IO;
        enum err e = link->out_len > 0 ? ERR_OK : send_some(link, sealed.data, sealed.len, &sent);
        if (e == ERR_OK && sent < sealed.len) {
            want(link, peer, true);
            e = store(link, sealed.data + sent, sealed.len - sent);
        }
        if (e != ERR_OK)
            return e;
        data += taken;
        len -= taken;
    }
    return ERR_OK;
}

enum err link_write(struct link *link, const struct link_peer *peer, const uint8_t *data, size_t len)
{
    size_t sent = 0;

    if (link->lean)
        return write_lean(link, peer, data, len);
    if (link->out_len > 0)
        return store(link, data, len);
    enum err e = send_some(link, data, len, &sent);
    if (e != ERR_OK || sent == len)
        return e;
    want(link, peer, true);
    return store(link, data + sent, len - sent);
}

enum err link_flush(struct link *link, const struct link_peer *peer)
{
    size_t sent;

    if (link->out_len > 0) {
        enum err e = send_some(link, link->out, link->out_len, &sent);
        if (e != ERR_OK)
            return e;
        link->out_len -= (uint32_t)sent;
        memmove(link->out, link->out + sent, link->out_len);
    }
    if (link->out_len > 0)
        return ERR_OK;
    free(link->out);
    link->out = NULL;
    want(link, peer, false);
    return ERR_OK;
}

void link_close(struct link *link, bool abort)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    if (link->fd < 0)
        return;
    if (abort)
        setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (link->ssl) {
        if (!abort && !link->handshaking && !link->connecting) {
            ERR_clear_error();
            SSL_shutdown(link->ssl); /* one close_notify, best effort */
        }
        free_ssl(link);
    }
    if (link->lean) {
        struct slice bye = tls_channel_alert(link->lean, TLS_ALERT_CLOSE_NOTIFY);
        if (!abort && link->out_len == 0)
            send(link->fd, bye.data, bye.len, MSG_NOSIGNAL);
        tls_channel_free(&link->lean);
    }
    close(link->fd);
    free(link->out);
    free(link->in);
    free(link->raw);
    *link = (struct link){.fd = -1};
}
