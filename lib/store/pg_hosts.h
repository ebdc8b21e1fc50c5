/* The hosts of a connection string that names several, in another order.
 * libpq goes on to the next host when a connection is refused, not when it is taken and then closed (a proxy whose
 * server is gone), and with an attempt's time over it begins with the first again (a host that has gone dark). So each
 * attempt that failed is followed by one that begins with the next host. Owns: struct pg_hosts. May call: libpq's
 * parser. Loop rule: none, pure but for PGHOST and the like. */
#ifndef MUSTER_STORE_PG_HOSTS_H
#define MUSTER_STORE_PG_HOSTS_H

#include <stdbool.h>

#include "lib/base/err.h"

/* Lists separated by commas, as keywords of libpq; NULL where the string has none. Owned. */
struct pg_hosts {
    char *host, *hostaddr, *port;
};

/* Fills *hosts with the lists of `conninfo` begun at host number `first` modulo how many there are. False, and *hosts
 * empty, when it names one host only, or cannot be read. */
MUST_CHECK bool pg_hosts_from(struct pg_hosts *hosts, const char *conninfo, unsigned first);
void pg_hosts_clear(struct pg_hosts *hosts);

#endif
