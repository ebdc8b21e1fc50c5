/* Tells every worker that tokens are revoked. A hint that makes it soon: workers also read the revocations themselves.
 * Owns: nothing. May call: lib/store/live, proto/inbox. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_REVOKE_H
#define MUSTER_DISPATCHER_REVOKE_H

#include <stddef.h>
#include <stdint.h>

#include "dispatcher/dispatcher.h"

struct revoke_entry {
    uint32_t seq;
    int64_t issued_before_ms;
};

/* After commit. Copies. */
void revoke_tell_workers(struct dispatcher *d, int32_t tenant, const struct revoke_entry *entries, size_t n);

#endif
