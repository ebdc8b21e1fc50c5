/* What json_write.c and json_read.c share: recognising map entries and special messages, names, times.
 * Owns: nothing. May call: protobuf-c. Loop rule: none, pure. */
#ifndef MUSTER_PROTO_JSON_COMMON_H
#define MUSTER_PROTO_JSON_COMMON_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A 64-byte buffer takes every name that protobuf-c descriptors of ours hold, and every time. */
#define JSON_TEXT_MAX 64

#define JSON_MEMBER(type, message, offset) (*(type *)((uint8_t *)(message) + (offset)))

enum json_special { JSON_PLAIN, JSON_TIMESTAMP, JSON_DURATION };

/* Which form a message of this kind has. */
enum json_special json_special_of(const ProtobufCMessageDescriptor *d);
/* Whether `field` of `parent` is a map: protoc gives map<K, V> as repeated messages of the nested type <Field>Entry
 * with the fields key = 1 and value = 2. */
bool json_is_map(const ProtobufCMessageDescriptor *parent, const ProtobufCFieldDescriptor *field);
/* Writes the lowerCamelCase form of a field's name; returns false when it does not fit. */
bool json_camel(const char *name, char *out, size_t size);
/* Bytes one value of the type takes inside a message struct or a repeated array. */
size_t json_value_size(ProtobufCType type);

/* Writes "2026-01-02T03:04:05.678Z" or "-3.500s", with 0, 3, 6 or 9 digits of fraction; false when out of range. */
bool json_write_timestamp(int64_t seconds, int32_t nanos, char out[static JSON_TEXT_MAX]);
bool json_write_duration(int64_t seconds, int32_t nanos, char out[static JSON_TEXT_MAX]);
/* Read the same, the timestamp also with an offset such as +02:00; false for anything else. */
bool json_read_timestamp(const char *text, int64_t *seconds, int32_t *nanos);
bool json_read_duration(const char *text, int64_t *seconds, int32_t *nanos);

#endif
