/* Texts with zero bytes in encoded messages, which end there when they are decoded into what C takes for a text.
 * Owns: nothing. May call: lib/base/buf, protobuf-c's descriptors. Loop rule: none, pure. */
#ifndef MUSTER_PROTO_ZERO_TEXT_H
#define MUSTER_PROTO_ZERO_TEXT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "lib/base/buf.h"

#define ZERO_TEXT_FIELD 160 /* bytes of a path */

/* Whether a string field of the message, or of one in it, has a zero byte; `field` is the path of the first one then,
 * such as "target.devices.ids[3]", else "". False of what is no encoded message. */
MUST_CHECK bool zero_text_find(const ProtobufCMessageDescriptor *type, struct slice encoded,
                               char field[ZERO_TEXT_FIELD]);

#endif
