/* How long commands wait until they are tried again.
 * Owns: the arithmetic. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_RETRY_H
#define MUSTER_DISPATCHER_RETRY_H

#include <stdint.h>

#include "lib/store/db_window.h"

#define RETRY_JITTER_PERCENT 20

/* How long a command of this batch waits after its delivery of this number: the same whoever asks. */
int64_t retry_wait_ms(const struct db_retry *retry, unsigned attempts, uint64_t batch, uint32_t seq);

#endif
