/* Session tickets whose keys several processes share, so that a device resumes at whichever worker it comes back to:
 * its TLS session travels with it, encrypted under one of these keys (RFC 8446, 4.6.1 and RFC 5077, 4). Owns: struct
 * tls_tickets. May call: OpenSSL. Loop rule: non-blocking. */
#ifndef MUSTER_BASE_TLS_TICKET_H
#define MUSTER_BASE_TLS_TICKET_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* How long a ticket may be used: a key must be kept for so long after it has encrypted the last one (RFC 8446, 4.6.1
 * allows seven days; a shorter life loses less with a key). */
#define TLS_TICKET_LIFE_S    7200
#define TLS_TICKET_KEYS_MAX  8
#define TLS_TICKET_KEY_BYTES 80

/* Random bytes; a ticket begins with the name of its key. */
struct tls_ticket_key {
    uint8_t name[16];
    uint8_t cipher[32]; /* AES-256-CBC */
    uint8_t mac[32];    /* HMAC-SHA-256 over what is encrypted */
};

struct tls_tickets;

/* Tickets of `ctx` use keys that tls_tickets_set gives from now on; until then OpenSSL's own, which no other process
 * has. Returns owned, NULL without memory; must outlive the context's last connection. */
struct tls_tickets *tls_tickets_new(SSL_CTX *ctx);
void tls_tickets_free(struct tls_tickets **tickets);
/* Copies `count` keys (at most TLS_TICKET_KEYS_MAX are kept) and wipes the former ones: all of them decrypt,
 * keys[encrypting] encrypts. */
void tls_tickets_set(struct tls_tickets *tickets, const struct tls_ticket_key *keys, size_t count, size_t encrypting);

#endif
