/* Which outcomes of a batch's commands are to be tried again: what may be asked for.
 * Owns: the checks, what is filled in for what is absent. May call: proto, lib/base, lib/store (structs only). Loop
 * rule: none, pure. */
#ifndef MUSTER_DISPATCHER_RETRY_CHECK_H
#define MUSTER_DISPATCHER_RETRY_CHECK_H

#include <stdint.h>

#include "lib/base/arena.h"
#include "lib/store/db_window.h"
#include "muster/v1/retry.pb-c.h"
#include "proto/status.h"

#define RETRY_ATTEMPTS_MAX 15u /* as many as a state byte counts */
#define RETRY_WAIT_MIN_MS  1000ll
#define RETRY_WAIT_MAX_MS  86400000ll
#define RETRY_INITIAL_MS   10000ll /* what is absent */
#define RETRY_FACTOR       2u
#define RETRY_MAX_MS       3600000ll
#define RETRY_FACTOR_MAX   10u

/* Adds violations of the field "retry". `execution`: the request has a timeout for that. */
void retry_check(struct status *st, const Muster__V1__Retry *in, bool execution);
/* Of one that was checked. */
void retry_read(struct db_retry *out, const Muster__V1__Retry *in);
/* The reverse; NULL for none, or without memory. */
Muster__V1__Retry *retry_present(struct arena *a, const struct db_retry *retry);

#endif
