/* A worker without devices that measures the queue path: it claims every registered device of every tenant, and each
 * command that is routed to it succeeds at once, recorded and persisted like any other.
 * Owns: struct answer_self. May call: lib/store/db_block, live, acks. Loop rule: non-blocking; reads the registered
 * devices again every few seconds. */
#ifndef MUSTER_WORKERS_ANSWER_SELF_H
#define MUSTER_WORKERS_ANSWER_SELF_H

#include <stdbool.h>

struct answer_self;
struct worker;

/* Returns owned, or NULL without memory. */
struct answer_self *answer_self_new(struct worker *worker);
void answer_self_free(struct answer_self **self);
/* The worker has a number, or Redis has lost presence: claims all devices. */
void answer_self_claim(struct answer_self *self);
/* Whether everything known has been claimed once. */
bool answer_self_ready(const struct answer_self *self);

#endif
