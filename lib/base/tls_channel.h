/* Lean TLS: what goes on over a TLS 1.3 connection after its handshake, without OpenSSL's SSL object: application data,
 * key updates, alerts, new session tickets (RFC 8446: 4.6, 5, 6).
 * Owns: struct tls_channel (170 to 250 bytes, its keys included). May call: tls_record. Loop rule: none, pure; no I/O.
 *
 * When to use it: where connections are many and mostly idle. An SSL object costs 13.9 KB, and a record through it a
 * third more time. What it does not do: handshakes (OpenSSL makes them, tls_takeover hands over), TLS 1.2, early data,
 * certificates asked for after the handshake, resumption by tickets that come after the takeover. */
#ifndef MUSTER_BASE_TLS_CHANNEL_H
#define MUSTER_BASE_TLS_CHANNEL_H

#include "lib/base/tls_record.h"

/* Records sent with one key before it is changed: under the 2^24.5 of RFC 8446, 5.5, for AES-GCM; others can take it
 * too. As many received make the peer be asked to change its key. */
#define TLS_KEY_RECORDS_MAX 23000000
/* Records in a row that bring no data: key updates cost 2 µs and more, so a peer must not send them for nothing. */
#define TLS_BARREN_MAX 64

struct tls_channel;

struct tls_channel_start {
    enum tls_suite suite;
    bool server;
    const uint8_t *read_secret, *write_secret; /* application traffic secrets of generation 0; tls_secret_size bytes */
    uint64_t read_seq, write_seq;              /* records already received and sent with them */
};
/* Returns owned; NULL without memory or when OpenSSL fails. Borrows `ciphers`. */
struct tls_channel *tls_channel_new(struct tls_ciphers *ciphers, const struct tls_channel_start *start);
/* Wipes all keys. */
void tls_channel_free(struct tls_channel **channel);
/* For tests: another bound than TLS_KEY_RECORDS_MAX. */
void tls_channel_set_key_records(struct tls_channel *channel, uint32_t records);

struct tls_received {
    uint8_t *data; /* the application data, within what was given; valid for BAD and DONE too */
    size_t len;
    size_t used;     /* bytes of whole records; the rest is to be given again with what follows it */
    uint8_t alert;   /* BAD: its description; else TLS_ALERT_NONE */
    bool alert_came; /* BAD: the alert is the peer's; otherwise it is to be sent */
};
/* Opens all whole records at the front of data[0 .. len) in place. MORE: ready for what follows; DONE: the peer has
 * said that nothing follows (close_notify), what came behind it is not looked at; BAD: the connection is broken. Key
 * updates are followed at once; an answer that one asks for goes with the next output (4.6.3 wants it no earlier), so
 * that no peer can make us write. */
MUST_CHECK enum tls_outcome tls_channel_open(struct tls_channel *channel, uint8_t *data, size_t len,
                                             struct tls_received *received);
/* Seals the first bytes of `data` as application data, *taken of them (at most 2 * TLS_PLAIN_MAX), with a key update in
 * front if one is due. Returns records in the ciphers' room, borrowed until the next seal of any connection; empty when
 * OpenSSL fails or after tls_channel_alert. */
struct slice tls_channel_seal(struct tls_channel *channel, const uint8_t *data, size_t len, size_t *taken);
/* Changes our key with the next output, and asks the peer to change its own. */
void tls_channel_renew(struct tls_channel *channel);
/* An alert, such as TLS_ALERT_CLOSE_NOTIFY: the last that is sent. Empty when there was one already. As
 * tls_channel_seal. */
struct slice tls_channel_alert(struct tls_channel *channel, uint8_t description);

#endif
