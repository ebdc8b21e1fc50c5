#include "proto/credential.h"

#include <sodium.h>
#include <string.h>

#define PREFIX     "mt1."
#define PREFIX_LEN 4
#define FIELDS     28
#define RAW        (FIELDS + crypto_auth_hmacsha256_BYTES)

static void compute_mac(uint8_t mac[crypto_auth_hmacsha256_BYTES], const uint8_t *fields, struct slice device_id,
                        const uint8_t *secret)
{
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, secret, CREDENTIAL_SECRET_BYTES);
    crypto_auth_hmacsha256_update(&state, fields, FIELDS);
    crypto_auth_hmacsha256_update(&state, device_id.data, device_id.len);
    crypto_auth_hmacsha256_final(&state, mac);
}

void credential_sign(char out[CREDENTIAL_TOKEN_MAX], const struct credential *c, const char *device_id,
                     const uint8_t secret[CREDENTIAL_SECRET_BYTES])
{
    uint8_t raw[RAW];
    store_u32le(raw, c->key_id);
    store_u32le(raw + 4, c->tenant);
    store_u32le(raw + 8, c->seq);
    store_u64le(raw + 12, (uint64_t)c->issued_ms);
    store_u64le(raw + 20, (uint64_t)c->expires_ms);
    compute_mac(raw + FIELDS, raw, (struct slice){(const uint8_t *)device_id, strlen(device_id)}, secret);
    memcpy(out, PREFIX, PREFIX_LEN);
    sodium_bin2base64(out + PREFIX_LEN, CREDENTIAL_TOKEN_MAX - PREFIX_LEN, raw, RAW,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static bool decode(uint8_t raw[RAW], struct slice token)
{
    size_t n;
    if (token.len < PREFIX_LEN || token.len >= CREDENTIAL_TOKEN_MAX || memcmp(token.data, PREFIX, PREFIX_LEN) != 0)
        return false;
    const char *end;
    const char *text = (const char *)token.data + PREFIX_LEN;
    if (sodium_base642bin(raw, RAW, text, token.len - PREFIX_LEN, NULL, &n, &end,
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
        return false;
    return n == RAW && end == text + token.len - PREFIX_LEN;
}

bool credential_parse(struct credential *c, struct slice token)
{
    uint8_t raw[RAW];
    if (!decode(raw, token))
        return false;
    *c = (struct credential){load_u32le(raw), load_u32le(raw + 4), load_u32le(raw + 8), (int64_t)load_u64le(raw + 12),
                             (int64_t)load_u64le(raw + 20)};
    return true;
}

bool credential_verify(struct slice token, struct slice device_id, const uint8_t secret[CREDENTIAL_SECRET_BYTES])
{
    uint8_t raw[RAW], mac[crypto_auth_hmacsha256_BYTES];
    if (!decode(raw, token))
        return false;
    compute_mac(mac, raw, device_id, secret);
    return sodium_memcmp(mac, raw + FIELDS, sizeof mac) == 0;
}
