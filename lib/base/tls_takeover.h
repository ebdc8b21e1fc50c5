/* From OpenSSL to a tls_channel: listens to a handshake for its traffic secrets, and for the records that follow it
 * before the takeover, such as a server's tickets; then makes the channel that goes on.
 * Owns: what it has heard, hung to the connection's read BIO and wiped when that ends. May call: OpenSSL, tls_channel.
 * Loop rule: none, no I/O.
 *
 * Bytes inside the SSL object would be lost, so it must not read ahead; a takeover that would lose some is refused. */
#ifndef MUSTER_BASE_TLS_TAKEOVER_H
#define MUSTER_BASE_TLS_TAKEOVER_H

#include <openssl/ssl.h>

#include "lib/base/tls_channel.h"

/* Sets the context's callbacks for secrets and messages. */
void tls_takeover_prepare(SSL_CTX *ctx);
/* Before the handshake, when the SSL object has its BIO. False without memory. */
MUST_CHECK bool tls_takeover_listen(SSL *ssl);
/* Whether a session ticket has been received. */
bool tls_takeover_ticket_came(const SSL *ssl);
/* After the handshake: returns owned the channel that goes on, and the SSL object is to be freed; or NULL when OpenSSL
 * has to go on: TLS 1.2, a cipher that is not ours, bytes inside the object, no memory. To be tried again only after
 * bytes inside were the reason, which *later tells. */
struct tls_channel *tls_takeover_make(SSL *ssl, struct tls_ciphers *ciphers, bool *later);
/* Wipes what was heard. To be called before SSL_free; harmless when nothing listens. */
void tls_takeover_end(SSL *ssl);

#endif
