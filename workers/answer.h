/* From what a device says of a command to the event that is recorded of it: its end, or that it is tried again.
 * Owns: answers whose batch is being looked up. May call: batch_cache, acks, proto/delivery. Loop rule: non-blocking.
 */
#ifndef MUSTER_WORKERS_ANSWER_H
#define MUSTER_WORKERS_ANSWER_H

#include <stdbool.h>

#include "proto/delivery.h"
#include "workers/acks.h"

struct batch;
struct worker;

/* Records it. `ack` has all but the event; its `attempts` are 0 when the session does not hold the command. `batch`:
 * NULL when it is not at hand; then it is looked up, since it says what is tried again. False without memory: nothing
 * is recorded. */
MUST_CHECK bool answer_take(struct worker *w, struct batch *batch, const struct ack *ack,
                            const struct acknowledgement *said);

#endif
