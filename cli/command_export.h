/* The stream of a batch's commands, from a dispatcher to standard output.
 * Owns: the stream and going on when it breaks off. May call: cli/session, cli/command_rows. Loop rule: as session.h.
 */
#ifndef MUSTER_CLI_COMMAND_EXPORT_H
#define MUSTER_CLI_COMMAND_EXPORT_H

#include "cli/command_rows.h"
#include "cli/session.h"

struct command_export {
    Muster__V1__ExportCommandsRequest *request; /* its resume_token is set here */
    enum row_format format;
    int64_t limit; /* 0: all */
};

/* Writes the commands, or with the session's --json the answers. A stream that breaks off behind its first message is
 * asked for again, behind the last one. Returns an exit status; errors are printed. */
int command_export_run(struct session *s, const struct command_export *export);

#endif
