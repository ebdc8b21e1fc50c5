/* Reads the acknowledgement log and what else PostgreSQL has for the leader: new batches, cancels.
 * Owns: struct folder: one poll under way at a time. May call: lib/store/db_open, dispatcher/fold, leader_load,
 * leader_write, cancel, leader_reign. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_LEADER_FOLD_H
#define MUSTER_DISPATCHER_LEADER_FOLD_H

#include "dispatcher/leader_reign.h"

/* Between looks at the log while it has news, or a batch was just handed over; a look costs PostgreSQL about 0.1 ms,
 * and half as long again each time it brings less than FOLD_FEW_BYTES. Without news half as long again each time, up to
 * FOLD_IDLE_MS, which is also the time between looks for new batches and cancels that nobody has told of. */
#define FOLD_BUSY_MS      10
#define FOLD_BUSY_LONG_MS 25
#define FOLD_FEW_BYTES    1024
#define FOLD_IDLE_MS      200
#define FOLD_HINT_MS      5    /* least time between polls that hints cause: what comes in between shares one */
#define FOLD_STREAM_ROWS  64   /* rows of a stream in one answer */
#define FOLD_STREAMS      1024 /* streams with news in one answer */

struct folder *folder_new(struct reign *r);
void folder_free(struct folder **f);
/* The picture's batches are loaded: reads the whole log, then sets r->loaded. */
void folder_begin(struct reign *r);
/* Outcomes are to be expected soon. */
void folder_expect(struct reign *r);
/* There is something to read: at once. */
void folder_wake(struct reign *r);
/* The same, for batches however old. */
void folder_rescan(struct reign *r);
void folder_tick(struct reign *r);

#endif
