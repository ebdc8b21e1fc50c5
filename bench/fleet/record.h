/* The fleet's record of what each device received and executed, as a file: the independent witness for tests.
 * Owns: the file's form. May call: the C library. Loop rule: writes are blocking; only on request and at the end.
 *
 * One line per device and command id, separated by single spaces: device id, command id, times received, times
 * executed, outcome (SUCCEEDED, FAILED, REJECTED, NOT_NOW, or NONE), acked (1 when its acknowledgement got a PUBACK),
 * then times in milliseconds since 1970, 0 for never: the latest delivery, the latest execution, the first PUBACK. */
#ifndef MUSTER_FLEET_RECORD_H
#define MUSTER_FLEET_RECORD_H

#include "bench/fleet/process.h"

/* Writes a process's part to `file`.part<its number>; with --record-changes only the commands that something happened
 * to since it was last called. On an error prints one line. */
MUST_CHECK enum err record_write(const char *file, struct process *p);
/* Joins the parts of `processes` processes into `file`, atomically, and removes them. On an error prints one line. */
MUST_CHECK enum err record_join(const char *file, int processes);

#endif
