/* Presence: tells Redis which devices this worker has, a few milliseconds of them at a time and per block, and puts
 * what is open for them into their sessions' hands. Owns: struct attach. May call: lib/store/live, batch_cache,
 * session. Loop rule: non-blocking; repeats what fails. */
#ifndef MUSTER_WORKERS_ATTACH_H
#define MUSTER_WORKERS_ATTACH_H

#include <stdint.h>

struct attach;
struct worker;

/* Returns owned, or NULL without memory. */
struct attach *attach_new(struct worker *worker);
void attach_free(struct attach **attach);
/* The device's session has come, gone, or can take more: what its session in the table is then counts. */
void attach_change(struct attach *attach, uint32_t tenant, uint32_t seq);
/* Attaches every session of the table: Redis has lost presence, the worker has a new number, or what was routed to it
 * was lost on the way. Until it is attached nothing is sent to a device: what was lost may come before what it has. */
void attach_all(struct attach *attach);
/* The worker's number was `former` when the changes so far came about, and is not any more: devices that have gone are
 * detached from that one too, since what was sent to Redis under it may have come after it was reaped there. */
void attach_fenced(struct attach *attach, uint16_t former);
/* Calls `fn` when all changes so far are carried out, or Redis is away. */
void attach_settle(struct attach *attach, void (*fn)(void *arg), void *arg);

#endif
