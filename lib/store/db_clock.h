/* The time of day by which a leader and a worker decide what is due: their machine's, whose steps PostgreSQL judges.
 * Owns: struct db_clock, its statement. May call: lib/store/pg, lib/base/step_clock. Loop rule: non-blocking. */
#ifndef MUSTER_STORE_DB_CLOCK_H
#define MUSTER_STORE_DB_CLOCK_H

#include <stdint.h>

#include "lib/store/pg.h"

struct db_clock;

/* Believes the time of day as it is now. Borrows pg, which may go first. Returns owned, or NULL without memory. */
struct db_clock *db_clock_new(struct pg *pg);
void db_clock_free(struct db_clock **clock);
/* Milliseconds since 1970. NULL: the machine's time of day. */
int64_t db_clock_ms(struct db_clock *clock);

#endif
