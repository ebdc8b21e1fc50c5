/* Time. Owns: nothing. May call: the C library. Loop rule: none. */
#ifndef MUSTER_BASE_CLOCK_H
#define MUSTER_BASE_CLOCK_H

#include <stdint.h>

/* Milliseconds since 1970-01-01 UTC (CLOCK_REALTIME): for what is stored or shown. */
int64_t clock_wall_ms(void);
/* Microseconds of CLOCK_BOOTTIME: for durations and leases. Unlike CLOCK_MONOTONIC it goes on while the machine sleeps,
 * as the lease at the store does; what neither sees is a virtual machine whose host has stopped its clock. */
int64_t clock_mono_us(void);

#endif
