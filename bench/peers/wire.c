#include "bench/peers/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/peers/run.h"

/* Of one read: enough that a system call costs little beside what it brings. */
#define READ_BYTES 65536

static int open_unix(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    return fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0 ? fd : -1;
}

static int open_tcp(const char *at)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    const char *colon = strrchr(at, ':');
    char host[INET_ADDRSTRLEN];
    const int yes = 1;

    if (!colon || (size_t)(colon - at) >= sizeof host)
        die("--at %s is neither unix:/path nor a.b.c.d:port", at);
    snprintf(host, sizeof host, "%.*s", (int)(colon - at), at);
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
        die("--at %s: %s is no IPv4 address", at, host);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof to) != 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

void wire_open(struct wire *w, const char *at)
{
    *w = (struct wire){.fd = strncmp(at, "unix:", 5) == 0 ? open_unix(at + 5) : open_tcp(at)};
    if (w->fd < 0)
        die("%s: %s", at, strerror(errno));
}

void wire_close(struct wire *w)
{
    close(w->fd);
    buf_free(&w->in);
    buf_free(&w->out);
}

static void send_some(struct wire *w)
{
    ssize_t n = send(w->fd, buf_head(&w->out), buf_len(&w->out), MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN && errno != EINTR)
        die("sending: %s", strerror(errno));
    if (n > 0)
        buf_consume(&w->out, (size_t)n);
}

static void receive_some(struct wire *w)
{
    uint8_t *to = buf_reserve(&w->in, READ_BYTES);

    if (!to)
        die("no memory");
    ssize_t n = recv(w->fd, to, READ_BYTES, MSG_DONTWAIT);
    if (n == 0)
        die("the server closed the connection");
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        die("receiving: %s", strerror(errno));
    if (n > 0)
        buf_commit(&w->in, (size_t)n);
}

void wire_turn(struct wire *w)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};

    if (w->out.failed)
        die("no memory");
    if (buf_len(&w->out) > 0)
        send_some(w);
    if (buf_len(&w->out) > 0)
        p.events |= POLLOUT;
    if (poll(&p, 1, -1) > 0 && (p.revents & ~POLLOUT))
        receive_some(w);
}

bool wire_line(struct wire *w, struct slice *line)
{
    size_t len = buf_len(&w->in);
    const uint8_t *head = buf_head(&w->in), *end = len > 0 ? memchr(head, '\n', len) : NULL;

    if (!end)
        return false;
    *line = (struct slice){head, (size_t)(end - head)};
    w->in.start += line->len + 1; /* not buf_consume: the line stays where it is */
    if (line->len > 0 && head[line->len - 1] == '\r')
        line->len--;
    return true;
}

struct slice wire_wait_line(struct wire *w)
{
    struct slice line;

    while (!wire_line(w, &line))
        wire_turn(w);
    return line;
}

bool slice_begins(struct slice s, const char *word)
{
    size_t n = strlen(word);

    return s.len >= n && memcmp(s.data, word, n) == 0;
}
