/* Values per device, block by block: read from Redis when commands of the block come, and kept while there is room.
 * Owns: struct value_cache. May call: batch_cache, lib/store/live, value_block. Loop rule: non-blocking.
 *
 * They are secrets: what is freed is zeroed first, and what nobody has asked for in a while goes, as does what is known
 * to be canceled. Whoever is given a command takes a copy of its device's values with it (struct value_part, or a
 * session's own): what is cached here may go at any time, and comes again. */
#ifndef MUSTER_WORKERS_VALUES_H
#define MUSTER_WORKERS_VALUES_H

#include <stdint.h>

#include "lib/store/value_block.h"

struct batch;
struct ev_loop;
struct live;
struct value_cache;

/* Bytes that are kept although nobody waits for them: a fleet that returns comes block by block. */
#define VALUES_KEPT_MAX (16u << 20)

/* And no longer than so long after somebody did: the batch may have been closed since, which no worker is told. */
#define VALUES_KEPT_US 300000000

/* Returns owned, or NULL without memory. */
struct value_cache *value_cache_new(struct live *live, struct ev_loop *loop);
void value_cache_free(struct value_cache **cache);
/* Calls `fn` with the values of the batch, which has some, in the block: at once or after a look-up; valid in the call.
 * NULL: they are not there, because the batch is over or Redis has lost it: then it comes again. */
typedef void values_fn(void *arg, const struct value_block *values, uint64_t a);
void value_cache_get(struct value_cache *cache, const struct batch *batch, uint32_t block, values_fn *fn, void *arg,
                     uint64_t a);

/* Drops what is kept of a batch that is canceled. Who needs it yet, as what was sent goes to its own end, asks again.
 */
void value_cache_drop(struct value_cache *cache, uint64_t batch);
/* Drops what is kept for too long; `now_us` of clock_mono_us also counts for what is asked for until the next call. The
 * cache's own timer does so. */
void value_cache_tick(struct value_cache *cache, int64_t now_us);

/* Values of some slots, copied. */
struct value_part;
/* Returns owned; NULL when none of the slots has any. */
struct value_part *value_part_new(const struct value_block *values, const struct bitmap *slots);
void value_part_free(struct value_part **part);
/* As value_block_get, of the slots it was made for; `part` may be NULL. */
struct slice value_part_get(const struct value_part *part, unsigned slot);

#endif
