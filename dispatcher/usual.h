/* How long a command of a kind usually takes, at most: its execution timeout where one is wanted and none is given
 * (muster.v1.Timeouts has the table), and how long it keeps others of its device back while it is unanswered.
 * Owns: the table. May call: proto. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_USUAL_H
#define MUSTER_DISPATCHER_USUAL_H

#include <stdint.h>

#include "muster/v1/command.pb-c.h"

int64_t usual_ms(Muster__V1__Command__KindCase kind);

#endif
