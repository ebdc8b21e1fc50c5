/* Command ids as the fleet keeps them: 16 bytes, and as they travel: 36 characters.
 * Owns: the conversion. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_FLEET_UUID_H
#define MUSTER_FLEET_UUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UUID_BYTES 16
#define UUID_TEXT  36

/* Reads exactly 36 characters, 8-4-4-4-12 hexadecimal digits of either case (RFC 9562 section 4). False for anything
 * else. */
bool uuid_parse(const uint8_t *text, size_t len, uint8_t id[UUID_BYTES]);
/* Writes 36 characters in lower case, without a NUL. */
void uuid_write(const uint8_t id[UUID_BYTES], char text[UUID_TEXT]);

#endif
