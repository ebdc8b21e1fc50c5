/* Looking at every command of a batch, to tell its progress by platform and wave, and how long commands took.
 * Owns: struct breakdown_run. May call: view, breakdown_count, lib/store. Loop rule: non-blocking: some blocks at a
 * time, the next when these are counted. */
#ifndef MUSTER_DISPATCHER_BREAKDOWN_H
#define MUSTER_DISPATCHER_BREAKDOWN_H

#include "dispatcher/breakdown_count.h"
#include "dispatcher/dispatcher.h"

/* `b` is borrowed, NULL with an error. Comes once, perhaps before breakdown_run returns. */
typedef void breakdown_fn(void *arg, enum err err, const struct breakdown *b);
void breakdown_run(struct dispatcher *d, const struct view_batch *batch, breakdown_fn *done, void *arg);

#endif
