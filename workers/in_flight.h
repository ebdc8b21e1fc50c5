/* What is in flight on all connections, told to PostgreSQL when Redis is lost: what Redis knew of it may be gone, and
 * this process with it before it can say so. From then on no cancel and no expiry tells such a command as never sent.
 * Owns: nothing. May call: sessions, acks, proto/ack_log. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_IN_FLIGHT_H
#define MUSTER_WORKERS_IN_FLIGHT_H

struct worker;

/* Without memory for it nothing is told: Redis knows it, unless that is lost too. */
void in_flight_record(struct worker *w);

#endif
