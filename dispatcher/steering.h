/* What a Steering says, in plain numbers, and whether it makes sense.
 * Owns: the checks, the default timeouts. May call: proto, lib/base, lib/store (structs only). Loop
 * rule: none, pure. */
#ifndef MUSTER_DISPATCHER_STEERING_H
#define MUSTER_DISPATCHER_STEERING_H

#include <stdint.h>

#include "lib/store/db_window.h"
#include "muster/v1/command.pb-c.h"
#include "muster/v1/steering.pb-c.h"
#include "proto/status.h"

#define STEERING_TIMEOUT_MIN_MS 1000

/* Adds violations of the field "steering" to `st`; then what contradicts itself, FAILED_PRECONDITION. */
void steering_check(struct status *st, const Muster__V1__Steering *in, int64_t now_ms, int64_t expires_ms);
/* Of one that was checked. `kind`: of the command, for the defaults. */
void steering_read(struct db_steer *out, const Muster__V1__Steering *in, Muster__V1__Command__KindCase kind,
                   int64_t created_ms);

#endif
