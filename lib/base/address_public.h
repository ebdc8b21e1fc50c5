/* Which addresses are those of anybody on the Internet, and which lead to where only a host itself, or its own network,
 * gets. Owns: nothing. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_BASE_ADDRESS_PUBLIC_H
#define MUSTER_BASE_ADDRESS_PUBLIC_H

#include <stdbool.h>
#include <sys/socket.h>

/* False also for addresses in IPv6 that stand for one in IPv4 which is not public, and for other families. After the
 * registries of special-purpose addresses (RFC 6890 and its updates). */
bool address_is_public(const struct sockaddr *address);

#endif
