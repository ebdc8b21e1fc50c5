/* A connection with a buffer each way, so that requests are sent while answers come.
 * Owns: struct wire. May call: sockets, lib/base buf. Loop rule: wire_turn blocks in poll; one connection a client.
 *
 * Whatever goes wrong ends the client (die). */
#ifndef MUSTER_PEERS_WIRE_H
#define MUSTER_PEERS_WIRE_H

#include "lib/base/buf.h"

struct wire {
    int fd;
    struct buf in, out;
};

/* Connects to "unix:/path" or "a.b.c.d:port". */
void wire_open(struct wire *w, const char *at);
void wire_close(struct wire *w);
/* Sends what `out` has as far as it goes and receives what there is; waits for the first of the two. */
void wire_turn(struct wire *w);
/* The next line of `in` up to CRLF, borrowed until the next turn, and drops it with its CRLF; false: not there yet. */
MUST_CHECK bool wire_line(struct wire *w, struct slice *line);
/* The same, waiting for it. */
struct slice wire_wait_line(struct wire *w);
bool slice_begins(struct slice s, const char *word);

#endif
