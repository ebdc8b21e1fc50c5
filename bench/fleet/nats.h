/* Core NATS as a client speaks it: the few operations a device, or a sender of requests, needs.
 * Owns: the forms of the lines. May call: lib/base buffers. Loop rule: none, pure.
 * Source: NATS documentation, "Client Protocol" (https://docs.nats.io/reference/reference-protocols/nats-protocol). */
#ifndef MUSTER_FLEET_NATS_H
#define MUSTER_FLEET_NATS_H

#include "lib/base/buf.h"

enum nats_op { NATS_INFO, NATS_MSG, NATS_PING, NATS_PONG, NATS_OK, NATS_ERR };

/* Longest line of a server in bytes: its INFO names every server of the cluster. */
#define NATS_LINE_MAX 16384
/* Largest payload a client here takes: a command's is at most 64 KiB. */
#define NATS_PAYLOAD_MAX (64u * 1024)

enum nats_result { NATS_DONE, NATS_MORE, NATS_BAD };

/* One operation; slices are borrowed from the input. */
struct nats_message {
    enum nats_op op;
    struct slice subject, reply, payload; /* MSG; reply is empty when no answer is asked for */
    struct slice text;                    /* INFO, ERR: the rest of the line */
};

/* Takes one operation from the front of `in`. MORE and BAD leave `in` as it is. */
MUST_CHECK enum nats_result nats_read(struct slice *in, struct nats_message *out);

/* CONNECT: no +OK for each operation, protocol 1, no headers. */
void nats_put_connect(struct buf *out, const char *name);
/* SUB with the number `sid`; `subject` may have wildcards. */
void nats_put_subscribe(struct buf *out, const char *subject, uint32_t sid);
/* PUB; `reply` empty: no answer wanted. */
void nats_put_publish(struct buf *out, struct slice subject, struct slice reply, struct slice payload);
void nats_put_ping(struct buf *out);
void nats_put_pong(struct buf *out);

#endif
