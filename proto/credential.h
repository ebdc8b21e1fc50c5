/* Device tokens: what a device sends as MQTT password, verified without a look-up.
 * Owns: the layout. May call: lib/base, libsodium. Loop rule: none, pure.
 *
 * "mt1." and base64url without padding (RFC 4648, section 5) of: key id u32, tenant u32, seq u32, issued_ms u64,
 * expires_ms u64 (little endian) and HMAC-SHA-256 (RFC 2104) over those 28 bytes followed by the device id. The device
 * id is not in the token; the device sends it as MQTT user name, and a token works with no other. */
#ifndef MUSTER_PROTO_CREDENTIAL_H
#define MUSTER_PROTO_CREDENTIAL_H

#include "lib/base/buf.h"

#define CREDENTIAL_SECRET_BYTES 32
#define CREDENTIAL_TOKEN_MAX    96 /* bytes of text, with the final NUL */

struct credential {
    uint32_t key_id, tenant, seq;
    int64_t issued_ms, expires_ms;
};

/* Writes a NUL-terminated token. */
void credential_sign(char out[CREDENTIAL_TOKEN_MAX], const struct credential *c, const char *device_id,
                     const uint8_t secret[CREDENTIAL_SECRET_BYTES]);
/* Reads the fields without verifying them, so that the key can be found. False when it is no token. */
MUST_CHECK bool credential_parse(struct credential *c, struct slice token);
/* True when `token` was signed with `secret` for `device_id`; constant time. Expiry and revocation are the caller's. */
MUST_CHECK bool credential_verify(struct slice token, struct slice device_id,
                                  const uint8_t secret[CREDENTIAL_SECRET_BYTES]);

#endif
