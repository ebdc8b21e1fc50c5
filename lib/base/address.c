#include "lib/base/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/log.h"

/* A whole fleet may knock at once; the kernel caps it at net.core.somaxconn. */
#define BACKLOG 4096

static bool unix_address(const char *path, struct address *a)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&a->storage;
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof un->sun_path)
        return false;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, n);
    a->len = sizeof *un;
    return true;
}

bool address_resolve(const char *host, uint16_t port, struct address *a)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&a->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a->storage;
    memset(a, 0, sizeof *a);
    if (strncmp(host, "unix:", 5) == 0)
        return unix_address(host + 5, a);
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

bool address_parse(const char *text, struct address *a)
{
    if (strncmp(text, "unix:", 5) == 0)
        return address_resolve(text, 0, a);
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
    return address_resolve(host, (uint16_t)port, a);
}

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

int address_listen(const char *text)
{
    struct address a;
    if (!address_parse(text, &a)) {
        log_error("listen_failed", "address=%s reason=\"not an address and port\"", log_quote(text));
        return -1;
    }
    int fd = open_listening(&a);
    if (fd < 0)
        log_error("listen_failed", "address=%s reason=%s", log_quote(text), log_quote(strerror(errno)));
    return fd;
}

int address_port_of(int fd)
{
    struct address a = {.len = sizeof a.storage};
    if (getsockname(fd, (struct sockaddr *)&a.storage, &a.len) < 0)
        return 0;
    if (a.storage.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&a.storage)->sin_port);
    return a.storage.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&a.storage)->sin6_port) : 0;
}
