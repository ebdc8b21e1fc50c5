/* Says which devices are here, and compares that with what Redis says: for whoever looks whether the two agree.
 * Owns: nothing. May call: lib/store/live_look, attach, session_table. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_REPORT_H
#define MUSTER_WORKERS_REPORT_H

#include <stdint.h>

struct worker;

/* Puts report `number` into Redis. */
void report_send(struct worker *w, uint64_t number);
/* Attaches the block's devices that are here and not in presence, and detaches those that are only there. */
void report_check(struct worker *w, uint32_t tenant, uint32_t block);

#endif
