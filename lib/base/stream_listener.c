/* Where streams come from: listening sockets, and connect(2). */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/stream_internal.h"

#define ACCEPTS_PER_TURN 64
#define BACKLOG          4096
/* Out of descriptors: how long to leave the socket alone, and how often to say so. */
#define ACCEPT_PAUSE_S      0.1
#define ACCEPT_COMPLAINT_MS 10000

struct stream_listener {
    ev_io io;
    ev_timer pause;
    struct stream_hub *hub;
    struct tls *tls;
    stream_accept_fn *on_accept;
    void *arg;
    int handshake_timeout_ms;
    int port;
    int64_t complained_ms;
    char *unix_path;
};

/* --- addresses
 * -------------------------------------------------------------------------------------------------------- */

struct address {
    struct sockaddr_storage storage;
    socklen_t len;
};

static bool unix_address(const char *path, struct address *a)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&a->storage;
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof un->sun_path)
        return false;
    memset(a, 0, sizeof *a);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, n);
    a->len = sizeof *un;
    return true;
}

/* Numeric addresses need no resolver; names ask getaddrinfo, which blocks: for start-up and tools only. */
static bool resolve(const char *host, uint16_t port, struct address *a)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&a->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a->storage;
    memset(a, 0, sizeof *a);
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        a->len = sizeof *in;
        return true;
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        a->len = sizeof *in6;
        return true;
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return false;
    memcpy(&a->storage, found->ai_addr, found->ai_addrlen);
    a->len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

/* Reads "127.0.0.1:80", "[::1]:80" or "unix:/path". */
static bool parse_address(const char *text, struct address *a)
{
    if (strncmp(text, "unix:", 5) == 0)
        return unix_address(text + 5, a);
    const char *colon = strrchr(text, ':');
    char host[256];
    size_t n = colon ? (size_t)(colon - text) : 0;
    if (n == 0 || n >= sizeof host)
        return false;
    if (text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    memcpy(host, text, n);
    host[n] = 0;
    char *end;
    long port = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || port < 0 || port > 65535)
        return false;
    return resolve(host, (uint16_t)port, a);
}

static void set_no_delay(int fd, const struct address *a)
{
    int on = 1;
    if (a->storage.ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* --- connecting
 * ------------------------------------------------------------------------------------------------------- */

static bool bind_source(int fd, const char *source)
{
    struct address a;
    int on = 1;
    /* The port is chosen at connect(2), so that one source address can serve more connections than it has ports. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return resolve(source, 0, &a) && bind(fd, (struct sockaddr *)&a.storage, a.len) == 0;
}

struct stream *stream_connect(struct stream_hub *hub, const char *host, uint16_t port, struct tls *tls,
                              const char *source, const struct stream_handler *handler, void *arg)
{
    struct address a;
    if (!(strncmp(host, "unix:", 5) == 0 ? unix_address(host + 5, &a) : resolve(host, port, &a)))
        return NULL;
    int fd = socket(a.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    set_no_delay(fd, &a);
    if (source && !bind_source(fd, source))
        goto fail;
    if (connect(fd, (struct sockaddr *)&a.storage, a.len) < 0 && errno != EINPROGRESS)
        goto fail;
    struct stream *s = stream_new(hub, fd, tls, STREAM_CONNECTING, EV_WRITE);
    if (!s)
        return NULL;
    s->client = true;
    stream_set_handler(s, handler, arg);
    stream_set_deadline(s, STREAM_CONNECT_TIMEOUT_MS);
    return s;
fail:
    close(fd);
    return NULL;
}

/* --- listening
 * --------------------------------------------------------------------------------------------------------- */

static void welcome(struct stream_listener *l, int fd)
{
    struct stream *s = stream_new(l->hub, fd, l->tls, l->tls ? STREAM_HANDSHAKE : STREAM_OPEN, EV_READ);
    if (!s)
        return;
    l->on_accept(s, l->arg);
    if (s->state == STREAM_CLOSED)
        return;
    if (!s->handler)
        stream_close(s);
    else if (!l->tls)
        stream_opened(s);
    else if (!s->closing)
        stream_set_deadline(s, l->handshake_timeout_ms);
}

static void on_acceptable(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)revents;
    struct stream_listener *l = container_of(w, struct stream_listener, io);
    int shortage = 0;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct address a = {.len = sizeof a.storage};
        int fd = accept4(l->io.fd, (struct sockaddr *)&a.storage, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            set_no_delay(fd, &a);
            welcome(l, fd);
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            shortage = errno;
            break;
        }
        /* Anything else is that one connection's misfortune (accept(2), "Error handling"). */
    }
    if (!shortage)
        return;
    int64_t now = clock_mono_us() / 1000;
    if (now - l->complained_ms >= ACCEPT_COMPLAINT_MS) {
        log_warn("accept_paused", "port=%d reason=%s", l->port, log_quote(strerror(shortage)));
        l->complained_ms = now;
    }
    ev_io_stop(loop, &l->io);
    ev_timer_set(&l->pause, ACCEPT_PAUSE_S, 0);
    ev_timer_start(loop, &l->pause);
}

static void on_pause_end(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)revents;
    ev_io_start(loop, &container_of(w, struct stream_listener, pause)->io);
}

/* Returns a listening socket, or -1 with errno. */
static int open_listening(const struct address *a)
{
    int on = 1, fd = socket(a->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (a->storage.ss_family == AF_UNIX)
        unlink(((const struct sockaddr_un *)&a->storage)->sun_path);
    else
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&a->storage, a->len) < 0 || listen(fd, BACKLOG) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int port_of(int fd)
{
    struct address a = {.len = sizeof a.storage};
    if (getsockname(fd, (struct sockaddr *)&a.storage, &a.len) < 0)
        return 0;
    if (a.storage.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&a.storage)->sin_port);
    return a.storage.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&a.storage)->sin6_port) : 0;
}

struct stream_listener *stream_listen(struct stream_hub *hub, const char *address, struct tls *tls,
                                      int handshake_timeout_ms, stream_accept_fn *on_accept, void *arg)
{
    struct address a;
    if (!parse_address(address, &a)) {
        log_error("listen_failed", "address=%s reason=\"not an address and port\"", log_quote(address));
        return NULL;
    }
    int fd = open_listening(&a);
    if (fd < 0) {
        log_error("listen_failed", "address=%s reason=%s", log_quote(address), log_quote(strerror(errno)));
        return NULL;
    }
    struct stream_listener *l = calloc(1, sizeof *l);
    if (!l || (a.storage.ss_family == AF_UNIX && !(l->unix_path = strdup(address + 5)))) {
        log_error("listen_failed", "address=%s reason=no_memory", log_quote(address));
        free(l);
        close(fd);
        return NULL;
    }
    l->hub = hub;
    l->tls = tls;
    l->on_accept = on_accept;
    l->arg = arg;
    l->handshake_timeout_ms = handshake_timeout_ms > 0 ? handshake_timeout_ms : STREAM_CONNECT_TIMEOUT_MS;
    l->port = port_of(fd);
    l->complained_ms = -ACCEPT_COMPLAINT_MS;
    ev_io_init(&l->io, on_acceptable, fd, EV_READ);
    ev_timer_init(&l->pause, on_pause_end, 0, 0);
    ev_io_start(hub->loop, &l->io);
    return l;
}

int stream_listener_port(const struct stream_listener *l)
{
    return l->port;
}

void stream_listener_free(struct stream_listener **listener)
{
    struct stream_listener *l = *listener;
    if (!l)
        return;
    ev_io_stop(l->hub->loop, &l->io);
    ev_timer_stop(l->hub->loop, &l->pause);
    close(l->io.fd);
    if (l->unix_path)
        unlink(l->unix_path);
    free(l->unix_path);
    free(l);
    *listener = NULL;
}
