/* Keeps the keys of the TLS session tickets the same in all workers, and changes them every hour.
 * Owns: struct ticket_keys. May call: lib/store/db_ticket_key, lib/base/stream. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_TICKET_KEYS_H
#define MUSTER_WORKERS_TICKET_KEYS_H

#include <ev.h>

struct pg;
struct ticket_keys;
struct tls;

/* Returns owned, or NULL without memory. Begins to read at once; borrows `pg` and `tls`. Until the first answer devices
 * can resume only at the worker that they left. */
struct ticket_keys *ticket_keys_new(struct ev_loop *loop, struct pg *pg, struct tls *tls);
void ticket_keys_free(struct ticket_keys **keys);

#endif
