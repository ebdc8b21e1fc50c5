/* The pure parts of gRPC over HTTP/2 (grpc/grpc doc/PROTOCOL-HTTP2.md): length-prefixed messages, grpc-timeout,
 * percent-encoded grpc-message, base64 of "-bin" metadata, the content type.
 * Owns: struct grpc_deframer. May call: lib/base buffers. Loop rule: none, pure. */
#ifndef MUSTER_PROTO_GRPC_FRAMING_H
#define MUSTER_PROTO_GRPC_FRAMING_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "proto/status.h"

/* Compressed-flag (1 byte) and Message-Length (4 bytes, big-endian). */
#define GRPC_PREFIX_SIZE 5
/* grpc-timeout has at most eight digits and a unit. */
#define GRPC_TIMEOUT_SIZE 10

enum grpc_deframe {
    GRPC_DEFRAME_MORE, /* all of the input is used up, the message is not complete */
    GRPC_DEFRAME_DONE, /* `body` holds one message; call grpc_deframer_next before going on */
    GRPC_DEFRAME_BAD,  /* `code` and `why` say why; final */
};

/* Cuts messages out of bytes that come in pieces of any size. Zero-initialise, set `max`, free `body` at the end. */
struct grpc_deframer {
    size_t max;      /* bytes of one message */
    struct buf body; /* what there is of the current message */
    uint8_t prefix[GRPC_PREFIX_SIZE];
    uint8_t prefix_len;
    uint32_t length; /* of the current message, once prefix_len is GRPC_PREFIX_SIZE */
    enum status_code code;
    const char *why;
};

/* Takes from the front of `in` what belongs to the current message. A message that is too long is refused by its
 * prefix: RESOURCE_EXHAUSTED. A compressed one is INTERNAL: compression has to be agreed on in the headers, and never
 * is. */
MUST_CHECK enum grpc_deframe grpc_deframe(struct grpc_deframer *d, struct slice *in);
/* After DONE: forgets the message; keeps a buffer of usual size for the next one. */
void grpc_deframer_next(struct grpc_deframer *d);
/* True between messages: the stream may end here. */
static inline bool grpc_deframer_idle(const struct grpc_deframer *d)
{
    return d->prefix_len == 0;
}

/* Appends prefix and encoded message. Sets out->failed when memory runs out or the message is over 4 GiB. */
void grpc_frame_message(struct buf *out, const ProtobufCMessage *message);
/* The same with a message that is encoded already. */
void grpc_frame_bytes(struct buf *out, struct slice message);

/* Reads "<1 to 8 digits><H|M|S|m|u|n>" into nanoseconds; false when malformed. Never overflows (99,999,999 hours fit).
 */
MUST_CHECK bool grpc_timeout_parse(const char *text, int64_t *ns);
/* Writes the time rounded up to what eight digits can say; `out` has GRPC_TIMEOUT_SIZE bytes. `ns` < 0 counts as 0. */
void grpc_timeout_format(int64_t ns, char out[GRPC_TIMEOUT_SIZE]);

/* Percent-encoding of grpc-message: bytes outside 0x20…0x7E and '%' become %XX. */
void grpc_percent_encode(struct buf *out, const char *text);
/* Undoes it into out[size], always ending with NUL, cut when too long; what is not a valid %XX stands for itself. */
void grpc_percent_decode(const char *text, size_t len, char *out, size_t size);

/* RFC 4648, 4, without padding, as gRPC sends it. */
void grpc_base64_encode(struct buf *out, const void *data, size_t len);
/* Decodes one value, padded or not, into out, which has room for len * 3 / 4 + 1 bytes. False when it is no base64. */
MUST_CHECK bool grpc_base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len);
/* True for keys whose values are binary: they end in "-bin". */
bool grpc_key_is_binary(const char *key, size_t len);

/* True for application/grpc and application/grpc+proto, with or without parameters. */
bool grpc_content_type_ok(const char *value, size_t len);

#endif
