/* The floor of a push and its answer: an epoll server that does nothing but exchange the records of one command.
 * Owns: struct floor, its connections. May call: OpenSSL, sockets, lib/base clock. Loop rule: one epoll loop.
 *
 * A command is one 100-byte record out, one 60-byte record in, one 4-byte record out; the first byte tells which
 * ('P', 'A', 'D'). At most `window` pushes are unanswered at a time, as with a worker that takes from an inbox: without
 * that all connections' data would lie in the kernel at once. */
#ifndef MUSTER_FLOOR_FLOOR_H
#define MUSTER_FLOOR_FLOOR_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

#define FLOOR_PUSH_BYTES   100
#define FLOOR_ANSWER_BYTES 60
#define FLOOR_DONE_BYTES   4

struct floor;

struct floor_round {
    double seconds;
    double cpu_us; /* user and system time of this process, per command */
};

/* Listens on `port` of 127.0.0.1 (0: any free one) for `connections` peers. Borrows `tls` (NULL: plain), which for
 * `lean` records has had tls_takeover_prepare and must not read ahead. Returns owned, or NULL with a line on stderr. */
struct floor *floor_new(uint16_t port, uint32_t connections, uint32_t window, SSL_CTX *tls, bool lean);
void floor_free(struct floor **floor);
int floor_port(const struct floor *floor);
/* Waits until all peers are connected and their handshakes done. */
MUST_CHECK enum err floor_accept(struct floor *floor);
/* One command to every peer. ERR_CLOSED when one went away, ERR_PROTOCOL when one sent something else. */
MUST_CHECK enum err floor_exchange(struct floor *floor, struct floor_round *round);
/* Bytes of memory (VmRSS) this process has grown by since floor_new, per connection. */
double floor_rss(const struct floor *floor);

#endif
