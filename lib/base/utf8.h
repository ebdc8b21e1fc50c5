/* UTF-8 (RFC 3629): is it well-formed?
 * Owns: nothing. May call: lib/base/buf. Loop rule: none, pure. */
#ifndef MUSTER_BASE_UTF8_H
#define MUSTER_BASE_UTF8_H

#include <stdbool.h>

#include "lib/base/buf.h"

/* Bytes of the well-formed sequence at the front of the `n` (at least 1) bytes: 1 to 4; 0 when there is none. U+0000 is
 * none here: what holds it cannot become a C string. */
size_t utf8_sequence(const uint8_t *p, size_t n);
/* All of it is well-formed, and without U+0000. */
bool utf8_good(struct slice s);

#endif
