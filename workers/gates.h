/* Gates: while a tenant's gate (or that of all) is closed nothing of it is sent. The truth is in PostgreSQL; a worker
 * reads it under each new number, and when Redis was lost, before it sends another byte, and whenever it is told that
 * gates have changed.
 * Owns: struct gates. May call: lib/store, session, routed, acks. Loop rule: non-blocking.
 *
 * A worker behind a closed gate hands back what it has of the tenant and has not sent (EVENT_LOSE, so that nobody takes
 * it for sent should the worker die): its state byte is not terminal, and
 * when the gate is open again and every worker knows it, the leader routes all of it anew. So nothing waits here, in
 * front of other tenants' commands or in a worker that may die. What is sent is recorded as sent, then the worker
 * confirms. */
#ifndef MUSTER_WORKERS_GATES_H
#define MUSTER_WORKERS_GATES_H

#include <stdbool.h>
#include <stdint.h>

struct gates;
struct worker;

/* Returns owned, or NULL without memory. */
struct gates *gates_new(struct worker *worker);
void gates_free(struct gates **gates);
/* Nobody can tell this worker anything: what is known does not count any more. */
void gates_doubt(struct gates *gates);
/* A new number, or Redis may have lost the old one: what is known does not count until it is read again. */
void gates_begin(struct gates *gates);
/* Told that the state of this number is to be carried out: confirms when it is. */
void gates_told(struct gates *gates, uint64_t number);
/* Whether all is read that must be known before something is sent. */
bool gates_known(const struct gates *gates);
/* Whether the tenant's commands, all of a tenant or of all tenants, are held. */
bool gates_closed(const struct gates *gates, uint32_t tenant);

#endif
