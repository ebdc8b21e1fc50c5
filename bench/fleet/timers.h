/* Which device is due next: a 4-ary heap of (time, device), one place for each device at most.
 * Owns: struct timers. May call: the C library. Loop rule: none, pure. */
#ifndef MUSTER_FLEET_TIMERS_H
#define MUSTER_FLEET_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

struct timers;

/* For items 0 … count-1. Returns owned, or NULL without memory. */
struct timers *timers_new(uint32_t count);
void timers_free(struct timers **timers);
/* Makes `item` due at `due_us`, in place of what was set before. */
void timers_set(struct timers *timers, uint32_t item, int64_t due_us);
/* The same, but only if nothing or something later was set. */
void timers_sooner(struct timers *timers, uint32_t item, int64_t due_us);
void timers_clear(struct timers *timers, uint32_t item);
/* Time of the first one, INT64_MAX when none is set. */
int64_t timers_first(const struct timers *timers);
/* Takes the first item if it is due at `now_us`. */
MUST_CHECK bool timers_take(struct timers *timers, int64_t now_us, uint32_t *item);

#endif
