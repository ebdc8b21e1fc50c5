/* Protobuf messages as JSON and back, by the proto3 JSON mapping (protobuf.dev/programming-guides/json).
 * Owns: nothing. May call: lib/base buffers, jansson, protobuf-c. Loop rule: none, pure.
 *
 * Written: lowerCamelCase names, enums by name, 64-bit integers as strings, bytes as padded base64, Timestamp and
 * Duration in their RFC 3339 forms, maps as objects; fields without presence are left out when they have their default
 * value. Read: both spellings of a name, numbers for enums, numbers or strings for integers, both base64 alphabets,
 * null for unset. Unknown fields, fields given twice and values of the wrong kind are refused. The other special
 * messages of google.protobuf (Any, Struct, wrappers, FieldMask) are treated like any message. */
#ifndef MUSTER_PROTO_JSON_H
#define MUSTER_PROTO_JSON_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* Messages nested deeper than this are neither written nor read. */
#define JSON_DEPTH_MAX 64

/* Both set errno when they return NULL: ENOMEM without memory, else EINVAL. */

/* Returns owned text (free); NULL without memory, for a message nested too deep or a Timestamp or Duration out of
 * range. `pretty` indents by two spaces and ends with a newline. */
char *json_from_message(const ProtobufCMessage *message, bool pretty);

/* Returns an owned message (protobuf_c_message_free_unpacked with a NULL allocator), or NULL and in `error` one line
 * that names the path, such as "target.devices.ids[3]: expected text". An empty text stands for an empty message. */
ProtobufCMessage *json_to_message(const ProtobufCMessageDescriptor *descriptor, const char *text, size_t len,
                                  char *error, size_t error_size);

#endif
