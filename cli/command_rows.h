/* Commands as lines of a table.
 * Owns: the look. May call: cli/show. Loop rule: writes are blocking. */
#ifndef MUSTER_CLI_COMMAND_ROWS_H
#define MUSTER_CLI_COMMAND_ROWS_H

#include <stdbool.h>

#include "muster/v1/command_service.pb-c.h"

void command_rows(Muster__V1__CommandStatus *const *commands, size_t count, bool heading);
/* Several lines about one command, with its result. */
void command_details(const Muster__V1__CommandStatus *command);

#endif
