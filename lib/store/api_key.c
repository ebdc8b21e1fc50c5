#include "lib/store/api_key.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "muster_"

/* More digits than any bigint has. */
#define ID_DIGITS_MAX 18

void api_key_make(uint8_t secret[API_KEY_SECRET_BYTES])
{
    randombytes_buf(secret, API_KEY_SECRET_BYTES);
}

void api_key_hash(uint8_t hash[API_KEY_HASH_BYTES], const uint8_t secret[API_KEY_SECRET_BYTES])
{
    crypto_hash_sha256(hash, secret, API_KEY_SECRET_BYTES);
}

void api_key_write(char out[API_KEY_TEXT_MAX], int64_t id, const uint8_t secret[API_KEY_SECRET_BYTES])
{
    char hex[2 * API_KEY_SECRET_BYTES + 1];
    sodium_bin2hex(hex, sizeof hex, secret, API_KEY_SECRET_BYTES);
    snprintf(out, API_KEY_TEXT_MAX, PREFIX "%" PRId64 "_%s", id, hex);
    sodium_memzero(hex, sizeof hex);
}

bool api_key_read(const char *text, int64_t *id, uint8_t secret[API_KEY_SECRET_BYTES])
{
    if (strncmp(text, PREFIX, strlen(PREFIX)) != 0)
        return false;
    const char *p = text + strlen(PREFIX);
    size_t digits = strspn(p, "0123456789");
    if (digits < 1 || digits > ID_DIGITS_MAX || p[digits] != '_' || p[0] == '0')
        return false;
    *id = 0;
    for (size_t i = 0; i < digits; i++)
        *id = *id * 10 + (p[i] - '0');
    const char *hex = p + digits + 1;
    size_t len = strlen(hex), n = 0;
    return len == 2 * API_KEY_SECRET_BYTES &&
           sodium_hex2bin(secret, API_KEY_SECRET_BYTES, hex, len, NULL, &n, NULL) == 0 && n == API_KEY_SECRET_BYTES;
}

bool api_key_hash_equal(const uint8_t a[API_KEY_HASH_BYTES], const uint8_t b[API_KEY_HASH_BYTES])
{
    return sodium_memcmp(a, b, API_KEY_HASH_BYTES) == 0;
}
