/* When devices were seen: which were connected at any moment of an hour, written as one bitmap a block.
 * Owns: struct seen. May call: lib/store/db_seen, session_table. Loop rule: runs in callbacks of the loop; never
 * blocks.
 *
 * A device costs one bit when it connects, and nothing more until the next hour; a crowd that comes costs PostgreSQL as
 * many rows as it has blocks, all in one statement. */
#ifndef MUSTER_WORKERS_SEEN_H
#define MUSTER_WORKERS_SEEN_H

#include <stdint.h>

struct seen;
struct worker;

/* Writes every `interval_ms` what is new. Returns owned, or NULL without memory. */
struct seen *seen_new(struct worker *worker, int64_t interval_ms);
void seen_free(struct seen **seen);
/* The device is connected now. Without memory it is not noted. */
void seen_mark(struct seen *seen, uint32_t tenant, uint32_t seq);
/* Writes now: this worker ends. */
void seen_write(struct seen *seen);

#endif
