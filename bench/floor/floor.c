#include "bench/floor/floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/tls_takeover.h"

#define EVENTS_A_TURN  128
#define ACCEPTS_A_TURN 64
#define SCRATCH_BYTES  (64 * 1024)

struct peer {
    int fd;
    SSL *ssl;
    struct tls_channel *lean; /* in place of `ssl` once the handshake is over */
    bool open;
    uint8_t have; /* bytes of an answer that came in pieces */
};

struct floor {
    int epoll, listener;
    SSL_CTX *tls;
    struct tls_ciphers *ciphers; /* lean records; NULL: OpenSSL's */
    struct peer *peers;
    uint32_t wanted, accepted, open;
    uint32_t window, pushed, answered; /* of this round */
    long rss_before;
    uint8_t scratch[SCRATCH_BYTES];
};

static long rss_bytes(void)
{
    FILE *in = fopen("/proc/self/statm", "re");
    long pages = 0;

    if (!in || fscanf(in, "%*d %ld", &pages) != 1)
        pages = 0;
    if (in)
        fclose(in);
    return pages * sysconf(_SC_PAGESIZE);
}

static double cpu_us(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 4096) == 0)
        return fd;
    fprintf(stderr, "muster-floor: cannot listen on 127.0.0.1:%u: %s\n", port, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

struct floor *floor_new(uint16_t port, uint32_t connections, uint32_t window, SSL_CTX *tls, bool lean)
{
    struct floor *f = calloc(1, sizeof *f);
    struct epoll_event ev = {.events = EPOLLIN};

    if (!f)
        return NULL;
    *f = (struct floor){.tls = tls, .wanted = connections, .window = window, .listener = -1, .epoll = -1};
    f->peers = calloc(connections, sizeof *f->peers);
    f->ciphers = lean ? tls_ciphers_new() : NULL;
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    f->listener = listen_on(port);
    if (!f->peers || (lean && !f->ciphers) || f->epoll < 0 || f->listener < 0 ||
        epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->listener, &ev) != 0)
        floor_free(&f);
    else
        f->rss_before = rss_bytes();
    return f;
}

void floor_free(struct floor **floor)
{
    struct floor *f = *floor;

    for (uint32_t i = 0; i < f->accepted; i++) {
        tls_takeover_end(f->peers[i].ssl);
        SSL_free(f->peers[i].ssl);
        tls_channel_free(&f->peers[i].lean);
        close(f->peers[i].fd);
    }
    tls_ciphers_free(&f->ciphers);
    if (f->listener >= 0)
        close(f->listener);
    if (f->epoll >= 0)
        close(f->epoll);
    free(f->peers);
    free(f);
    *floor = NULL;
}

int floor_port(const struct floor *floor)
{
    struct sockaddr_in at = {0};
    socklen_t len = sizeof at;

    getsockname(floor->listener, (struct sockaddr *)&at, &len);
    return ntohs(at.sin_port);
}

double floor_rss(const struct floor *floor)
{
    return (double)(rss_bytes() - floor->rss_before) / floor->wanted;
}

static enum err accept_some(struct floor *f)
{
    const int yes = 1;

    for (int i = 0; i < ACCEPTS_A_TURN && f->accepted < f->wanted; i++) {
        int fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return errno == EAGAIN || errno == ECONNABORTED ? ERR_OK : ERR_IO;
        struct peer *p = &f->peers[f->accepted++];
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};
        *p = (struct peer){.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (epoll_ctl(f->epoll, EPOLL_CTL_ADD, fd, &ev) != 0)
            return ERR_IO;
        p->open = !f->tls;
        f->open += p->open;
        if (!f->tls)
            continue;
        p->ssl = SSL_new(f->tls);
        if (!p->ssl || SSL_set_fd(p->ssl, fd) != 1 || (f->ciphers && !tls_takeover_listen(p->ssl)))
            return ERR_NOMEM;
        SSL_set_accept_state(p->ssl);
    }
    return ERR_OK;
}

/* ERR_OK when an SSL call only has to wait for input. Output always fits: a peer has at most two small records unread.
 */
static enum err judge(struct peer *p, int result)
{
    switch (SSL_get_error(p->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return ERR_OK;
    case SSL_ERROR_ZERO_RETURN:
    case SSL_ERROR_SYSCALL:
        return ERR_CLOSED;
    default:
        fprintf(stderr, "muster-floor: TLS: %s\n", ERR_reason_error_string(ERR_peek_last_error()));
        return ERR_PROTOCOL;
    }
}

static enum err take_over(struct floor *f, struct peer *p)
{
    bool later;

    p->lean = tls_takeover_make(p->ssl, f->ciphers, &later);
    tls_takeover_end(p->ssl);
    if (!p->lean)
        return ERR_PROTOCOL;
    SSL_free(p->ssl);
    p->ssl = NULL;
    return ERR_OK;
}

static enum err shake(struct floor *f, struct peer *p)
{
    ERR_clear_error();
    int r = SSL_do_handshake(p->ssl);

    if (r != 1)
        return judge(p, r);
    p->open = true;
    f->open++;
    return f->ciphers ? take_over(f, p) : ERR_OK;
}

static enum err send_lean(struct peer *p, const uint8_t *data, int len)
{
    size_t taken;
    struct slice sealed = tls_channel_seal(p->lean, data, (size_t)len, &taken);

    return send(p->fd, sealed.data, sealed.len, MSG_NOSIGNAL) == (ssize_t)sealed.len ? ERR_OK : ERR_CLOSED;
}

static enum err send_record(struct peer *p, const uint8_t *data, int len)
{
    if (p->lean)
        return send_lean(p, data, len);
    if (!p->ssl)
        return send(p->fd, data, (size_t)len, MSG_NOSIGNAL) == len ? ERR_OK : ERR_CLOSED;
    ERR_clear_error();
    return SSL_write(p->ssl, data, len) == len ? ERR_OK : ERR_CLOSED;
}

/* Records of a peer that has one small one unread at most come whole. The answer is moved to the front. */
static enum err open_lean(struct floor *f, struct peer *p, int *got)
{
    struct tls_received r;
    size_t len = (size_t)*got;

    if (tls_channel_open(p->lean, f->scratch, len, &r) != TLS_MORE || r.used < len)
        return ERR_PROTOCOL;
    memmove(f->scratch, r.data, r.len);
    *got = (int)r.len;
    return ERR_OK;
}

static enum err receive(struct floor *f, struct peer *p, int *got)
{
    *got = 0;
    if (p->ssl) {
        ERR_clear_error();
        int n = SSL_read(p->ssl, f->scratch, SCRATCH_BYTES);
        if (n <= 0)
            return judge(p, n);
        *got = n;
        return ERR_OK;
    }
    ssize_t n = recv(p->fd, f->scratch, SCRATCH_BYTES, 0);
    if (n < 0)
        return errno == EAGAIN ? ERR_OK : ERR_CLOSED;
    *got = (int)n;
    if (n > 0 && p->lean)
        return open_lean(f, p, got);
    return n == 0 ? ERR_CLOSED : ERR_OK;
}

/* The answer came: done, and the next push goes out. */
static enum err on_answer(struct floor *f, struct peer *p)
{
    static const uint8_t done[FLOOR_DONE_BYTES] = {'D'};
    int got;
    enum err e = receive(f, p, &got);

    if (e != ERR_OK || got == 0)
        return e;
    if ((p->have == 0 && f->scratch[0] != 'A') || p->have + got > FLOOR_ANSWER_BYTES)
        return ERR_PROTOCOL;
    p->have = (uint8_t)(p->have + got);
    if (p->have < FLOOR_ANSWER_BYTES)
        return ERR_OK;
    p->have = 0;
    f->answered++;
    return send_record(p, done, FLOOR_DONE_BYTES);
}

static enum err push_some(struct floor *f)
{
    static const uint8_t push[FLOOR_PUSH_BYTES] = {'P'};

    while (f->pushed < f->wanted && f->pushed - f->answered < f->window) {
        enum err e = send_record(&f->peers[f->pushed++], push, FLOOR_PUSH_BYTES);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

static enum err turn(struct floor *f)
{
    struct epoll_event events[EVENTS_A_TURN];
    int n = epoll_wait(f->epoll, events, EVENTS_A_TURN, -1);
    enum err e = n < 0 && errno != EINTR ? ERR_IO : ERR_OK;

    for (int i = 0; i < n && e == ERR_OK; i++) {
        struct peer *p = events[i].data.ptr;
        e = !p ? accept_some(f) : !p->open ? shake(f, p) : on_answer(f, p);
    }
    return e;
}

enum err floor_accept(struct floor *floor)
{
    enum err e = ERR_OK;

    while (e == ERR_OK && floor->open < floor->wanted)
        e = turn(floor);
    return e;
}

enum err floor_exchange(struct floor *floor, struct floor_round *round)
{
    int64_t began = clock_mono_us();
    double used = cpu_us();
    enum err e = ERR_OK;

    floor->pushed = floor->answered = 0;
    while (e == ERR_OK && floor->answered < floor->wanted) {
        e = push_some(floor);
        if (e == ERR_OK)
            e = turn(floor);
    }
    round->seconds = (double)(clock_mono_us() - began) / 1e6;
    round->cpu_us = (cpu_us() - used) / floor->wanted;
    return e;
}
