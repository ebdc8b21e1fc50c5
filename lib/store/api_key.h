/* API keys as text: "muster_<id>_<64 hex digits>", the id in decimal, the digits 256 random bits.
 * Owns: the format. May call: libsodium. Loop rule: none, pure. */
#ifndef MUSTER_STORE_API_KEY_H
#define MUSTER_STORE_API_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define API_KEY_SECRET_BYTES 32
#define API_KEY_HASH_BYTES   32
#define API_KEY_TEXT_MAX     96 /* bytes of text, with the final NUL */

/* Fills `secret` from the system's random source. */
void api_key_make(uint8_t secret[API_KEY_SECRET_BYTES]);
/* What is stored: SHA-256 of the secret's bytes. */
void api_key_hash(uint8_t hash[API_KEY_HASH_BYTES], const uint8_t secret[API_KEY_SECRET_BYTES]);
/* Writes the NUL-terminated text. */
void api_key_write(char out[API_KEY_TEXT_MAX], int64_t id, const uint8_t secret[API_KEY_SECRET_BYTES]);
/* False when `text` is no key. */
MUST_CHECK bool api_key_read(const char *text, int64_t *id, uint8_t secret[API_KEY_SECRET_BYTES]);
/* Compares hashes in constant time. */
bool api_key_hash_equal(const uint8_t a[API_KEY_HASH_BYTES], const uint8_t b[API_KEY_HASH_BYTES]);

#endif
