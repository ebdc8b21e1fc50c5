/* Connections through the proxy: bytes from one socket to the other, late or not at all when the route says so.
 * Owns: struct proxy_link and its queues. May call: libev. Loop rule: non-blocking. */
#ifndef MUSTER_CLI_CHAOS_PROXY_LINK_H
#define MUSTER_CLI_CHAOS_PROXY_LINK_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/address.h"
#include "lib/base/list.h"

struct proxy_route {
    struct ev_loop *loop;
    char name[32];
    int listener;
    ev_io on_accept;
    struct address target;
    bool has_target;
    struct list links; /* struct proxy_link.in_route */
    bool stalled, broken;
    double delay_s;
    unsigned loss_percent;
    uint64_t *random; /* borrowed: the proxy's */
};

/* Takes over an accepted connection and makes the other one. */
void proxy_link_open(struct proxy_route *route, int fd);
/* Resets every connection of the route. */
void proxy_links_break(struct proxy_route *route);
/* The route is well again: everybody goes on. */
void proxy_links_resume(struct proxy_route *route);

#endif
