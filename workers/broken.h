/* Commands that break their device's connection: what was sent and not answered when the connection was lost, so often,
 * is not sent again for ever. Owns: counts under way to Redis, where they are kept, since the device may come back at
 * any worker. May call: lib/store/live, acks, session. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_BROKEN_H
#define MUSTER_WORKERS_BROKEN_H

struct session;

/* The connection is lost, by the device or on the way; not because this worker ends it. To be called before
 * session_close. Losses more than an hour apart are not counted together; nor those that Redis has lost. */
void broken_connection(struct session *s);

#endif
