/* A throw-away certificate for the floor, so that it can be measured without any set-up.
 * Owns: nothing. May call: OpenSSL. Loop rule: start-up only. */
#ifndef MUSTER_FLOOR_CERTIFICATE_H
#define MUSTER_FLOOR_CERTIFICATE_H

#include <openssl/ssl.h>

#include "lib/base/err.h"

/* Puts a self-signed ECDSA P-256 certificate and its key, made in memory, into `ctx`. */
MUST_CHECK enum err certificate_make(SSL_CTX *ctx);

#endif
