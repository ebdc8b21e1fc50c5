/* Who has come and who has gone, told as events to the tenants that want it.
 * Owns: struct presence_teller. May call: lib/store/db_presence, live, leader_reign. Loop rule: as leader_reign.h.
 *
 * The presence that Redis holds is compared, every interval, with what was told last, which PostgreSQL holds: what two
 * looks in a row find to be other than that is told, and written down as told by the same transaction. So each change
 * is told once whoever leads, of one device in order; what comes and goes between two looks is not told at all; and a
 * fleet that comes back costs one event a block, whoever its workers are. Presence that has just been lost says nothing
 * about who has gone: for some looks after Redis was filled, or another has begun to lead, only who came is believed.
 * It costs nothing but a look at a table where nobody wants it. */
#ifndef MUSTER_DISPATCHER_LEADER_PRESENCE_H
#define MUSTER_DISPATCHER_LEADER_PRESENCE_H

#include "dispatcher/leader_reign.h"

#define PRESENCE_PART 32 /* blocks read at a time, and told of in one transaction: at most 64 events */
/* Looks for which nobody is believed to have gone: workers tell a new Redis within seconds. */
#define PRESENCE_DOUBT 10

struct presence_teller;

/* Returns owned, or NULL without memory. */
struct presence_teller *presence_teller_new(struct reign *r);
void presence_teller_free(struct presence_teller **teller);
/* Looks, if it is time. */
void presence_teller_tick(struct reign *r);

#endif
