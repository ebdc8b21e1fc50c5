/* Tells every worker something and waits until each of them has confirmed it, or is dead and reaped: then what it may
 * have sent counts as SENT.
 * Owns: struct tell. May call: lib/store/live, proto/inbox. Loop rule: non-blocking.
 *
 * Whoever becomes a worker after the telling has begun must learn the same before it sends, by itself. A worker that
 * does not answer has lost its lease, or is told again. While Redis is away the telling waits. */
#ifndef MUSTER_DISPATCHER_TELL_H
#define MUSTER_DISPATCHER_TELL_H

#include <ev.h>
#include <stdint.h>

#include "lib/store/live.h"

#define TELL_POLL_MS  10   /* between looks whether all have confirmed; */
#define TELL_SLOW_MS  50   /* once it has taken longer than a second */
#define TELL_AGAIN_MS 2000 /* who has not confirmed is told again after so long */

struct tell;
typedef void tell_done_fn(void *arg);

/* Pushes `item` (one of proto/inbox.h, encoded; copied) to all urgent inboxes; they confirm `number` of `batch`, see
 * live_confirm. `done` comes once, from the loop. Returns owned until then, or NULL without memory. */
struct tell *tell_new(struct ev_loop *loop, struct live *live, struct slice item, uint64_t batch, uint64_t number,
                      tell_done_fn *done, void *arg);
/* Gives it up, before `done` has come. */
void tell_free(struct tell **tell);

#endif
