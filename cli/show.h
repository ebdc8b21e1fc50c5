/* How answers look on the terminal: JSON, names of enum values, times, lines of a batch.
 * Owns: the look. May call: proto/json, generated messages. Loop rule: writes are blocking. */
#ifndef MUSTER_CLI_SHOW_H
#define MUSTER_CLI_SHOW_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "google/protobuf/timestamp.pb-c.h"
#include "muster/v1/command_service.pb-c.h"

/* One line of JSON on stdout. */
void show_json(const ProtobufCMessage *message);

/* "READ_ONLY" of ROLE_READ_ONLY, "?" for a number the program does not know. Borrowed. */
const char *show_enum(const ProtobufCEnumDescriptor *descriptor, int value);
/* Reads "read-only", "READ_ONLY" or "ROLE_READ_ONLY"; false when there is no such value, or it is 0. */
bool show_read_enum(const ProtobufCEnumDescriptor *descriptor, const char *text, int *value);
/* "ios, ipados, …" of all values but 0, in a static buffer. */
const char *show_enum_choices(const ProtobufCEnumDescriptor *descriptor);

#define SHOW_TIME_BYTES 32
/* "2026-01-02T03:04:05.678Z", or "-" for NULL; returns `out`. */
const char *show_time(const Google__Protobuf__Timestamp *at, char out[SHOW_TIME_BYTES]);
int64_t show_time_ms(const Google__Protobuf__Timestamp *at);

/* "lock", or "custom com.example.blink" and so on; in a static buffer. */
const char *show_command(const Muster__V1__Command *command);

/* The counts of `p` by state number 1 … 11; index 0 stays 0. */
#define SHOW_STATES 12
void show_counts(const Muster__V1__Progress *p, uint32_t counts[SHOW_STATES]);
/* Writes "9990 SUCCEEDED, 10 FAILED"; states without commands are left out. */
void show_progress_text(const Muster__V1__Progress *p, char *out, size_t size);
/* Several lines about one batch. */
void show_batch(const Muster__V1__Batch *batch);

#endif
