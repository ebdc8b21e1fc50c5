/* Subcommands that are one unary call: open, call, show, close.
 * Owns: nothing. May call: cli/session, cli/show. Loop rule: as session.h. */
#ifndef MUSTER_CLI_CALL_H
#define MUSTER_CLI_CALL_H

#include "cli/session.h"

/* `show` prints the answer as text; NULL prints nothing. With --json the answer is printed as JSON instead. Returns an
 * exit status. */
int call_once(struct invocation *inv, const char *method, const ProtobufCMessage *request,
              const ProtobufCMessageDescriptor *response, void (*show)(const ProtobufCMessage *answer));
/* The same; `judge` says what an answer ends with. */
int call_judged(struct invocation *inv, const char *method, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *response, void (*show)(const ProtobufCMessage *answer),
                enum exit_status (*judge)(const ProtobufCMessage *answer));

#endif
