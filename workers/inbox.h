/* Takes routed work out of the worker's inboxes and gives it to the sessions.
 * Owns: struct inbox. May call: lib/store/live, proto/inbox, batch_cache, session, acks, credentials. Loop rule: one
 * blocking take under way on its own connection; never blocks the loop. */
#ifndef MUSTER_WORKERS_INBOX_H
#define MUSTER_WORKERS_INBOX_H

struct inbox;
struct worker;

/* Returns owned, or NULL without memory. */
struct inbox *inbox_new(struct worker *worker);
void inbox_free(struct inbox **inbox);
/* Begins taking, under the lease's number; harmless when it does already. */
void inbox_start(struct inbox *inbox);
/* Takes no more. */
void inbox_stop(struct inbox *inbox);

#endif
