/* muster chaos proxy: the network between components, as a process that can be told to cut, delay and lose. Needs no
 * rights, where network namespaces would.
 * Owns: struct proxy, its routes. May call: libev, lib/base/address. Loop rule: non-blocking.
 *
 * A route is a listening socket on loopback and where its connections lead to. It is told what to do by packets on a
 * unix socket (SOCK_SEQPACKET), each answered with "ok" or "no":
 *   add <route> <target>       answered with "ok 127.0.0.1:<port>"; a target is host:port or unix:/path, or - for none
 * yet target <route> <target> stall <route>              no byte gets through, connections stay; as a cable that is
 * pulled break <route>              connections are reset and new ones too delay <route> <ms>         every byte takes
 * so much longer lose <route> <percent>     so many reads of a connection wait for a retransmission, and what follows
 * waits behind them heal <route>               all of it is over; what waits goes on */
#ifndef MUSTER_CLI_CHAOS_PROXY_H
#define MUSTER_CLI_CHAOS_PROXY_H

#include "cli/args.h"

#define PROXY_ROUTES_MAX 64
#define PROXY_PACKET_MAX 512
/* A connection has two descriptors in the proxy. */
#define PROXY_DEVICES_MAX 9000

int chaos_proxy_run(struct invocation *inv);

#endif
