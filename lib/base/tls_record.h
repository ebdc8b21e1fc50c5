/* Records of TLS 1.3 once the handshake is over: one direction's keys, and the sealing and opening of single records
 * (RFC 8446: 5.2 to 5.4, 7.2, 7.3).
 * Owns: struct tls_ciphers; struct tls_keys is the caller's memory. May call: OpenSSL's EVP, lib/base/buf.h.
 * Loop rule: none, pure; no I/O.
 *
 * A cipher context of OpenSSL takes hundreds of bytes and its keys few: so there is one context for each cipher and
 * direction in a whole process, which is given the connection's key for each record (measured: 0.2 µs of the 0.4 that
 * 100 bytes take), and a connection keeps its keys only. */
#ifndef MUSTER_BASE_TLS_RECORD_H
#define MUSTER_BASE_TLS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

#define TLS_HEADER_SIZE 5
#define TLS_TAG_SIZE    16
#define TLS_IV_SIZE     12
#define TLS_KEY_MAX     32
#define TLS_SECRET_MAX  48
#define TLS_PLAIN_MAX   16384 /* content of one record (RFC 8446, 5.1) */
/* Encrypted, with type, padding and tag (5.2). */
#define TLS_CIPHER_MAX (TLS_PLAIN_MAX + 256)
#define TLS_RECORD_MAX (TLS_HEADER_SIZE + TLS_CIPHER_MAX)
/* What sealing adds to a record's content: header, type and tag. */
#define TLS_SEALED_EXTRA (TLS_HEADER_SIZE + 1 + TLS_TAG_SIZE)

enum tls_suite { TLS_SUITE_AES_128_GCM, TLS_SUITE_CHACHA20, TLS_SUITE_AES_256_GCM, TLS_SUITE_COUNT };

enum tls_content {
    TLS_CONTENT_CCS = 20,
    TLS_CONTENT_ALERT = 21,
    TLS_CONTENT_HANDSHAKE = 22,
    TLS_CONTENT_DATA = 23,
};

/* Descriptions of alerts (RFC 8446, 6), those that are sent or told apart here. */
enum tls_alert {
    TLS_ALERT_CLOSE_NOTIFY = 0,
    TLS_ALERT_UNEXPECTED_MESSAGE = 10,
    TLS_ALERT_BAD_RECORD_MAC = 20,
    TLS_ALERT_RECORD_OVERFLOW = 22,
    TLS_ALERT_ILLEGAL_PARAMETER = 47,
    TLS_ALERT_DECODE_ERROR = 50,
    TLS_ALERT_INTERNAL_ERROR = 80,
    TLS_ALERT_USER_CANCELED = 90,
    TLS_ALERT_NONE = 255, /* ours: no alert */
};

enum tls_outcome { TLS_MORE, TLS_DONE, TLS_BAD };

/* The contexts of a process, with the keys they hold at the moment. */
struct tls_ciphers;
struct pool;
/* Returns owned, or NULL when OpenSSL lacks a cipher or the memory is out. Must outlive all connections. */
struct tls_ciphers *tls_ciphers_new(void);
void tls_ciphers_free(struct tls_ciphers **ciphers);
/* Room for what is being sealed, borrowed until the next seal of any connection; TLS_SEAL_ROOM bytes. */
#define TLS_SEAL_ROOM (2 * (TLS_PLAIN_MAX + TLS_SEALED_EXTRA) + 64)
uint8_t *tls_ciphers_room(struct tls_ciphers *ciphers);

/* Where connections with a suite take their memory from: of one size for each, as their keys are. */
struct pool *tls_ciphers_pool(struct tls_ciphers *ciphers, enum tls_suite suite);

/* One direction of a connection; tls_keys_size bytes, as the cipher's key and the hash differ. */
struct tls_keys {
    uint64_t seq; /* records since the keys are new; the next one's number */
    uint8_t suite;
    uint8_t iv[TLS_IV_SIZE];
    uint8_t material[]; /* key, traffic secret */
};
/* Bytes of a struct tls_keys, a multiple of its alignment. */
size_t tls_keys_size(enum tls_suite suite);
/* Bytes of a traffic secret. */
size_t tls_secret_size(enum tls_suite suite);
/* The suite of an IANA number such as 0x1301; false when it is none of ours. */
MUST_CHECK bool tls_suite_of(unsigned number, enum tls_suite *suite);
/* Makes key and IV from a traffic secret of tls_secret_size bytes. False when OpenSSL fails. */
MUST_CHECK bool tls_keys_init(struct tls_ciphers *ciphers, struct tls_keys *keys, enum tls_suite suite,
                              const uint8_t *secret);
/* The next generation (7.2), number 0 again; the old one is wiped. */
MUST_CHECK bool tls_keys_update(struct tls_ciphers *ciphers, struct tls_keys *keys);
/* Wipes the keys, in the contexts too. */
void tls_keys_wipe(struct tls_ciphers *ciphers, struct tls_keys *keys);

/* Whether data[0 .. len) begins with a whole record: DONE with its *size, MORE, or BAD with the *alert to send. */
enum tls_outcome tls_record_find(const uint8_t *data, size_t len, size_t *size, enum tls_alert *alert);

struct tls_plain {
    uint8_t *data;
    size_t len; /* at most TLS_PLAIN_MAX; may be 0 */
    uint8_t type;
};
/* Opens a whole record in place; padding is taken off. Returns TLS_ALERT_NONE, or the alert to send. */
MUST_CHECK enum tls_alert tls_record_open(struct tls_ciphers *ciphers, struct tls_keys *keys, uint8_t *record,
                                          size_t size, struct tls_plain *plain);
/* Seals `len` (at most TLS_PLAIN_MAX) bytes to `out`, which has room for TLS_SEALED_EXTRA more. Returns the record's
 * size, or 0 when OpenSSL fails. */
MUST_CHECK size_t tls_record_seal(struct tls_ciphers *ciphers, struct tls_keys *keys, enum tls_content type,
                                  const uint8_t *data, size_t len, uint8_t *out);

#endif
