/* Socket addresses as settings write them, and sockets that listen on them.
 * Owns: struct address. May call: the C library. Loop rule: numeric addresses never block; a name is looked up with
 * getaddrinfo, which does: for start-up and tools only. */
#ifndef MUSTER_BASE_ADDRESS_H
#define MUSTER_BASE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/base/err.h"

struct address {
    struct sockaddr_storage storage;
    socklen_t len;
};

/* Fills *a for a numeric address, a name, or "unix:/path" (`port` then does not matter); false when it is none. */
MUST_CHECK bool address_resolve(const char *host, uint16_t port, struct address *a);
/* Reads "127.0.0.1:80", "[::1]:80", "name:80" or "unix:/path". */
MUST_CHECK bool address_parse(const char *text, struct address *a);
/* Returns a non-blocking listening socket, owned by the caller, or -1 with a line in the log. A unix path is replaced.
 */
MUST_CHECK int address_listen(const char *text);
/* Port a socket is bound to; 0 for unix sockets. */
int address_port_of(int fd);

#endif
