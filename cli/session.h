/* The command line's connection to a dispatcher, and how it tells of errors.
 * Owns: struct session (loop, TLS, client). May call: lib/base. Loop rule: calls run the loop until they have ended. */
#ifndef MUSTER_CLI_SESSION_H
#define MUSTER_CLI_SESSION_H

#include <ev.h>

#include "cli/args.h"
#include "lib/base/grpc_client.h"

struct session {
    struct ev_loop *loop;
    struct stream_hub *hub;
    struct tls *tls;
    struct grpc_client *client;
    const struct common *common; /* borrowed */
    const bool *stop;            /* borrowed; once true, long calls are given up. NULL: never */
};

static inline bool session_stopped(const struct session *s)
{
    return s->stop && *s->stop;
}

/* Makes the client; nothing is sent yet. Prints one line and returns an error when the settings are no good. */
MUST_CHECK enum err session_open(struct session *s, const struct common *common);
void session_close(struct session *s);

/* Calls `method` ("CommandService/GetBatch"). Returns owned (session_free_message): the response, without --json as
 * visible_message makes it, for it is printed; or NULL, the error printed. */
ProtobufCMessage *session_call(struct session *s, const char *method, const ProtobufCMessage *request,
                               const ProtobufCMessageDescriptor *response);
/* The same without printing, and as it came. */
ProtobufCMessage *session_try(struct session *s, const char *method, const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response, struct status *status);
void session_free_message(ProtobufCMessage *message);

/* Runs the loop for so many seconds. */
void session_pause(struct session *s, double seconds);

/* Prints code, reason, message and field violations to stderr; in JSON when `json`. */
void session_print_error(const struct status *status, bool json);

#endif
